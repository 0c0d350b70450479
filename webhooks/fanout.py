"""The fan-out: reads the event log and makes one delivery per event and endpoint that wants it."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import orjson
import structlog

from webhooks.backoff import first_delay
from webhooks.directory import Directory
from webhooks.keys import Keys
from webhooks.model import OWN, delivery_id, run_of
from webhooks.ordering import line_of
from webhooks.ports import Event, EventLog
from webhooks.scripts import Script, Store
from webhooks.selecting import Filters
from webhooks.stubborn import STORE_ERRORS, Pause

READ = 100
PER_SCRIPT = 500
"""Deliveries that one script makes: the store serves nobody else meanwhile."""
BLOCK_MS = 1000
log = structlog.get_logger(__name__)

_Target = tuple[str, str, int, str | None, str | None]
"""Endpoint, delivery, ms until the first attempt, why there is none, and the line in which it stands."""
LINE = 4
CHANGED, EARLY = -1, -2
"""Answers of the script: an endpoint has changed; earlier entries are in others' hands."""
WAIT_SECONDS = 0.02
"""For a process that has earlier entries and lives, which is done in moments; nobody tells."""
IDLE_SECONDS = 0.02
"""Between two looks at the log while there are no endpoints: nobody waits for what is in it."""


@dataclass(kw_only=True, slots=True)
class _Part:
    """What one script does: some deliveries, and the entries that are complete with them."""

    first: str = ""
    """Cursor of the earliest entry in it."""
    events: list[dict[str, Any]] = field(default_factory=list)
    acks: list[str] = field(default_factory=list)
    ordered: bool = False
    """Whether there is a line in it."""
    rest: bool = False
    """Whether all that follows in the log is complete with it, too."""

    def packed(self) -> bytes:
        work = {"events": self.events, "acks": self.acks, "rest": self.rest} | ({"first": self.first} if self.ordered else {})
        # The reader in the store knows no binary type.
        packed: bytes = msgpack.packb(work, use_bin_type=False)
        return packed


class Fanout:
    def __init__(
        self,
        redis: Store,
        keys: Keys,
        events: EventLog,
        directory: Directory,
        filters: Filters,
        schedule: Sequence[int],
        clock: Callable[[], int],
    ) -> None:
        """`schedule`: the default one, ms before each attempt."""
        self._events = events
        self._keys = keys
        self._directory = directory
        self._filters = filters
        self._schedule = schedule
        self._clock = clock
        self._script = Script(redis, "fanout")
        self._kept: list[Event] = []
        """Read and not done."""
        self._waiting = False
        """Whether others have yet to do earlier ones."""
        self._over = False
        """Whether the rest of the log was stepped over, there being no endpoints."""
        self._spread: set[str] = set()
        """Cursors of those kept of which all is done that stands in no line."""

    async def run(self, stop: asyncio.Event) -> None:
        """Fan out until told to stop; a store that is away is waited for."""
        pause = Pause()
        while not stop.is_set():
            try:
                await self.step(block_ms=BLOCK_MS)
                pause.reset()
                if self._over:
                    await asyncio.sleep(IDLE_SECONDS)
            except STORE_ERRORS as error:
                log.warning("fan-out waits for the store", error=str(error))
                await pause.wait(stop)
            except Exception:
                # The entries stay unacknowledged and are read again: better late, and seen in `ready`, than lost.
                log.exception("the fan-out broke")
                self._kept = []
                await pause.wait(stop)

    async def step(self, *, block_ms: int = 0) -> int:
        """Read once and fan out what was read; returns how many deliveries were created."""
        events = await self._next(block_ms)
        if not events:
            return 0
        # Until it is done: after an outage of the store nobody has to take it back first.
        self._kept = events
        created = 0
        parts = self._plan(events)
        while (part := next(parts, None)) is not None:
            made = await self._commit(part)
            if made == CHANGED:
                # Doing all of it again is harmless, because records exist already.
                await self._directory.refresh()
                parts = self._plan(events)
            elif made == EARLY:
                self._kept = [event for event in events if _order(event.cursor) >= _order(part.first)]
                return created + await self._spread_unordered()
            else:
                created += made
        self._kept = []
        return created

    async def _next(self, block_ms: int) -> list[Event]:
        """New entries; while some are kept because others have yet to do earlier ones, those, and what was left by the dead among the others."""
        if not self._kept:
            # One tells that there are some, and again all are stepped over.
            return list(await self._events.read(count=1 if self._over else READ, block_ms=block_ms))
        if self._waiting:
            await asyncio.sleep(WAIT_SECONDS)
        # No more is taken than can be kept.
        left = await self._events.left(count=READ) if len(self._kept) < 2 * READ else []
        merged = {event.cursor: event for event in (*self._kept, *left)}
        return sorted(merged.values(), key=lambda event: _order(event.cursor))

    async def _commit(self, part: _Part) -> int:
        keys = [self._keys.prefix, self._events.key]
        made = int(await self._script(keys, [self._clock(), self._directory.version, self._events.group, part.packed()]))
        self._waiting = made == EARLY
        self._over = part.rest and made != CHANGED
        return made

    async def _spread_unordered(self) -> int:
        """What of the kept entries stands in no line need not wait; they are acknowledged with the rest."""
        fresh = [event for event in self._kept if event.cursor not in self._spread]
        created = 0
        for part in self._plan(fresh, ordered=False):
            made = await self._commit(part)
            if made == CHANGED:
                break
            created += made
        else:
            self._spread = {event.cursor for event in self._kept}
        self._waiting = True
        return created

    def _plan(self, events: Sequence[Event], *, ordered: bool = True) -> Iterator[_Part]:
        """Deliveries in groups of at most `PER_SCRIPT`; an entry is acknowledged with the last of its own, where all of them are planned."""
        part, room = _Part(rest=self._directory.empty), PER_SCRIPT
        for event in events:
            part.first = part.first or event.cursor
            body, to = b"", list[_Target]()
            for target in self._targets(event):
                if target[LINE] and not ordered:
                    continue
                if room == 0:
                    yield part
                    part, to, room = _Part(first=event.cursor), [], PER_SCRIPT
                if not to:
                    # Only now: most events are wanted by nobody, and their data need not even be parsed.
                    body = body or orjson.dumps(event.document())
                    part.events.append({"id": event.id, "type": event.type, "run": run_of(event.data) or "", "body": body, "to": to})
                to.append(target)
                part.ordered |= target[LINE] is not None
                room -= 1
            if ordered:
                part.acks.append(event.cursor)
        if part.events or part.acks:
            yield part

    def _targets(self, event: Event) -> Iterator[_Target]:
        """What comes of each endpoint that wants the event. One by one: the filters of thousands take longer than others should wait."""
        if not (endpoints := self._directory.route(event.type)):
            return
        concerned = event.data.get("endpoint") if event.type.startswith(OWN) else None
        selection = self._filters.of(event)
        for endpoint in endpoints:
            if endpoint.id != concerned:
                delay = first_delay(endpoint.schedule or self._schedule, random.random())
                skipped = selection.skipped(endpoint)
                yield endpoint.id, delivery_id(event.id, endpoint.id), delay, skipped, None if skipped else line_of(endpoint.ordering, event)


def _order(cursor: str) -> tuple[int, int]:
    ms, _, sequence = cursor.partition("-")
    return int(ms), int(sequence)
