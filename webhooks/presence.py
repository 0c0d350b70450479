"""Which dispatchers live: each says so every second, and what one held that fell silent, or whose process is over, is attempted again at once."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable

import structlog

from webhooks import process
from webhooks.keys import Keys
from webhooks.scripts import Script, Store
from webhooks.stubborn import STORE_ERRORS

BEAT_SECONDS = 1.0
SILENT_MS = 4_000
"""After which a dispatcher counts as dead. Its leases alone would hold what it had, and the slots of these endpoints, for 30 s and more."""
STEADY = 4
"""Beats in a row before one looks after the others: after an outage of the store all of them have been silent, and must be heard first."""
log = structlog.get_logger(__name__)


class Presence:
    """One dispatcher's. A process that stood still for too long is taken for dead, too: what it had under way may then be sent twice."""

    def __init__(self, redis: Store, keys: Keys, clock: Callable[[], int]) -> None:
        self._process = process.here()
        self.id = "-".join(filter(None, (self._process, secrets.token_hex(8))))
        """Says to others of this machine which process it is of: they need not wait for its silence."""
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self._script = Script(redis, "presence")
        self._steady = 0
        self._last = time.monotonic()

    async def run(self) -> None:
        """Until cancelled: also while attempts end after a stop, lest others take them for lost."""
        while True:
            try:
                if taken := await self.beat():
                    log.warning("a dispatcher died; what it had under way is attempted again", deliveries=taken)
            except STORE_ERRORS as error:
                log.debug("presence waits for the store", error=str(error))
            except Exception:
                log.exception("presence broke; trying again")
            await asyncio.sleep(BEAT_SECONDS)

    async def beat(self) -> int:
        """Say that we live; returns how many deliveries of others were taken back. Raises the store's errors."""
        steady, self._steady = self._steady + 1, 0
        silent, self._last = time.monotonic() - self._last, time.monotonic()
        if silent * 1000 > SILENT_MS:
            steady = 1
        over = [one for one in await self._redis.smembers(self._keys.dispatchers) if process.over(one, self._process)]
        taken, more = 0, 1
        while more:
            freed, more = await self._script([self._keys.prefix], [self._clock(), self.id, SILENT_MS, "1" if steady >= STEADY else "", *over])
            taken += int(freed)
        self._steady = steady
        return taken

    async def leave(self) -> None:
        """Whatever we still hold is for the others, now."""
        with contextlib.suppress(*STORE_ERRORS):
            await self._redis.delete(self._keys.alive(self.id))
