"""Jobs taken from their queue by hand, as BullMQ's own workers take them."""

from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.jobs.fetched import Fetched
from pipeline.store.connection import Store
from pipeline.store.scripts import Call, Script, pack, stock

FETCH = Script(stock("moveToActive"))


def move_to_active(queue: QueueKeys, *, token: str, lock_ms: int, worker: str, limiter: dict[str, int] | None = None, now: int | None = None) -> Call:
    """moveToActive: locks and returns the next job, or says when to come again."""
    keys = queue.keys("wait", "active", "prioritized", "events", "stalled", "limiter", "delayed", "paused", "meta", "pc", "marker")
    return keys, [queue.base, now or now_ms(), pack({"token": token, "lockDuration": lock_ms, "limiter": limiter, "name": worker})]


async def take(
    redis: Store, keys: QueueKeys, token: str = "t", *, lock_ms: int = 10_000, limiter: dict[str, int] | None = None, now: int | None = None
) -> Fetched | None:
    """The next job; it is active and locked with `token`. None if there is none to be had."""
    fields, job_id, *_ = await FETCH(redis, *move_to_active(keys, token=token, lock_ms=lock_ms, worker="w", limiter=limiter, now=now))
    return Fetched.of(str(job_id), token, dict(zip(fields[::2], fields[1::2], strict=True))) if job_id else None
