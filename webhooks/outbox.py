"""The outbox: events of this package, written by the scripts that cause them, on their way to the event log."""

import asyncio
import contextlib

import orjson
import structlog

from webhooks.keys import Keys
from webhooks.ports import Publish
from webhooks.scripts import Store
from webhooks.stubborn import STORE_ERRORS

PER_READ = 100
FALLBACK_SECONDS = 5.0
"""How long what a dead process left behind may wait."""
log = structlog.get_logger(__name__)


class Outbox:
    """Publishing comes before forgetting, so a crash publishes twice, with the same event id."""

    def __init__(self, redis: Store, keys: Keys, publish: Publish | None) -> None:
        self._redis = redis
        self._keys = keys
        self._publish = publish
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """There is something new."""
        self._nudged.set()

    async def run(self, stop: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait())
        stopped.add_done_callback(lambda _: self.nudge())
        try:
            while not stop.is_set():
                self._nudged.clear()
                await self._flush_or_log()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FALLBACK_SECONDS):
                        await self._nudged.wait()
        finally:
            stopped.cancel()

    async def flush(self) -> int:
        """Publish what there is; returns how many."""
        if self._publish is None:
            return 0
        published = 0
        while rows := await self._redis.lrange(self._keys.outbox, 0, PER_READ - 1):
            for row in rows:
                event = orjson.loads(row)
                await self._publish(event["type"], event["data"], identity=event["identity"])
                # By value, not by place: another process may be at the same list.
                await self._redis.lrem(self._keys.outbox, 1, row)
                published += 1
        return published

    async def _flush_or_log(self) -> None:
        try:
            await self.flush()
        except STORE_ERRORS as error:
            log.warning("events wait for the store", error=str(error))
        except Exception:
            log.exception("events of deliveries could not be published; trying again")
