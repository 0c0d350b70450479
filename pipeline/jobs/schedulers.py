"""BullMQ's job schedulers (repeated jobs): whoever is given one's job adds the next, or there is none."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from croniter import croniter

from pipeline.jobs import calls
from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.jobs.model import Job
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.scripts import Call, Script, stock

UPDATE = Script(stock("updateJobScheduler"))
KEY = "repeatJobKey"
"""The option that names a job's scheduler."""
log = structlog.get_logger(__name__)


async def go_on(redis: Store, keys: QueueKeys, job: Job) -> None:
    """Add the next job of the scheduler that made this one; nothing if it is there already, as at another attempt. Never raises."""
    try:
        call = next_job(keys, job, now_ms())
    except Exception as error:
        # A pattern or time zone that Node knows and we do not: this job can be done all the same.
        log.error("a job scheduler ends: its next time cannot be told", queue=job.queue, jobId=job.id, error=f"{type(error).__name__}: {error}")
        return
    pause = 0.1
    while call:
        try:
            await UPDATE(redis, *call)
            return
        except STORE_ERRORS as error:
            # Given up, the scheduler would have ended.
            log.warning("store away: the scheduler's next job is kept", queue=job.queue, jobId=job.id, error=str(error), retry_in=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
        except Exception:
            log.exception("a job scheduler's next job cannot be added", queue=job.queue, jobId=job.id)
            return


def next_job(keys: QueueKeys, job: Job, now: int) -> Call | None:
    """updateJobScheduler for the job after this one; None if this was the last. Raises ValueError for a pattern that makes no sense."""
    key, repeat = job.opts[KEY], job.opts.get("repeat") or {}
    count = int(repeat.get("count") or 0) + 1
    limit, end = repeat.get("limit"), _ms(repeat.get("endDate"))
    if (limit is not None and count > int(limit)) or (end is not None and now > end):
        return None
    pattern = repeat.get("pattern")
    # Where it repeats by interval, the script computes the time.
    at = _after(pattern, max(now, int(job.opts.get("prevMillis") or 0), _ms(repeat.get("startDate")) or 0), repeat.get("tz")) if pattern else now
    opts = {
        **job.opts,
        "jobId": f"repeat:{key}:{at}",
        "delay": max(at - now, 0),
        "timestamp": now,
        "prevMillis": at,
        "repeat": {**{name: value for name, value in repeat.items() if name != "immediately"}, "count": count},
    }
    return calls.update_scheduler(keys, scheduler=key, at=at, opts=opts, producer=job.id, now=now)


def _after(pattern: str, ms: int, zone: str | None) -> int:
    """The first time after `ms`, as Node's cron-parser has it: croniter's own answers for zones are an hour off on days when the clocks change."""
    place = ZoneInfo(zone) if zone else UTC
    base = datetime.fromtimestamp(ms / 1000, tz=place)
    fields = pattern.split()
    if len(fields) in (5, 6) and fields[-4] == "*":
        # Every hour, also that which the clocks repeat: the wall's time does not matter.
        return round(next(_times(pattern, base.astimezone(timezone(base.utcoffset() or timedelta())))).timestamp() * 1000)
    times = _times(pattern, base.replace(tzinfo=None))
    # Of a time that the clocks repeat the first counts, and it may be over.
    while (found := round(next(times).replace(tzinfo=place).timestamp() * 1000)) <= ms:
        pass
    return found


def _times(pattern: str, base: datetime) -> Iterator[datetime]:
    # Six fields begin with seconds, as in Node.
    times = croniter(pattern, base, second_at_beginning=True)
    while True:
        yield times.get_next(datetime)


def _ms(moment: Any) -> int | None:
    """A date as Node stores it: ms since the epoch, or ISO 8601."""
    if moment in (None, ""):
        return None
    if isinstance(moment, str) and not moment.isdecimal():
        return round(datetime.fromisoformat(moment).timestamp() * 1000)
    return int(moment)
