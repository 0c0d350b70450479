"""One attempt at a job as values: the job read from its hash, and the closed set of what an attempt can come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from pipeline.errors import PermanentFailure
from pipeline.jobs.calls import keep_jobs
from pipeline.jobs.fetched import Fetched
from pipeline.jobs.model import Job, Origin
from pipeline.store.scripts import pack


@dataclass(slots=True)
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


class Terms(NamedTuple):
    """What a job's options say."""

    opts: Mapping[str, Any]
    attempts: int
    origin: Origin | None


def terms(text: str) -> Terms:
    """Read once for all jobs whose options are the same text, as those of most are: not of those that name their own job.

    Raises what `read_job` makes a PermanentFailure of.
    """
    return _terms(text) if len(text) < 2_000 and '"jobId"' not in text else _terms.__wrapped__(text)


@lru_cache(maxsize=256)
def _terms(text: str) -> Terms:
    opts = orjson.loads(text)
    return Terms(MappingProxyType(opts), max(int(opts.get("attempts") or 1), 1), origin_of(opts))


def keep_of(job: Job) -> bytes | None:
    """Its `removeOnComplete` as BullMQ's scripts want it, packed; None where that is left to the queue."""
    if "removeOnComplete" not in job.opts:
        return None
    option = job.opts["removeOnComplete"]
    try:
        text = orjson.dumps(option)
    except TypeError:
        # Nested deeper than can be written, which no bound is.
        return pack(keep_jobs(option))
    return _keep(text) if len(text) < 200 else _keep.__wrapped__(text)


@lru_cache(maxsize=256)
def _keep(option: bytes) -> bytes:
    return pack(keep_jobs(orjson.loads(option)))


def read_job(queue: str, fetched: Fetched) -> Job:
    """A job from its hash. Raises PermanentFailure for data or options that are not JSON, or not BullMQ's."""
    try:
        data = orjson.loads(fetched.data) if fetched.data else None
        opts, attempts, origin = terms(fetched.opts or "{}")
        attempt, timestamp = int(fetched.made or 0) + 1, int(fetched.timestamp or 0)
    except orjson.JSONDecodeError as error:
        raise PermanentFailure(f"the job's data or options are not JSON: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PermanentFailure(f"the job's options are not BullMQ's: {type(error).__name__}: {error}") from error
    return Job(fetched.job_id, queue, fetched.name or "", data, attempt, attempts, timestamp, opts, origin)


def origin_of(opts: dict[str, Any]) -> Origin | None:
    """The run's step that a job's options name, if they do."""
    mark = opts.get("hookline")
    if not isinstance(mark, dict) or "run" not in mark:
        return None
    run, workflow, step, n = mark["run"], mark["workflow"], mark["step"], int(mark["n"])
    return Origin(run, workflow, step, n, mark.get("user"), mark.get("document"))
