"""What a worker's request for jobs brings: jobs, or how long to wait for one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

IDLE_SECONDS = 5.0
"""How long one wait for a marker lasts; a marker lost with a dying worker costs at most this."""
FIELDS = ("name", "data", "opts", "timestamp", "atm", "defa", "rjk", "stc", "stacktrace", "parentKey", "parent", "deid")
"""What a worker reads of a job's hash; a hash has twice as much."""


@dataclass(slots=True)
class Fetched:
    """A job that this worker has just locked, as `trade.lua` hands it out; a field that its hash lacks is None."""

    token: str
    name: str | None
    data: str | None
    """JSON, as are the options."""
    opts: str | None
    timestamp: str | None
    made: str | None
    """Attempts that were made."""
    deferred: str | None
    """Why it is not to be run."""
    scheduler: str | None
    stalls: str | None
    stacks: str | None
    """JSON: those of its failed attempts."""
    parent_key: str | None
    parent: str | None
    deduplication: str | None
    job_id: str

    @classmethod
    def of(cls, job_id: str, token: str, fields: Mapping[str, str]) -> Self:
        return cls(token, *map(fields.get, FIELDS), job_id)  # type: ignore[arg-type, call-arg]  # mypy cannot count the fields

    @property
    def plain(self) -> bool:
        """Whether its end concerns only itself: no parent in a flow, and nobody who waits for its deduplication id."""
        return self.parent_key is self.parent is self.deduplication is None


@dataclass(frozen=True, slots=True)
class Idle:
    """There is no job to be had for `seconds`, unless a marker says otherwise (`limited`: not even then)."""

    seconds: float
    limited: bool = False


def idle_of(limit_ms: int, next_at: float, now: int) -> Idle:
    """What moveToActive says where it has no job: the ms of a rate limit, or when (ms since the epoch) the next delayed job is due."""
    if limit_ms > 0:
        return Idle(limit_ms / 1000, limited=True)
    if next_at > 0:
        return Idle(min(max((next_at - now) / 1000, 0.001), IDLE_SECONDS))
    return Idle(IDLE_SECONDS)
