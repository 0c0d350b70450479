"""One attempt at a job, from its fields to an outcome: which processor runs it, how, and what its end means."""

import asyncio
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic import ValidationError

from pipeline.errors import PermanentFailure
from pipeline.jobs.context import LOCK_LOST, SHUTTING_DOWN, JobContext, ThreadContext
from pipeline.jobs.isolation import IsolatedPool
from pipeline.jobs.model import Job
from pipeline.jobs.queues import origin_of
from pipeline.jobs.registry import Processor
from pipeline.jobs.results import check_result
from pipeline.jobs.watchdog import TASK_PREFIX


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    result: str
    """JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    reason: str
    stack: str
    permanent: bool
    """Whether another attempt is pointless."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """The job is not this worker's any more (its lock was lost): nothing is recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interrupted:
    """The worker must go before the job was done: it is handed back, uncounted."""


Outcome = Completed | Failed | Dropped | Interrupted


def read_job(queue: str, job_id: str, fields: Mapping[str, str]) -> Job:
    """A job from its hash. Raises PermanentFailure for data or options that are not JSON."""
    try:
        opts = orjson.loads(fields.get("opts") or "{}")
        data = orjson.loads(fields.get("data") or "null")
    except orjson.JSONDecodeError as error:
        raise PermanentFailure(f"the job's data or options are not JSON: {error}") from error
    made = int(fields.get("atm", 0))
    return Job(
        id=job_id,
        queue=queue,
        name=fields.get("name", ""),
        data=data,
        attempt=made + 1,
        attempts=max(int(opts.get("attempts") or 1), 1),
        timestamp=int(fields.get("timestamp", 0)),
        opts=opts,
        origin=origin_of(opts),
    )


class Runner:
    """Runs attempts with the processors of one queue."""

    def __init__(self, processors: Mapping[str, Processor], pools: Mapping[str, IsolatedPool], *, concurrency: int) -> None:
        self._processors = processors
        self._pools = pools
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="processor")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def name_of(self, job_name: str) -> str | None:
        """The name of the processor that does these jobs, as the logs show it."""
        known = self._processors.get(job_name)
        return known.name if known else None

    async def run(self, job: Job, context: JobContext) -> Outcome:
        """Never raises: whatever a processor does is an outcome."""
        try:
            return Completed(result=check_result(await self._call(job, context)))
        except asyncio.CancelledError:
            return _stopped(context)
        except PermanentFailure as failure:
            return Failed(reason=failure.message, stack="", permanent=True)
        except Exception as error:
            if context.cancelled:
                return _stopped(context)
            return Failed(reason=str(error) or type(error).__name__, stack=traceback.format_exc(limit=-8), permanent=False)

    async def _call(self, job: Job, context: JobContext) -> Any:
        processor = self._processors.get(job.name)
        if processor is None:
            known = ", ".join(sorted(self._processors)) or "none"
            raise PermanentFailure(
                f"no processor for job {job.name!r} on queue {job.queue!r} (known: {known}); add it to queues.{job.queue}.processors"
            )
        if processor.kind == "isolated":
            return await self._pools[processor.path].run(job, context)
        ready = _validated(job, processor)
        if processor.kind == "thread":
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, processor.call, ready, ThreadContext(context, loop))
        task = asyncio.current_task()
        if task:
            task.set_name(f"{TASK_PREFIX}{processor.name} {job.queue} {job.id}")
        return await processor.call(ready, context)


def _validated(job: Job, processor: Processor) -> Job:
    if processor.input is None:
        return job
    try:
        data = processor.input.model_validate(job.data)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'data'}: {fault['msg']}" for fault in error.errors())
        raise PermanentFailure(f"the job's data does not fit: {faults}") from error
    return replace(job, data=data)


def _stopped(context: JobContext) -> Outcome:
    reason = context.stop_reason
    if reason == LOCK_LOST:
        return Dropped()
    if reason is None or reason == SHUTTING_DOWN:
        return Interrupted()
    return Failed(reason=reason, stack="", permanent=True)
