"""The locks of a worker's active jobs, renewed until the last job is out."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pipeline.jobs.calls import QueueKeys
from pipeline.jobs.context import LOCK_LOST
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.scripts import Script, lua

RENEW = Script(lua("pipeline.jobs", "renew.lua"))
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Held:
    token: str
    stop: Callable[[str], None]


class Locks:
    """Renews every held lock in one script per interval, and tells a job to stop when it lost its lock or its run ended."""

    def __init__(self, redis: Store, keys: QueueKeys, *, duration_ms: int) -> None:
        self._redis = redis
        self._keys = keys
        self._duration_ms = duration_ms
        self._held: dict[str, _Held] = {}

    def hold(self, job_id: str, token: str, stop: Callable[[str], None]) -> None:
        self._held[job_id] = _Held(token, stop)

    def release(self, job_id: str) -> None:
        self._held.pop(job_id, None)

    async def renew(self, only: str | None = None) -> None:
        """Renew all locks, or that of one job; raises the store's errors."""
        held = {only: self._held[only]} if only else dict(self._held)
        if not held:
            return
        pairs = [part for job_id, lock in held.items() for part in (job_id, lock.token)]
        lost, stopped = await RENEW(self._redis, self._keys.keys("stalled", "active"), [self._keys.base, self._duration_ms, *pairs])
        for job_id in lost:
            log.warning("lock lost", queue=self._keys.queue, jobId=job_id, hint="another worker has the job; what this one does with it is dropped")
            held[job_id].stop(LOCK_LOST)
        for job_id in stopped:
            reason = await self._redis.hget(self._keys.key(job_id), "defa")
            held[job_id].stop(str(reason or "cancelled"))

    async def run(self) -> None:
        """Renew three times per lock duration, so that two renewals may fail before a lock runs out."""
        while True:
            await asyncio.sleep(self._duration_ms / 3000)
            try:
                await self.renew()
            except STORE_ERRORS as error:
                log.warning("locks not renewed", queue=self._keys.queue, error=str(error))
