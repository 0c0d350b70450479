"""The slots of a worker: in each an attempt, from the locked job to an end that the store knows or that the next exchange takes along."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

from pipeline.config.queues import Queue
from pipeline.errors import PermanentFailure
from pipeline.jobs import schedulers, stalled
from pipeline.jobs.attempt import Completed, Dropped, Failed, Interrupted, Outcome, Waiting, read_job
from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.jobs.closing import Closer
from pipeline.jobs.context import SHUTTING_DOWN, JobContext, stop, where
from pipeline.jobs.fetched import Fetched
from pipeline.jobs.locks import Locks
from pipeline.jobs.model import Job
from pipeline.jobs.trade import Desk, Ended
from pipeline.jobs.watchdog import TASK_PREFIX
from pipeline.store.connection import Store

log = structlog.get_logger(__name__)


class Runs(Protocol):
    """Who runs an attempt (`runner.Runner`)."""

    def name_of(self, job_name: str) -> str | None: ...
    async def run(self, job: Job, context: JobContext) -> Outcome: ...


class Slots:
    """`ended` is called with a job that was plainly completed and keeps its slot, `freed` when a slot has no job any more."""

    def __init__(
        self,
        redis: Store,
        keys: QueueKeys,
        settings: Queue,
        runner: Runs,
        desk: Desk,
        *,
        log_key: str,
        lock_ms: int,
        ended: Callable[[Ended], None],
        freed: Callable[[], None],
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._runner = runner
        self._desk = desk
        self._log_key = log_key
        self._ended = ended
        self._freed = freed
        self._closer = Closer(redis, keys, settings, log_key=log_key, lock_ms=lock_ms)
        self.locks = Locks(redis, keys, duration_ms=lock_ms, stop=self._told_to_stop)
        """Those of the jobs that have a slot."""
        self._attempts: dict[str, asyncio.Task[None]] = {}
        """By token."""
        self._running: dict[str, JobContext] = {}
        """Those of the attempts whose processor is at work."""
        self._hand_back = False
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether there is an attempt under way; one that only waits for its exchange is not."""
        return bool(self._attempts)

    def run(self, fetched: Fetched) -> None:
        """Run an attempt at the job."""
        processor = self._runner.name_of(fetched.name or "")
        self._start(fetched, processor, self._attempt(fetched, processor))

    def complete_alone(self, end: Ended) -> None:
        """End a completed job by BullMQ's script, which is tried until it works."""
        self._start(end.fetched, end.processor, self._complete_alone(end))

    def hand_back(self) -> None:
        """Tell all that run to stop, and run no more: the jobs go back to their queue, uncounted."""
        self._hand_back = True
        for token in [*self._running]:
            self._told_to_stop(token, SHUTTING_DOWN)

    def close(self) -> list[asyncio.Task[None]]:
        """Leave everything as it is; returns what is to be waited for."""
        self._closed = True
        tasks = [*self._attempts.values()]
        for task in tasks:
            task.cancel()
        return tasks

    def _start(self, fetched: Fetched, processor: str | None, attempt: Coroutine[Any, Any, None]) -> None:
        name = f"{TASK_PREFIX}{processor} {self._keys.queue} {fetched.job_id}"
        self._attempts[fetched.token] = asyncio.get_running_loop().create_task(attempt, name=name)

    async def _attempt(self, fetched: Fetched, processor: str | None) -> None:
        started, end = now_ms(), None
        try:
            job, spoilt = self._read(fetched)
            context = JobContext(self._redis, self._keys, self._log_key, job, processor)
            self.locks.hold(job.id, fetched.token)
            if schedulers.KEY in job.opts:
                await schedulers.go_on(self._redis, self._keys, job)
            outcome = spoilt or await self._outcome(fetched, job, context)
            if isinstance(outcome, Completed) and fetched.plain:
                end = self._desk.ended(fetched, job, processor, outcome, started, now_ms())
            else:
                await self._in_spite_of_cancels(self._end(fetched, job, context, outcome, started))
        except Exception:
            # The job keeps its lock until it runs out and is then put back as stalled.
            log.exception("worker slot failed", queue=self._keys.queue, jobId=fetched.job_id)
        finally:
            self._attempts.pop(fetched.token, None)
            if end:
                self._ended(end)
            else:
                self._free(fetched)

    async def _complete_alone(self, end: Ended) -> None:
        try:
            await self._closer.end(end.fetched, end.job, Completed(result=end.result), end.started, log.bind(**where(end.job, end.processor)))
        finally:
            self._attempts.pop(end.fetched.token, None)
            self._free(end.fetched)

    def _free(self, fetched: Fetched) -> None:
        self.locks.release(fetched.token)
        self._freed()

    def _read(self, fetched: Fetched) -> tuple[Job, Failed | None]:
        """The job, and why it is not to be run, if it is not."""
        deferred = fetched.deferred or (stalled.endless(fetched) if fetched.scheduler else None)
        try:
            job = read_job(self._keys.queue, fetched)
        except PermanentFailure as failure:
            job = Job(id=fetched.job_id, queue=self._keys.queue, name=fetched.name or "", data=None, attempt=1, attempts=1, timestamp=0)
            return job, Failed(reason=failure.message, stack="", permanent=True)
        return job, Failed(reason=deferred, stack="", permanent=True) if deferred else None

    async def _outcome(self, fetched: Fetched, job: Job, context: JobContext) -> Outcome:
        if self._hand_back:
            return Interrupted()
        self._running[fetched.token] = context
        try:
            return await self._runner.run(job, context)
        finally:
            del self._running[fetched.token]

    async def _end(self, fetched: Fetched, job: Job, context: JobContext, outcome: Outcome, started: int) -> None:
        while isinstance(outcome, Waiting):
            if await self._closer.hold(fetched, job, outcome, context.log):
                return
            # The callback was quicker than we: the processor finds its answer.
            outcome = await self._outcome(fetched, job, context)
        match outcome:
            case Dropped():
                context.log.warning("outcome dropped", reason="the lock was lost")
            case Interrupted():
                code = await self._closer.release(fetched, job)
                context.log.info("job handed back", code=code)
            case _:
                await self._closer.end(fetched, job, outcome, started, context.log)

    async def _in_spite_of_cancels(self, work: Coroutine[Any, Any, None]) -> None:
        """A processor may have asked for its task to be cancelled and be gone by then: what it came to is recorded all the same."""
        task = asyncio.get_running_loop().create_task(work)
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if self._closed:
                    task.cancel()
                    raise
        task.result()

    def _told_to_stop(self, token: str, reason: str) -> None:
        if context := self._running.get(token):
            stop(context, self._attempts[token], reason)
