"""Notices an event loop that stands still, and names the processor that holds it."""

import asyncio
import sys
import threading
import time
import traceback

import structlog

log = structlog.get_logger(__name__)
BEAT = 0.1
TASK_PREFIX = "processor "
"""Tasks that run an `async` processor are named `processor <name> <queue> <job id>`."""


class Watchdog:
    """A thread that sees when the loop has not run for `limit` seconds; use as a context manager inside the loop."""

    def __init__(self, *, limit: float = 1.0) -> None:
        self._limit = limit
        self._beat = time.monotonic()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._tick()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._timer.cancel()
        self._thread.join()

    def _tick(self) -> None:
        self._beat = time.monotonic()
        self._timer = self._loop.call_later(BEAT, self._tick)

    def _watch(self) -> None:
        blocked_since: float | None = None
        while not self._closing.wait(BEAT):
            beat = self._beat
            if blocked_since is None and time.monotonic() - beat > self._limit:
                blocked_since = beat
                self._report(time.monotonic() - beat)
            elif blocked_since is not None and beat != blocked_since:
                log.warning("event loop free again", seconds=round(beat - blocked_since, 1))
                blocked_since = None

    def _report(self, seconds: float) -> None:
        task = asyncio.current_task(self._loop)
        named = task.get_name() if task else ""
        frame = sys._current_frames().get(self._loop_thread)
        where = {}
        if named.startswith(TASK_PREFIX):
            processor, queue, job_id = named.removeprefix(TASK_PREFIX).split(" ", 2)
            where = {"processor": processor, "queue": queue, "jobId": job_id}
        log.error(
            "event loop blocked",
            seconds=round(seconds, 1),
            **where,
            stack="".join(traceback.format_stack(frame, limit=6)) if frame else None,
            hint="an async processor must await; make it a plain def (run in a thread) or isolated=True",
        )
