"""What the worker gives a processor: progress, liveness, cancellation, a logger."""

import asyncio
import time
from functools import cached_property
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from pipeline.jobs import calls, events
from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.jobs.model import Job
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.scripts import composed, lua, pack, pack_call

LOCK_LOST = "its lock was lost"
SHUTTING_DOWN = "the worker is shutting down"
PROGRESS = composed(lua("pipeline.jobs", "progress.lua"), "updateProgress")
log = structlog.get_logger(__name__)
PROGRESS_EVERY = 0.25
"""Seconds between two reports of one job: a processor may report each line of a file, the store need not hear of it."""


class JobContext:
    """The `Context` of one attempt."""

    # Most attempts leave these as they are.
    _reported = 0.0
    _last: int | None = None
    stop_reason: str | None = None
    """Why the job should stop, once it should."""

    def __init__(self, redis: Store, keys: QueueKeys, log_key: str, job: Job, processor: str | None) -> None:
        self._redis = redis
        self._keys = keys
        self._log_key = log_key
        self._job = job
        self._processor = processor

    @cached_property
    def log(self) -> FilteringBoundLogger:
        bound: FilteringBoundLogger = log.bind(**where(self._job, self._processor))
        return bound

    @property
    def idempotency_key(self) -> str:
        return f"{self._keys.prefix}:{self._job.queue}:{self._job.id}:{self._job.timestamp}"

    @property
    def cancelled(self) -> bool:
        return self.stop_reason is not None

    async def progress(self, percent: int) -> None:
        if not isinstance(percent, int) or not 0 <= percent <= 100:
            raise ValueError(f"progress is a whole number from 0 to 100, not {percent!r}")
        now = time.monotonic()
        if self.cancelled or percent == self._last or (percent < 100 and now - self._reported < PROGRESS_EVERY):
            return
        self._reported, self._last = now, percent
        call = calls.update_progress(self._keys, job_id=self._job.id, progress=percent)
        event = events.job_progress(self._job, percent, now=now_ms())
        try:
            await PROGRESS(self._redis, [self._log_key], [pack(pack_call(call)), pack(event.fields())])
        except STORE_ERRORS as error:
            # The attempt is not the worse for it: a later report, or the result, says more.
            self.log.warning("progress not reported", error=str(error))

    async def heartbeat(self) -> None:
        if self.cancelled:
            raise asyncio.CancelledError(self.stop_reason)


class ThreadContext:
    """The same for a plain `def`, which runs in a thread: its methods are ordinary calls."""

    def __init__(self, context: JobContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self.log = context.log

    @property
    def idempotency_key(self) -> str:
        return self._context.idempotency_key

    @property
    def cancelled(self) -> bool:
        return self._context.cancelled

    def progress(self, percent: int) -> None:
        asyncio.run_coroutine_threadsafe(self._context.progress(percent), self._loop).result()

    def heartbeat(self) -> None:
        if self.cancelled:
            raise asyncio.CancelledError(self._context.stop_reason)


def stop(context: JobContext, task: "asyncio.Task[Any]", reason: str) -> None:
    """Tell a running attempt to stop: an `async` one is cancelled, an isolated one killed, a thread asked."""
    if context.stop_reason is None:
        context.stop_reason = reason
        task.cancel(reason)


def where(job: Job, processor: str | None) -> dict[str, Any]:
    """What log lines about a job carry."""
    if origin := job.origin:
        return {"queue": job.queue, "jobId": job.id, "runId": origin.run, "step": origin.step, "processor": processor}
    return {"queue": job.queue, "jobId": job.id, "processor": processor}
