"""One attempt at a job as values: the job read from its hash, and the closed set of what an attempt can come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.errors import PermanentFailure
from pipeline.jobs.model import Job, Origin


@dataclass(kw_only=True, slots=True)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """Another service has the job and will call back: it is held until then, without a slot."""

    record: str
    """The callback's record (a key of the store)."""
    deadline: int
    """ms since the epoch."""


Outcome = Completed | Failed | Dropped | Interrupted | Waiting


class Held(Exception):
    """Raised by a push processor for `Waiting`."""

    def __init__(self, record: str, deadline: int) -> None:
        super().__init__(record)
        self.waiting = Waiting(record=record, deadline=deadline)


def read_job(queue: str, job_id: str, fields: Mapping[str, str]) -> Job:
    """A job from its hash. Raises PermanentFailure for data or options that are not JSON, or not BullMQ's."""
    try:
        opts = orjson.loads(fields.get("opts") or "{}")
        data = orjson.loads(fields.get("data") or "null")
    except orjson.JSONDecodeError as error:
        raise PermanentFailure(f"the job's data or options are not JSON: {error}") from error
    try:
        return Job(
            id=job_id,
            queue=queue,
            name=fields.get("name", ""),
            data=data,
            attempt=int(fields.get("atm", 0)) + 1,
            attempts=max(int(opts.get("attempts") or 1), 1),
            timestamp=int(fields.get("timestamp", 0)),
            opts=opts,
            origin=origin_of(opts),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PermanentFailure(f"the job's options are not BullMQ's: {type(error).__name__}: {error}") from error


def origin_of(opts: dict[str, Any]) -> Origin | None:
    """The run's step that a job's options name, if they do."""
    mark = opts.get("hookline")
    if not isinstance(mark, dict) or "run" not in mark:
        return None
    run, workflow, step, n = mark["run"], mark["workflow"], mark["step"], int(mark["n"])
    return Origin(run=run, workflow=workflow, step=step, n=n, user=mark.get("user"), document=mark.get("document"))
