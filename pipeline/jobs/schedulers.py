"""What follows a job that a BullMQ job scheduler made: its worker adds the next iteration, or the scheduler would fire only once."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from croniter import croniter

from pipeline.jobs import calls
from pipeline.jobs.calls import QueueKeys
from pipeline.jobs.model import Job
from pipeline.store.scripts import Call, Script, stock

UPDATE = Script(stock("updateJobScheduler"))
"""Adds nothing unless the job is the scheduler's present one, so it may be repeated."""


def next_iteration(keys: QueueKeys, job: Job, scheduler: str, now: int) -> Call | None:
    """The call that adds the job after this one; None when the scheduler's limit or end is reached.

    The reckoning is that of BullMQ's own JobScheduler (`every` is the script's, a `pattern` ours). Raises ValueError for
    options that no scheduler has.
    """
    try:
        return _next(keys, job, scheduler, now)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the repeat options of scheduler {scheduler!r} are not BullMQ's: {error}") from error


def _next(keys: QueueKeys, job: Job, scheduler: str, now: int) -> Call | None:
    repeat: Mapping[str, Any] = job.opts["repeat"]
    count = int(repeat.get("count") or 0) + 1
    limit, end = repeat.get("limit"), _millis(repeat.get("endDate"))
    if (limit is not None and count > int(limit)) or (end is not None and now > end):
        return None
    after = max(int(job.opts.get("prevMillis") or 0), now)
    every = repeat.get("every")
    due = after if every else max(_cron(repeat, after), after)
    offset = int(repeat.get("offset") or 0) if every else 0
    renewed = {**repeat, "count": count, "offset": offset or None, "startDate": _millis(repeat.get("startDate")), "endDate": end}
    opts = {
        **job.opts,
        "jobId": f"repeat:{scheduler}:{due}",
        "delay": max(due + offset - now, 0),
        "timestamp": now,
        "prevMillis": due,
        "repeatJobKey": scheduler,
        "repeat": {name: value for name, value in renewed.items() if value is not None and name != "immediately"},
    }
    return calls.update_job_scheduler(keys, scheduler=scheduler, producer=job.id, due=due, data=job.data, opts=opts, now=now)


def _cron(repeat: Mapping[str, Any], after: int) -> int:
    zone = ZoneInfo(repeat["tz"]) if repeat.get("tz") else UTC
    start = datetime.fromtimestamp(max(after, _millis(repeat.get("startDate")) or 0) / 1000, tz=zone)
    # Of six fields BullMQ's first is the second.
    found: datetime = croniter(repeat["pattern"], start, second_at_beginning=True).get_next(datetime)
    return int(found.timestamp() * 1000)


def _millis(value: Any) -> int | None:
    """Ms since the epoch of what BullMQ keeps as a date: a number, or ISO 8601."""
    if value in (None, ""):
        return None
    if isinstance(value, str) and not value.isdigit():
        return int(datetime.fromisoformat(value).timestamp() * 1000)
    return int(value)
