"""What a worker's request for a job brings: a job, or how long to wait for one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IDLE_SECONDS = 5.0
"""How long one wait for a marker lasts; a marker lost with a dying worker costs at most this."""


@dataclass(frozen=True, slots=True)
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


def parse_fetch(reply: Any, token: str, now: int) -> Fetched | Idle:
    """moveToActive's answer: a job, or the ms of a rate limit, or when the next delayed job is due."""
    if not reply:
        return Idle(IDLE_SECONDS)
    fields, job_id, limit_ms, next_at = [*reply, 0, 0][:4]
    if fields and not isinstance(fields, int):
        return Fetched(job_id=str(job_id), token=token, fields=_fields(fields))
    if limit_ms and int(limit_ms) > 0:
        return Idle(int(limit_ms) / 1000, limited=True)
    if next_at and float(next_at) > 0:
        return Idle(min(max((float(next_at) - now) / 1000, 0.001), IDLE_SECONDS))
    return Idle(IDLE_SECONDS)


def _fields(reply: Any) -> dict[str, str]:
    return dict(reply) if isinstance(reply, Mapping) else dict(zip(reply[::2], reply[1::2], strict=True))
