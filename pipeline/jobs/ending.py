"""What the end of an attempt means to the queue: which of BullMQ's scripts ends it, and which event tells of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from pipeline.config.queues import Queue
from pipeline.jobs import backoff, calls, events
from pipeline.jobs.attempt import Completed, Failed
from pipeline.jobs.calls import QueueKeys
from pipeline.jobs.model import Job
from pipeline.store.event import Event
from pipeline.store.scripts import Call

STACKS = 10
"""Stacks kept per job, unless it says otherwise (`stackTraceLimit`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """The arguments of the finish transaction."""

    kind: Literal["finish", "delay", "retry"]
    call: Call
    event: Event | None = None
    """None for a retry: only what is final is told."""


def ending(
    keys: QueueKeys, settings: Queue, job: Job, outcome: Completed | Failed, *, token: str, stacks: str | None, started: int, now: int, random: float
) -> Ending:
    """`stacks` is the job's `stacktrace` field so far, `random` in [0, 1) serves the jitter of a job's own backoff."""
    if isinstance(outcome, Completed):
        event = events.job_completed(job, orjson.loads(outcome.result), started=started, now=now)
        keep = job.opts.get("removeOnComplete", settings.keep.completed)
        return Ending(kind="finish", call=_finished(keys, job, outcome, token, keep, now), event=event)
    fields = {"failedReason": outcome.reason, "stacktrace": _stacktrace(stacks, outcome.stack, job.opts)}
    if outcome.permanent or job.attempt >= job.attempts:
        event = events.job_failed(job, outcome.reason, started=started, now=now)
        keep = job.opts.get("removeOnFail", settings.keep.failed)
        return Ending(kind="finish", call=_finished(keys, job, outcome, token, keep, now, fields), event=event)
    delay = backoff.delay_ms(job.opts.get("backoff"), job.attempt, random=random)
    if delay is None:
        # A strategy that only the job's producer knows: ours is better than none.
        delay = backoff.delay_ms({"type": settings.backoff.type, "delay": settings.backoff.delay}, job.attempt)
    if delay:
        return Ending(kind="delay", call=calls.move_to_delayed(keys, job_id=job.id, token=token, delay_ms=delay, fields=fields, now=now))
    return Ending(kind="retry", call=calls.retry_job(keys, job_id=job.id, token=token, fields=fields, lifo=bool(job.opts.get("lifo")), now=now))


def _finished(keys: QueueKeys, job: Job, outcome: Completed | Failed, token: str, keep: Any, now: int, fields: dict[str, str] | None = None) -> Call:
    return calls.move_to_finished(
        keys,
        job_id=job.id,
        token=token,
        completed=isinstance(outcome, Completed),
        value=outcome.result if isinstance(outcome, Completed) else outcome.reason,
        keep=keep,
        attempts=job.attempts,
        attempts_made=job.attempt - 1,
        opts=job.opts,
        fields=fields,
        now=now,
    )


def _stacktrace(earlier: str | None, stack: str, opts: Mapping[str, Any]) -> str:
    stacks = orjson.loads(earlier) if earlier else []
    kept = [*stacks, stack] if stack else stacks
    asked = opts.get("stackTraceLimit", STACKS)
    limit = asked if type(asked) is int else STACKS
    return calls.dumps(kept[-limit:] if limit else [])
