"""Kills the process that carries a foreign worker's end into a run, at each of its commands, and says what came of it.

A process of its own, without threads: it forks for every window. One JSON line for each, `killed` false on the last.
"""

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from pipeline.config import Config
from pipeline.jobs.calls import now_ms
from pipeline.store import connection
from pipeline.store.group import Group
from tests.redis.test_engine import House
from tests.support.foreign import Foreign

CONFIG = Config(
    queues={"theirs": {"processors": {"do": "external"}}, "ours": {"processors": {"do": "x:y"}}},
    workflows={"chain": {"version": 1, "steps": {"one": {"queue": "theirs"}, "two": {"needs": ["one"], "queue": "ours"}}}},
)


class Cut:
    """A client that ends its process before its n-th command, which is after the one before it: each place where a crash leaves another store."""

    def __init__(self, client: Any, at: int) -> None:
        self._client = client
        self._left = at

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name in ("aclose", "pipeline") or not callable(method):
            return method

        def command(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*arguments, **options)

        return command


def phase(work: Callable[[], Awaitable[Any]]) -> tuple[bool, Any]:
    """Do it in a process of its own: whether that was killed, and what it returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(asyncio.run(work())).encode())  # type: ignore[arg-type]
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status), json.loads(said) if said else None


def main(url: str, way: str) -> None:
    # Another process takes at once what a dead one left unacknowledged.
    Group.CLAIM_AFTER_MS = 0

    async def begin() -> str:
        house = House(url, CONFIG)
        await house.redis.flushall()
        await house.bridge.open()
        run_id = (await house.runs.start("chain", {}, user_id=None)).run_id
        await house.turn()
        await Foreign(house.redis, "theirs").do('{"value":1}')
        return run_id

    async def turn(at: int) -> None:
        original = connection.connect
        connection.connect = lambda url, **options: Cut(original(url, **options), at)
        house = House(url, CONFIG)
        if way == "stream":
            await house.bridge._read(await house.bridge._positions())
        else:
            await house.bridge.look(now_ms())
            await house.turn("killed")

    async def result(run_id: str) -> dict[str, Any]:
        house = House(url, CONFIG)
        await house.bridge.look(now_ms())
        await house.turn("another")
        return {
            "told": len(await house.told("job.completed")),
            "moved": len(await house.told("workflow.step.completed")),
            "dispatched": await house.waiting("ours") == [f"{run_id}_two_1"],
            "left": await house.redis.exists(house.queues.keys("theirs").key(f"{run_id}_one_1")),
            "acknowledged": await house.log.acknowledged("engine", await house.log.last()),
        }

    for window in itertools.count(1):
        _, run_id = phase(begin)
        killed, _ = phase(lambda: turn(window))  # noqa: B023 - run within this round
        print(json.dumps({"window": window, "killed": killed, **phase(lambda: result(run_id))[1]}), flush=True)  # noqa: B023
        if not killed:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
