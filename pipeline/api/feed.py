"""The live end of the event log: read once per process, handed to every stream that is open."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from aiohttp import web

from pipeline.errors import Gone
from pipeline.store.connection import STORE_ERRORS
from pipeline.store.event import Event
from pipeline.store.log import Log

_PAGE = 500
_BLOCK_MS = 1_000
_log = structlog.get_logger()


@dataclass(eq=False, kw_only=True)
class Subscription:
    """One open stream's share of the feed."""

    start: str
    """Cursor after which events arrive here; what is older the stream reads from the log itself."""
    drop: Callable[[], None]
    """Ends the stream's connection, also while it is stuck in a write."""
    events: asyncio.Queue[Event | None] = field(default_factory=asyncio.Queue)
    """None: the feed has ended."""


class Feed:
    """Reads the log while anybody listens, and only then: parsing every event for nobody is not free."""

    def __init__(self, log: Log, *, backlog: int = 1_000, heartbeat: float = 15.0, retry_seconds: float = 1.0) -> None:
        self._log = log
        self._backlog = backlog
        """Events that a stream may be behind before it is dropped; it comes back with its Last-Event-ID."""
        self.heartbeat = heartbeat
        """Seconds between comments that tell proxies the stream is alive."""
        self._retry_seconds = retry_seconds
        self._subscriptions: set[Subscription] = set()
        self._position = ""
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    async def subscribe(self, drop: Callable[[], None]) -> Subscription:
        """Listen from now on; what is told before `start` is not repeated here."""
        async with self._starting:
            if self._reader is None or self._reader.done():
                self._position = await self._log.last()
                self._reader = asyncio.create_task(self._read(), name="feed")
            subscription = Subscription(start=self._position, drop=drop)
            self._subscriptions.add(subscription)
            if self._closed:
                subscription.events.put_nowait(None)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        if not self._subscriptions:
            await self._stop()

    async def close(self) -> None:
        """End every stream; those who listen are told."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.events.put_nowait(None)
        await self._stop()

    async def _stop(self) -> None:
        reader, self._reader = self._reader, None
        if reader:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _read(self) -> None:
        try:
            await self._follow()
        except Exception:
            # A stream that hears nothing and does not know it is worse than one that ends and comes back.
            _log.exception("the feed stopped; every stream starts over")
            self._drop_all()

    async def _follow(self) -> None:
        while True:
            try:
                events = await self._log.after(self._position, limit=_PAGE, block_ms=_BLOCK_MS)
            except Gone:
                # So far behind that the log was trimmed under us: each stream finds out by its own cursor when it comes back.
                _log.warning("the feed fell behind the log; every stream starts over")
                self._position = await self._log.last()
                self._drop_all()
                continue
            except STORE_ERRORS as error:
                _log.warning("the feed cannot read the log", error=repr(error))
                await asyncio.sleep(self._retry_seconds)
                continue
            for event in events:
                self._position = event.cursor
                for subscription in list(self._subscriptions):
                    if subscription.events.qsize() >= self._backlog:
                        self._drop(subscription)
                    else:
                        subscription.events.put_nowait(event)

    def _drop_all(self) -> None:
        for subscription in list(self._subscriptions):
            self._drop(subscription)

    def _drop(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        subscription.events.put_nowait(None)
        subscription.drop()


FEED = web.AppKey("feed", Feed)
