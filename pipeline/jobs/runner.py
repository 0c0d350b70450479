"""Runs an attempt with the processor that its job's name stands for: on the loop, in a thread, or in a child process."""

import asyncio
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from pipeline.errors import PermanentFailure
from pipeline.jobs.attempt import Completed, Dropped, Failed, Held, Interrupted, Outcome
from pipeline.jobs.context import LOCK_LOST, SHUTTING_DOWN, JobContext, ThreadContext
from pipeline.jobs.inputs import validated
from pipeline.jobs.model import Job
from pipeline.jobs.registry import Processor
from pipeline.jobs.results import check_result

REASON_LIMIT = 4_000
STACK_LIMIT = 16_000
"""Characters: both are copied into the job, the reason into the event log and every webhook."""


class Elsewhere(Protocol):
    """Who does a job outside of this process: a pool of children, or a service that is pushed to."""

    async def run(self, job: Job, context: JobContext) -> Any: ...


class Runner:
    """Runs attempts with the processors of one queue."""

    def __init__(self, processors: Mapping[str, Processor], elsewhere: Mapping[str, Elsewhere], *, concurrency: int) -> None:
        """`elsewhere` has the isolated and the pushed processors, by path."""
        self._processors = processors
        self._elsewhere = elsewhere
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
            processor = self._processors.get(job.name)
            if processor and processor.kind == "async":
                ready = validated(job, processor) if processor.input else job
                return Completed(check_result(await processor.call(ready, context)))
            return Completed(result=check_result(await self._elsewhere_or_in_a_thread(job, processor, context)))
        except Held as held:
            return held.waiting
        except asyncio.CancelledError:
            return _stopped(context)
        except PermanentFailure as failure:
            return Failed(reason=_storable(failure.message)[:REASON_LIMIT], stack="", permanent=True)
        except Exception as error:
            if context.cancelled:
                return _stopped(context)
            return Failed(reason=_storable(_said(error))[:REASON_LIMIT], stack=_stack(), permanent=False)

    async def _elsewhere_or_in_a_thread(self, job: Job, processor: Processor | None, context: JobContext) -> Any:
        if processor is None:
            known = ", ".join(sorted(self._processors)) or "none"
            raise PermanentFailure(
                f"no processor for job {job.name!r} on queue {job.queue!r} (known: {known}); add it to queues.{job.queue}.processors"
            )
        if processor.kind in ("isolated", "push"):
            return await self._elsewhere[processor.path].run(job, context)
        ready = validated(job, processor)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, processor.call, ready, ThreadContext(context, loop))


def _stopped(context: JobContext) -> Outcome:
    reason = context.stop_reason
    if reason is None:
        # Nobody asked it to stop: handed back, it would run again at once, and for ever.
        return Failed(reason="the processor was cancelled from within", stack=_stack(), permanent=False)
    if reason == LOCK_LOST:
        return Dropped()
    if reason == SHUTTING_DOWN:
        return Interrupted()
    return Failed(reason=reason, stack="", permanent=True)


def _said(error: Exception) -> str:
    """The error's text; where that is only the key that was missing, or nothing, with its kind."""
    return f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else str(error) or type(error).__name__


def _stack() -> str:
    return _storable(traceback.format_exc(limit=-8))[-STACK_LIMIT:]


def _storable(text: str) -> str:
    """Without the lone surrogates that stand for the bytes of a file's name: neither the store nor JSON takes them."""
    return text.encode(errors="replace").decode()
