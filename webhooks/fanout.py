"""The fan-out: reads the event log and makes one delivery per event and endpoint that wants it."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import orjson
import structlog

from webhooks.backoff import first_delay
from webhooks.directory import Directory
from webhooks.keys import Keys
from webhooks.model import delivery_id
from webhooks.notices import OWN
from webhooks.ports import Event, EventLog
from webhooks.scripts import Script, Store
from webhooks.stubborn import STORE_ERRORS, Pause

READ = 100
PER_SCRIPT = 500
"""Deliveries that one script makes: the store serves nobody else meanwhile."""
BLOCK_MS = 1000
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """What one script does: some deliveries, and the entries that are complete with them."""

    events: list[dict[str, Any]]
    acks: list[str]


class Fanout:
    def __init__(self, redis: Store, keys: Keys, events: EventLog, directory: Directory, schedule: Sequence[int], clock: Callable[[], int]) -> None:
        """`schedule`: the default one, ms before each attempt."""
        self._events = events
        self._keys = keys
        self._directory = directory
        self._schedule = schedule
        self._clock = clock
        self._script = Script(redis, "fanout")

    async def run(self, stop: asyncio.Event) -> None:
        """Fan out until told to stop; a store that is away is waited for."""
        pause = Pause()
        while not stop.is_set():
            try:
                await self.step(block_ms=BLOCK_MS)
                pause.reset()
            except STORE_ERRORS as error:
                log.warning("fan-out waits for the store", error=str(error))
                await pause.wait(stop)
            except Exception:
                # The entries stay unacknowledged and are read again: better late, and seen in `ready`, than lost.
                log.exception("the fan-out broke")
                await pause.wait(stop)

    async def step(self, *, block_ms: int = 0) -> int:
        """Read once and fan out what was read; returns how many deliveries were created."""
        events = await self._events.read(count=READ, block_ms=block_ms)
        if not events:
            return 0
        created = 0
        parts = self._plan(events)
        while (part := next(parts, None)) is not None:
            made = int(
                await self._script([self._keys.prefix, self._events.key], [self._clock(), self._directory.version, self._events.group, _pack(part)])
            )
            if made < 0:
                # An endpoint has changed since we last read them. Doing all of it again is harmless, because records exist already.
                await self._directory.refresh()
                parts = self._plan(events)
                continue
            created += made
        return created

    def _plan(self, events: Sequence[Event]) -> Iterator[_Part]:
        """Deliveries in groups of at most `PER_SCRIPT`; an entry is acknowledged with the last of its own."""
        grouped: list[dict[str, Any]] = []
        acks: list[str] = []
        room = PER_SCRIPT
        for event in events:
            targets = self._targets(event)
            body = orjson.dumps(event.document()) if targets else b""
            run = event.data.get("runId") if targets else None
            while targets:
                chunk, targets = targets[:room], targets[room:]
                grouped.append({"id": event.id, "type": event.type, "run": run if isinstance(run, str) else "", "body": body, "to": chunk})
                room -= len(chunk)
                if room == 0:
                    if not targets:
                        acks.append(event.cursor)
                    yield _Part(events=grouped, acks=acks)
                    grouped, acks, room = [], [], PER_SCRIPT
                    if not targets:
                        break
            else:
                acks.append(event.cursor)
        if grouped or acks:
            yield _Part(events=grouped, acks=acks)

    def _targets(self, event: Event) -> list[tuple[str, str, int]]:
        """`(endpoint, delivery, ms until the first attempt)` of each endpoint that wants the event."""
        concerned = event.data.get("endpoint") if event.type.startswith(OWN) else None
        found = []
        for endpoint in self._directory.route(event.type):
            if endpoint.id != concerned:
                delay = first_delay(endpoint.schedule or self._schedule, random.random())
                found.append((endpoint.id, delivery_id(event.id, endpoint.id), delay))
        return found


def _pack(part: _Part) -> bytes:
    # The reader in the store knows no binary type.
    packed: bytes = msgpack.packb({"events": part.events, "acks": part.acks}, use_bin_type=False)
    return packed
