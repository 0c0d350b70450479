"""A child process that does the jobs of one isolated processor, one at a time, for the worker at the other end of its pipes."""

import asyncio
import contextlib
import inspect
import logging
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

from pipeline.config import Config
from pipeline.errors import HooklineError, PermanentFailure
from pipeline.jobs import frames
from pipeline.jobs.inputs import validated
from pipeline.jobs.model import Job, Origin
from pipeline.jobs.registry import Processor, resolve
from pipeline.jobs.results import check_result

Send = Callable[[dict[str, Any]], None]
HEADROOM = 1 << 30
"""What RLIMIT_DATA allows above the limit that the worker watches: libraries reserve far more than they ever hold."""
GRACE_SECONDS = 10
"""How much later than the worker the kernel would end a job that holds the interpreter when the worker is gone."""
NICE = 10
_LOG_BYTES = 16 * 1024


class ChildContext:
    """The `Context` of an `async` processor. It is never told to stop: it is killed."""

    cancelled = False

    def __init__(self, send: Send, log: FilteringBoundLogger, idempotency_key: str) -> None:
        self._send = send
        self.log = log
        self.idempotency_key = idempotency_key

    async def progress(self, percent: int) -> None:
        report(self._send, percent)

    async def heartbeat(self) -> None:
        """The worker sees by itself whether a child lives."""


class BlockingContext:
    """The same for a plain `def`: its methods are ordinary calls."""

    cancelled = False

    def __init__(self, send: Send, log: FilteringBoundLogger, idempotency_key: str) -> None:
        self._send = send
        self.log = log
        self.idempotency_key = idempotency_key

    def progress(self, percent: int) -> None:
        report(self._send, percent)

    def heartbeat(self) -> None:
        """The worker sees by itself whether a child lives."""


def report(send: Send, percent: int) -> None:
    if type(percent) is not int or not 0 <= percent <= 100:
        raise ValueError(f"progress is a whole number from 0 to 100, not {percent!r}")
    send({"progress": percent})


def main() -> None:
    """Serve until the pipe to the worker closes."""
    # One document takes as long as it takes; whoever asks the API waits for the answer.
    os.nice(NICE)
    requests, send = _pipes()
    first = requests.get()
    log = _logging(send)
    try:
        processor = _processor(first)
    except Exception as error:
        send({"failure": {"permanent": False, "reason": _clean(str(error)) or type(error).__name__, "stack": _clean(traceback.format_exc())}})
        return
    if first["reports_memory"]:
        threading.Thread(target=_report_memory, args=(send,), daemon=True).start()
    send({"ready": True})
    while True:
        request = requests.get()
        send({"accepted": True})
        # The kernel's own alarm: also ends a child whose worker was killed while a library holds the interpreter lock.
        signal.setitimer(signal.ITIMER_REAL, processor.timeout / 1000 + GRACE_SECONDS)
        outcome = _perform(processor, request, send, log)
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(outcome)


def _pipes() -> tuple["SimpleQueue[dict[str, Any]]", Send]:
    """The worker's requests, and the way back; standard output is then no more than a second standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # Libraries print; a line of theirs among the frames would end the job.
    os.dup2(2, 1)
    queue: SimpleQueue[dict[str, Any]] = SimpleQueue()
    lock = threading.Lock()

    def receive() -> None:
        with contextlib.suppress(OSError, frames.BadFrame):
            while (frame := frames.read(requests)) is not None:
                queue.put(frame)
        # The worker is gone or has had enough; what the processor started must not outlive it either.
        os.killpg(0, signal.SIGKILL)

    def send(frame: dict[str, Any]) -> None:
        with lock:
            answers.write(frames.pack(frame))
            answers.flush()

    threading.Thread(target=receive, daemon=True).start()
    return queue, send


def _processor(first: dict[str, Any]) -> Processor:
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = int(first["memory"]) + HEADROOM
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    processor = resolve(first["path"], Config.model_validate(first["config"]))
    prepare = getattr(getattr(processor.call, "__self__", None), "prepare", None)
    if prepare:
        prepare()
    return processor


def _perform(processor: Processor, request: dict[str, Any], send: Send, log: FilteringBoundLogger) -> dict[str, Any]:
    origin = request["job"].pop("origin")
    job = Job(**request["job"], origin=Origin(**origin) if origin else None)
    try:
        ready = validated(job, processor)
        if inspect.iscoroutinefunction(processor.call):
            value = asyncio.run(processor.call(ready, ChildContext(send, log, request["idempotency_key"])))
        else:
            value = processor.call(ready, BlockingContext(send, log, request["idempotency_key"]))
        return {"result": orjson.Fragment(check_result(value))}
    except PermanentFailure as failure:
        return {"failure": {"permanent": True, "reason": _clean(failure.message), "stack": ""}}
    except MemoryError:
        return {"failure": {"permanent": True, "out_of_memory": True, "reason": "", "stack": ""}}
    except SystemExit as error:
        return {"failure": {"permanent": False, "reason": f"the processor called exit({error.code!r})", "stack": traceback.format_exc()}}
    except Exception as error:
        reason = error.message if isinstance(error, HooklineError) else str(error)
        return {"failure": {"permanent": False, "reason": _clean(reason) or type(error).__name__, "stack": _clean(traceback.format_exc(limit=-8))}}


def _clean(text: str) -> str:
    """Text as a frame can carry it: file names and damaged documents bring lone surrogates into messages."""
    return text.encode(errors="backslashreplace").decode()


def _report_memory(send: Send) -> None:
    """Where the worker cannot look into /proc (macOS), the child says itself what it holds at most."""
    while True:
        send({"held": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)})
        time.sleep(0.1)


# --- logs -----------------------------------------------------------------------------------------------------------


class _ToWorker:
    """A logger, in structlog's sense, whose output is frames: the worker adds queue, job and processor."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def msg(self, **event: Any) -> None:
        try:
            line = orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)
        except TypeError:
            # A lone surrogate, say, in the name of a damaged document's part.
            line = orjson.dumps({"level": event["level"], "event": ascii(event)})
        if len(line) > _LOG_BYTES:
            line = orjson.dumps({"level": event["level"], "event": _clean(str(event.get("event")))[:1000], "cut": f"{len(line)} bytes"})
        self._send({"log": orjson.Fragment(line)})

    debug = info = warning = error = critical = log = msg


class _Handler(logging.Handler):
    """What libraries log with the standard library, on the same way."""

    def __init__(self, logger: _ToWorker) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self._logger.msg(level=record.levelname.lower(), event=_clean(record.getMessage()), logger=record.name)


def _logging(send: Send) -> FilteringBoundLogger:
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, lambda logger, method, event: event],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _ToWorker(send),
    )
    logging.basicConfig(handlers=[_Handler(_ToWorker(send))], level=logging.WARNING, force=True)
    log: FilteringBoundLogger = structlog.get_logger()
    return log


if __name__ == "__main__":
    main()
