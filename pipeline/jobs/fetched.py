"""What a worker's request for jobs brings: jobs, or how long to wait for one."""

from dataclasses import dataclass

IDLE_SECONDS = 5.0
"""How long one wait for a marker lasts; a marker lost with a dying worker costs at most this."""


@dataclass(slots=True)
class Fetched:
    """A job that this worker has just locked."""

    job_id: str
    token: str
    fields: dict[str, str]


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
