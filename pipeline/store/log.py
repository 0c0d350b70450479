"""The event log: one Redis Stream, as its writers, its readers by cursor and its keeper use it; who reads it in a group: group.py."""

import re
import secrets
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from pipeline.errors import Gone, InvalidInput
from pipeline.store.connection import Store
from pipeline.store.event import Event
from pipeline.store.scripts import Script

# Readers by cursor must learn that they missed something: the stream itself does not remember what it dropped.
# SET comes second, because a full store, which needs trimming most, refuses it as the first write.
TRIM = Script("""
local dropped = redis.call('XREVRANGE', KEYS[1], '(' .. ARGV[1], '-', 'COUNT', 1)
if #dropped == 0 then return end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
redis.call('SET', KEYS[2], dropped[1][1])
""")
# An XADD that is sent again after a lost reply would be a second entry, so each append leaves its cursors under a name of its own.
# They come last: a full store refuses only the first write.
_APPEND = Script("""
local before = redis.call('GET', KEYS[2])
if before then return cjson.decode(before) end
local cursors = {}
for at = 2, #ARGV, 2 do cursors[#cursors + 1] = redis.call('XADD', KEYS[1], '*', ARGV[at], ARGV[at + 1]) end
redis.call('SET', KEYS[2], cjson.encode(cursors), 'EX', ARGV[1])
return cursors
""")
# The same where the answer to a request is what remembers it.
_APPEND_ONCE = Script("""
local before = redis.call('GET', KEYS[2])
if before then return before end
for at = 3, #ARGV, 2 do redis.call('XADD', KEYS[1], '*', ARGV[at], ARGV[at + 1]) end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[1])
return ARGV[2]
""")
# The entries hold texts of some KiB each, so they are looked through where they are.
_FIND = Script("""
local rows = redis.call('XREVRANGE', KEYS[1], ARGV[2], '-', 'COUNT', ARGV[3])
local beginning = ARGV[1] .. ' '
for _, row in ipairs(rows) do
  -- The second is what it was before 2026-11-26: the id was a field of its own.
  if string.sub(row[2][2], 1, #beginning) == beginning or row[2][2] == ARGV[1] then return {#rows, row[1], row[2]} end
end
return {#rows, rows[#rows] and rows[#rows][1] or '', false}
""")
_FIND_ENTRIES = 500
_APPENDED_SECONDS = 60
"""How long a repeated append is recognised: longer than it is tried."""
Entry = tuple[str, Sequence[str]]
"""A cursor and its event's fields, as the store answers them. Reading commands are named in bytes to get them bare (`Client`): redis-py
would make a dictionary of each, which cost more than all else of reading it."""
CURSOR = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
"""A stream id; no number of it exceeds the 64 bits that the store has for each."""


