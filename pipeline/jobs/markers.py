"""When a worker asks for jobs again after there was none: at the marker that a new job leaves, or at a time that it was told."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from pipeline.jobs.calls import QueueKeys
from pipeline.jobs.fetched import IDLE_SECONDS, Idle
from pipeline.store.connection import STORE_ERRORS, Store

AGAIN_SECONDS = 1.0
"""After a marker could not be waited for."""
log = structlog.get_logger(__name__)


class Markers:
    """`ask` is called when it is time; `room` says whether there is a slot that a job could have."""

    def __init__(self, redis: Store, keys: QueueKeys, *, ask: Callable[[], None], room: Callable[[], bool]) -> None:
        self._redis = redis
        self._keys = keys
        self._ask = ask
        self._room = room
        self.dry = False
        """The last answer was that there is no job."""
        self.closed = False
        """Not even a marker opens the queue: it is rate-limited, or the store is away or full."""
        self.taken = 0
        """Markers so far: one that comes while an answer is on its way may tell of a job that the answer does not know of."""
        self._wanted = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watcher = asyncio.create_task(self._watch(), name=f"markers {self._keys.queue}")

    async def stop(self) -> None:
        """Wait for none any more. The cancelled wait may have taken the marker that tells of a job, so one is left for whoever waits next."""
        self.cancel()
        if self._watcher:
            await asyncio.wait([self._watcher])
        await self._leave()

    def cancel(self) -> None:
        for waiting in (self._timer, self._watcher):
            if waiting:
                waiting.cancel()

    def wait(self, idle: Idle) -> None:
        """There was no job, and this is what the answer said of the next."""
        if idle.limited:
            # Looked at again before it ends: it may have been lifted.
            self.close(min(idle.seconds, IDLE_SECONDS))
            return
        self.closed = False
        self._wanted.set()
        # A timer of ours is exact; the store ends a blocking command late by up to 100 ms.
        self._set_timer(idle.seconds)

    def close(self, seconds: float) -> None:
        """Ask for nothing for so long."""
        self.closed = True
        self._set_timer(seconds)

    def _set_timer(self, seconds: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._open)

    def _open(self) -> None:
        self._timer = None
        self.closed = self.dry = False
        self._ask()

    async def _watch(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                found = await self._redis.bzpopmin(self._keys.key("marker"), IDLE_SECONDS)
            except Exception as error:
                if not isinstance(error, STORE_ERRORS):
                    log.exception("no marker can be waited for; it is tried again", queue=self._keys.queue)
                await asyncio.sleep(AGAIN_SECONDS)
                found = True  # the marker may have been in a reply that was lost
            if found or not self.dry:
                self._wanted.clear()
            if not found:
                continue
            self.taken += 1
            if self._room():
                self.dry = False
                self._ask()
            else:
                # Some other worker may have room.
                await self._leave()

    async def _leave(self) -> None:
        with contextlib.suppress(*STORE_ERRORS):
            await self._redis.zadd(self._keys.key("marker"), {"0": 0})
