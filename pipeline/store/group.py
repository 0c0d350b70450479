"""A consumer of a consumer group of the log, as the workflow engine and the webhook fan-out are: reads on, takes over from the dead, acknowledges."""

import time
from collections.abc import Awaitable, Collection, Sequence

from redis.exceptions import ResponseError

from pipeline.store.connection import Store
from pipeline.store.event import Event
from pipeline.store.log import Entry, entries


class Group:
    """One consumer of one consumer group of the log."""

    CLAIM_AFTER_MS = 5_000
    """How long an entry may stay unacknowledged before another consumer takes it; reading one twice is harmless by design."""

    def __init__(self, redis: Store, key: str, group: str, consumer: str, *, types: Collection[str] | None = None) -> None:
        """`types`: entries of others are acknowledged unread (None: there are no others, and each event's data is parsed when it is asked for)."""
        self._redis = redis
        self._types = types
        self.key = key
        self.group = group
        self._consumer = consumer
        self._claimed_at = float("-inf")
        self._flowing = False

    async def create(self) -> None:
        """Make the group, from the beginning of the log, if it does not exist."""
        try:
            await self._redis.xgroup_create(self.key, self.group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read(self, *, count: int, block_ms: int) -> list[Event]:
        """The next entries: those a dead consumer left unacknowledged (looked for every second), then new ones."""
        return await self._surely(self._read(count, block_ms))

    async def left(self, *, count: int) -> list[Event]:
        """Entries that a dead consumer left unacknowledged, or this one for long; looked for every second."""
        return await self._surely(self._left(count))

    async def _surely(self, reading: Awaitable[list[Event]]) -> list[Event]:
        try:
            return await reading
        except ResponseError as error:
            # Not asked for beforehand: a full store refuses to make a group even where there is one.
            if "NOGROUP" not in str(error):
                raise
            await self.create()
            return []

    async def _read(self, count: int, block_ms: int) -> list[Event]:
        if left := await self._left(count):
            return left
        # Where there was something there often is more: asked for without waiting, it comes on the connection that all share.
        wait = None if self._flowing else block_ms
        found = await self._fresh(count, wait)
        if not found and self._flowing:
            found = await self._fresh(count, block_ms)
        self._flowing = bool(found)
        return await self._wanted(found)

    async def _fresh(self, count: int, block_ms: int | None) -> list[Entry]:
        wait = () if block_ms is None else ("BLOCK", block_ms)
        said = self._redis.execute_command(b"XREADGROUP", "GROUP", self.group, self._consumer, "COUNT", count, *wait, "STREAMS", self.key, ">")
        return entries(await said)

    async def _left(self, count: int) -> list[Event]:
        if time.monotonic() - self._claimed_at < 1.0:
            return []
        said = self._redis.execute_command(b"XAUTOCLAIM", self.key, self.group, self._consumer, self.CLAIM_AFTER_MS, "0-0", "COUNT", count)
        # Redis 6.2 names entries that were deleted, too.
        rows = [row for row in (await said)[1] if row and row[1]]
        if not rows:
            self._claimed_at = time.monotonic()
        return await self._wanted(rows)

    async def _wanted(self, rows: Sequence[Entry]) -> list[Event]:
        types = self._types
        if types is None:
            return [Event.unread(*row) for row in rows]
        wanted: list[Event] = []
        others: list[str] = []
        for cursor, fields in rows:
            if Event.type_of(fields) in types:
                wanted.append(Event.parse(cursor, fields))
            else:
                others.append(cursor)
        await self.ack(others)
        return wanted

    async def ack(self, cursors: Sequence[str]) -> None:
        if cursors:
            await self._redis.xack(self.key, self.group, *cursors)

    async def deliveries(self, cursor: str) -> int:
        """How often an unacknowledged entry was handed out."""
        rows = await self._redis.xpending_range(self.key, self.group, min=cursor, max=cursor, count=1)
        return int(rows[0]["times_delivered"]) if rows else 0
