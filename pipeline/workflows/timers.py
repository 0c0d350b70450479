"""Timeouts of steps and runs: one sorted set of due times, fired by whichever engine process comes first."""

import asyncio

import structlog

from pipeline.jobs.calls import now_ms
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.keys import Keys
from pipeline.workflows.model import TimerFired
from pipeline.workflows.transitions import Transitions

LONGEST_SLEEP = 1.0
"""Seconds; a timer set meanwhile is late by this at most."""
log = structlog.get_logger(__name__)


class Timers:
    def __init__(self, redis: Store, keys: Keys, transitions: Transitions) -> None:
        self._redis = redis
        self._keys = keys
        self._transitions = transitions

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                wait = await self.fire(now_ms())
            except STORE_ERRORS as error:
                log.warning("store away", part="timers", error=str(error))
                wait = LONGEST_SLEEP
            except Exception:
                log.exception("timers failed; it is tried again")
                wait = LONGEST_SLEEP
            await asyncio.sleep(wait)

    async def fire(self, now: int) -> float:
        """Fire what is due; returns the seconds until the next is, at most LONGEST_SLEEP."""
        for member in await self._redis.zrange(self._keys.timers, "-inf", now, byscore=True, offset=0, num=200):
            run_id, step, n = member.split("|")
            try:
                await self._transitions.apply(run_id, TimerFired(step=step, n=int(n)))
            except STORE_ERRORS:
                raise
            except Exception:
                # Kept, a timer that raises would be fired again at once and for ever.
                log.exception("timer failed", runId=run_id, step=step)
            await self._redis.zrem(self._keys.timers, member)
        upcoming = await self._redis.zrange(self._keys.timers, 0, 0, withscores=True)
        return min(max((upcoming[0][1] - now) / 1000, 0.0), LONGEST_SLEEP) if upcoming else LONGEST_SLEEP
