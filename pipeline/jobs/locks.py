"""The locks of a worker's active jobs, renewed until the last job is out."""

import asyncio
from collections.abc import Callable

import structlog

from pipeline.jobs.calls import QueueKeys
from pipeline.jobs.context import LOCK_LOST
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.scripts import Script, lua

RENEW = Script(lua("pipeline.jobs", "renew.lua"))
RETRY_SECONDS = 0.5
log = structlog.get_logger(__name__)


class Locks:
    """Renews every held lock in one script per interval, and tells a job to stop when it lost its lock or its run ended."""

    def __init__(self, redis: Store, keys: QueueKeys, *, duration_ms: int, stop: Callable[[str, str], None]) -> None:
        """`stop(token, reason)` is called for an attempt that should not go on."""
        self._redis = redis
        self._keys = keys
        self._duration_ms = duration_ms
        self._stop = stop
        self._held: dict[str, str] = {}
        """Job ids by token: after a lock ran out, one job may be in two slots of this worker."""

    def hold(self, job_id: str, token: str) -> None:
        self._held[token] = job_id

    def release(self, token: str) -> None:
        self._held.pop(token, None)

    async def renew(self) -> None:
        """Raises the store's errors."""
        held = dict(self._held)
        if not held:
            return
        pairs = [part for token, job_id in held.items() for part in (job_id, token)]
        lost, stopped = await RENEW(self._redis, self._keys.keys("stalled", "active"), [self._keys.base, self._duration_ms, *pairs])
        for token in lost:
            log.warning(
                "lock lost", queue=self._keys.queue, jobId=held[token], hint="another worker has the job; what this one does with it is dropped"
            )
            self._stop(token, LOCK_LOST)
        for token in stopped:
            reason = await self._redis.hget(self._keys.key(held[token]), "defa")
            self._stop(token, str(reason or "cancelled"))

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
