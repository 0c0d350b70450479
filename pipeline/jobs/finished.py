"""The end of a job as its hash tells of it: what a foreign worker, which appends no event, leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.errors import PermanentFailure
from pipeline.jobs import events
from pipeline.jobs.attempt import read_job
from pipeline.jobs.fetched import Fetched
from pipeline.jobs.model import Job
from pipeline.jobs.results import RESULT_LIMIT
from pipeline.jobs.runner import REASON_LIMIT
from pipeline.store.event import Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A job that has ended, its last attempt included; `error` is None if it completed."""

    job: Job
    result: Any
    error: str | None
    started_at: int | None
    finished_at: int

    @property
    def event(self) -> Event:
        """The same, id included, as our own worker would have appended."""
        started = self.finished_at if self.started_at is None else self.started_at
        if self.error is None:
            return events.job_completed(self.job, self.result, started=started, now=self.finished_at)
        return events.job_failed(self.job, self.error, started=started, now=self.finished_at)


def finished(queue: str, job_id: str, fields: Mapping[str, str]) -> Finished | None:
    """The end of the job with this hash; None while it has none."""
    if "timestamp" not in fields or "finishedOn" not in fields:
        return None
    result, error = _came_to(fields)
    return Finished(
        job=_job(queue, job_id, fields),
        result=result,
        error=error,
        started_at=int(fields["processedOn"]) if "processedOn" in fields else None,
        finished_at=int(fields["finishedOn"]),
    )


def _job(queue: str, job_id: str, fields: Mapping[str, str]) -> Job:
    # The hash counts the attempts that were made, a job the one under way. One that BullMQ failed without an attempt was in its first.
    attempt = max(int(fields.get("atm", 1)), 1)
    try:
        return read_job(queue, Fetched.of(job_id, "", {**fields, "atm": str(attempt - 1)}))
    except PermanentFailure:
        # Whoever added it knows what it is; that it ended can be told all the same.
        return Job(
            id=job_id, queue=queue, name=fields.get("name", ""), data=None, attempt=attempt, attempts=attempt, timestamp=int(fields["timestamp"])
        )


def _came_to(fields: Mapping[str, str]) -> tuple[Any, str | None]:
    """(result, None) or (None, reason). What would fail a job of our own worker fails this one: its result goes the same ways."""
    if "failedReason" in fields and "returnvalue" not in fields:
        return None, fields["failedReason"][:REASON_LIMIT] or "failed"
    written = fields.get("returnvalue", "null")
    if (size := len(written.encode())) > RESULT_LIMIT:
        return None, f"its result has {size:,} bytes of JSON; the limit is {RESULT_LIMIT:,} (64 KiB): put bulk into the storage and return its path"
    try:
        return orjson.loads(written), None
    except orjson.JSONDecodeError:
        return None, f"its result is not JSON: {written[:100]!r}"