class Log:
    """The log at one key of the store."""

    def __init__(self, redis: Store, key: str) -> None:
        self._redis = redis
        self.key = key

    async def append(self, events: Sequence[Event]) -> list[str]:
        """Append events in one write, once however often it has to be sent, and return their cursors."""
        if not events:
            return []
        fields = [field for event in events for field in event.fields()]
        return list(await _APPEND(self._redis, [self.key, f"{self.key}:append:{secrets.token_hex(8)}"], [_APPENDED_SECONDS, *fields]))

    async def append_once(self, events: Sequence[Event], *, key: str, record: str, seconds: int) -> str:
        """Append events and keep `record` under `key` for so long, both or neither; where something is kept there already, nothing is appended.

        Returns what is kept.
        """
        fields = [field for event in events for field in event.fields()]
        return str(await _APPEND_ONCE(self._redis, [self.key, key], [seconds, record, *fields]))

    async def after(self, cursor: str, *, limit: int, block_ms: int | None = None) -> list[Event]:
        """Events later than `cursor` (empty: from the earliest kept), waiting up to `block_ms` for the first.

        Raises Gone with `earliest` when events between the cursor and what is kept were trimmed,
        InvalidInput when the cursor is not one of the log's.
        """
        if cursor and not CURSOR.fullmatch(cursor):
            raise InvalidInput(f"{cursor!r} is not a cursor of this log; use the `cursor` of an event, or leave it out to start at the earliest")
        rows = await self._redis.execute_command(b"XRANGE", self.key, f"({cursor}" if cursor else "-", "+", "COUNT", limit)
        # Asked for afterwards: what was dropped before the rows were read is known by then.
        if cursor and _order(cursor) < _order(await self._redis.get(self._trimmed_key) or "0-0"):
            raise Gone("events after this cursor are no longer kept", earliest=await self.earliest())
        if not rows and block_ms:
            rows = entries(await self._redis.execute_command(b"XREAD", "COUNT", limit, "BLOCK", block_ms, "STREAMS", self.key, cursor or "0-0"))
        return [Event.parse(*row) for row in rows]

    async def find(self, event: str, *, most: int) -> Event | None:
        """The newest entry with this event's id among the newest `most` (at least): only its cursor would be an index."""
        last = "+"
        for _ in range(0, most, _FIND_ENTRIES):
            seen, cursor, fields = await _FIND(self._redis, [self.key], [event, last, _FIND_ENTRIES])
            if fields:
                return Event.parse(str(cursor), fields)
            if int(seen) < _FIND_ENTRIES:
                return None
            last = f"({cursor}"
        return None

    async def earliest(self) -> str | None:
        rows = await self._redis.xrange(self.key, count=1)
        return str(rows[0][0]) if rows else None

    async def last(self) -> str:
        """The cursor of the newest event, also of one that was trimmed; `0-0` when there never was one."""
        try:
            return str((await self._redis.xinfo_stream(self.key))["last-generated-id"])
        except ResponseError:
            return "0-0"  # there is no log yet

    async def trim(self, *, max_age_ms: int, max_bytes: int, now: int) -> str | None:
        """Drop events past an age or beyond a size, but none that a consumer group has yet to acknowledge.

        Returns the name of the group that held something back, if one did.
        """
        oldest = f"{max(now - max_age_ms, 0)}-0"
        size = await self._redis.memory_usage(self.key) or 0
        if size > max_bytes:
            # Entries are of like size on average.
            surplus = int(await self._redis.xlen(self.key) * (1 - max_bytes / size)) + 1
            oldest = max(oldest, await self._last_of_first(surplus), key=_order)
        holder = None
        for group in await self._groups():
            needed = await self._needed(group)
            if _order(needed) < _order(oldest):
                held = await self._redis.xrange(self.key, min=needed, max=f"({oldest}", count=1)
                oldest, holder = needed, str(group["name"]) if held else holder
        await TRIM(self._redis, [self.key, self._trimmed_key], [oldest])
        return holder

    async def _last_of_first(self, entries: int) -> str:
        """The cursor of the last of the log's first so many entries."""
        cursor = "0-0"
        while entries > 0 and (rows := await self._redis.xrange(self.key, min=f"({cursor}", count=min(entries, 1_000))):
            cursor = str(rows[-1][0])
            entries -= len(rows)
        return cursor

    async def behind(self, now: int) -> dict[str, int]:
        """For each consumer group, the age in ms of the oldest event it has not acknowledged; 0 if it has seen all."""
        ages: dict[str, int] = {}
        for group in await self._groups():
            needed = await self._needed(group)
            rows = await self._redis.xrange(self.key, min=needed, count=1)
            ages[str(group["name"])] = max(now - _order(str(rows[0][0]))[0], 0) if rows else 0
        return ages

    async def forget_consumers(self, *, idle_ms: int) -> None:
        """Drop consumers that are gone: each process is a new one, and a killed one cannot say goodbye."""
        for group in await self._groups():
            for consumer in await self._redis.xinfo_consumers(self.key, group["name"]):
                if not consumer["pending"] and consumer["idle"] > idle_ms:
                    await self._redis.xgroup_delconsumer(self.key, group["name"], consumer["name"])

    async def acknowledged(self, group: str, cursor: str) -> bool:
        """Whether a consumer group has acknowledged every entry up to `cursor`."""
        for found in await self._groups():
            if found["name"] == group:
                return not await self._redis.xrange(self.key, min=await self._needed(found), max=cursor, count=1)
        return False

    @property
    def _trimmed_key(self) -> str:
        return f"{self.key}:trimmed"

    async def _groups(self) -> list[dict[str, Any]]:
        try:
            return list(await self._redis.xinfo_groups(self.key))
        except ResponseError:
            return []  # there is no log yet

    async def _needed(self, group: dict[str, Any]) -> str:
        """The position of the first entry that the group still needs."""
        pending = await self._redis.xpending(self.key, group["name"])
        return str(pending["min"]) if pending["pending"] else _after(str(group["last-delivered-id"]))


def entries(found: Any) -> list[Entry]:
    """The entries of an XREAD's bare answer, which is a list of pairs in RESP2 and a map in RESP3."""
    if not found:
        return []
    ((_, rows),) = found.items() if isinstance(found, dict) else found
    return list(rows)


def _order(cursor: str) -> tuple[int, int]:
    ms, _, sequence = cursor.partition("-")
    return int(ms), int(sequence or 0)


def _after(cursor: str) -> str:
    ms, sequence = _order(cursor)
    return f"{ms}-{sequence + 1}"
