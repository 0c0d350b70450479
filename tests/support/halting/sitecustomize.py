"""Put on a service's PYTHONPATH, this lets a test hold one of its processes still at the border between two steps of a push, and kill it there.

At each border the process names it to the test's socket (`HALTS`) and waits for a word: none comes to the process that is to die.
"""

import json
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

import uvloop

_run = uvloop.run


def _run_patched(main: Any, **more: Any) -> Any:
    # Not earlier: every process of the service, children of processors included, begins by importing this file.
    _patch()
    return _run(main, **more)


uvloop.run = _run_patched


def _at(border: str, data: Iterable[Any]) -> None:
    if not any(isinstance(one, dict) and one.get("text") == border for one in data):
        return
    with socket.socket(socket.AF_UNIX) as test:
        test.connect(os.environ["HALTS"])
        test.sendall(f"{border} {os.getpid()}\n".encode())
        test.recv(1)


def _around(owner: type, method: str, before: str, after: str, data: Callable[..., Iterable[Any]]) -> None:
    original = getattr(owner, method)

    async def patched(self: Any, *args: Any, **more: Any) -> Any:
        _at(before, data(*args))
        done = await original(self, *args, **more)
        _at(after, data(*args))
        return done

    setattr(owner, method, patched)


def _patch() -> None:
    from pipeline.jobs import closing, stalled, worker
    from pipeline.jobs.callbacks import Callbacks
    from webhooks.sender import Sender

    # What is tested is that a lock runs out, and not how long that takes.
    worker.Worker.__init__.__kwdefaults__["lock_ms"] = 2_000
    stalled.run.__kwdefaults__["interval_ms"] = 500
    _around(Sender, "send", "before the request", "after the request", lambda request, now: [json.loads(request.body)["data"].get("data")])
    _around(closing.Closer, "hold", "before the hold", "after the hold", lambda fetched, job, *_: [job.data])
    _around(Callbacks, "answer", "before the callback", "after the callback", lambda id, answer, now: [answer["result"]])
    _around(worker.Worker, "_exchange", "before the end", "after the end", lambda ends, want: [end.job.data for end in ends])
