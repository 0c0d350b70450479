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
RETRY_SECONDS = 0.5
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Held:
    job_id: str
    stop: Callable[[str], None]


class Locks:
    """Renews every held lock in one script per interval, and tells a job to stop when it lost its lock or its run ended."""

    def __init__(self, redis: Store, keys: QueueKeys, *, duration_ms: int) -> None:
        self._redis = redis
        self._keys = keys
        self._duration_ms = duration_ms
        self._held: dict[str, _Held] = {}
        """By token: after a lock ran out, one job may be in two slots of this worker."""

    def hold(self, job_id: str, token: str, stop: Callable[[str], None]) -> None:
        self._held[token] = _Held(job_id, stop)

    def release(self, token: str) -> None:
        self._held.pop(token, None)

    async def renew(self) -> None:
        """Raises the store's errors."""
        held = dict(self._held)
        if not held:
            return
        pairs = [part for token, lock in held.items() for part in (lock.job_id, token)]
        lost, stopped = await RENEW(self._redis, self._keys.keys("stalled", "active"), [self._keys.base, self._duration_ms, *pairs])
        for token in lost:
            job_id = held[token].job_id
            log.warning("lock lost", queue=self._keys.queue, jobId=job_id, hint="another worker has the job; what this one does with it is dropped")
            held[token].stop(LOCK_LOST)
        for token in stopped:
            reason = await self._redis.hget(self._keys.key(held[token].job_id), "defa")
            held[token].stop(str(reason or "cancelled"))

    async def run(self) -> None:
        """Renew three times per lock duration, so that two renewals may fail before a lock runs out."""
        pause = self._duration_ms / 3000
        while True:
            await asyncio.sleep(pause)
            try:
                await self.renew()
                pause = self._duration_ms / 3000
            except STORE_ERRORS as error:
                log.warning("locks not renewed", queue=self._keys.queue, error=str(error))
                # Sooner than usual: when the store is back, its locks are to be taken again before anybody takes the jobs for stalled.
                pause = min(pause, RETRY_SECONDS)
            except Exception:
                log.exception("locks not renewed; it is tried again", queue=self._keys.queue)
