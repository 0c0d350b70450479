"""What a replay would send again: an endpoint's records that fit, then the events of the log that it is missing, in steps of bounded work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from webhooks.criteria import Criteria
from webhooks.deliveries import Deliveries
from webhooks.keys import Keys
from webhooks.listing import parse_cursor
from webhooks.matching import matches
from webhooks.model import OWN, Delivery, DeliveryStatus, Endpoint, KeptEvent, delivery_id
from webhooks.ports import Event, History
from webhooks.scripts import Store
from webhooks.selecting import Filters
from webhooks.units import Rate, iso

SCAN = 200
"""Records or entries that one step looks at."""
RECORDS, LOG, END = "records:", "log:", "end"
"""Where a replay stands: behind which place of the records, then behind which cursor of the log, then at the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is to be sent again; times in ms since the epoch."""

    endpoint: str
    since: int
    until: int
    statuses: tuple[DeliveryStatus, ...]
    """Of records created in that time; empty: none of them."""
    types: tuple[str, ...] = ()
    """Types or patterns; empty: all."""
    missing: bool = False
    """Also the events logged in that time that the endpoint wants now and has no record of."""
    rate: Rate | None = None

    @property
    def start(self) -> str:
        """The first position."""
        return RECORDS if self.statuses else LOG

    def document(self) -> dict[str, Any]:
        return {
            "since": iso(self.since),
            "until": iso(self.until),
            "status": [status.value for status in self.statuses],
            "types": list(self.types),
            "missing": self.missing,
            "rate": None if self.rate is None else str(self.rate),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    delivery: str
    at: int
    """When the record was created, or the event happened; ms since the epoch."""
    event: str
    type: str
    status: str
    """Of its record; `missing` where there is none."""
    source: Event | None = None
    """Of a missing one: what it is made of."""

    def document(self) -> dict[str, Any]:
        return {"delivery": self.delivery, "at": iso(self.at), "event": self.event, "type": self.type, "status": self.status}


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    found: Sequence[Candidate]
    position: str
    """Behind the last that was looked at: where the next step begins."""


def logged_at(cursor: str) -> int:
    """ms since the epoch."""
    return int(cursor.partition("-")[0])


class Candidates:
    def __init__(self, redis: Store, keys: Keys, deliveries: Deliveries, history: History | None, filters: Filters) -> None:
        self._redis = redis
        self._keys = keys
        self._deliveries = deliveries
        self._history = history
        self._filters = filters

    async def step(self, asked: Asked, endpoint: Endpoint, position: str, most: int) -> Step:
        """The next candidates, `most` at the most, oldest first; none is no end, unless the position is."""
        if position.startswith(RECORDS):
            return await self._records(asked, endpoint, position.removeprefix(RECORDS), most)
        return await self._missing(asked, endpoint, position.removeprefix(LOG), most)

    async def _records(self, asked: Asked, endpoint: Endpoint, cursor: str, most: int) -> Step:
        wanted = Criteria(statuses=frozenset(asked.statuses), endpoint=asked.endpoint, types=asked.types, since=asked.since, until=asked.until)
        looked_at = await self._deliveries.listing.after(wanted, parse_cursor(cursor), count=SCAN)
        found: list[Candidate] = []
        for (created, delivery), record in looked_at:
            if len(found) == most:
                return Step(found=found, position=f"{RECORDS}{cursor}")
            if record and wanted.fits(record) and await self._passes(record, endpoint):
                found.append(Candidate(delivery=delivery, at=created, event=record.event, type=record.type, status=record.status.value))
            cursor = f"{created}.{delivery}"
        if len(looked_at) == SCAN:
            return Step(found=found, position=f"{RECORDS}{cursor}")
        return Step(found=found, position=LOG if asked.missing else END)

    async def _passes(self, record: Delivery, endpoint: Endpoint) -> bool:
        """What the filter kept away is sent only if the filter, as it is by now, lets it pass."""
        if record.status is not DeliveryStatus.SKIPPED or endpoint.filter is None or (record.reason or "").startswith("endpoint-"):
            return True
        body = await self._deliveries.body(record.event)
        return body is not None and self._filters.of(KeptEvent.parse(record.event, body)).skipped(endpoint) is None

    async def _missing(self, asked: Asked, endpoint: Endpoint, cursor: str, most: int) -> Step:
        if self._history is None:
            return Step(found=[], position=END)
        page = await self._history.after(cursor or self._history.cursor_at(asked.since), limit=SCAN)
        # Of one that is older, a record may have been there and be gone: it may well have been delivered.
        wanted = list(self._wanted(asked, endpoint, page, await self._deliveries.known_since()))
        absent = await self._absent([delivery for _, delivery in wanted])
        found: list[Candidate] = []
        for event, delivery in wanted:
            if delivery not in absent:
                continue
            if len(found) == most:
                return Step(found=found, position=f"{LOG}{cursor}")
            found.append(Candidate(delivery=delivery, at=event.timestamp, event=event.id, type=event.type, status="missing", source=event))
            cursor = event.cursor
        over = len(page) < SCAN or logged_at(page[-1].cursor) > asked.until
        return Step(found=found, position=END if over else f"{LOG}{page[-1].cursor}")

    def _wanted(self, asked: Asked, endpoint: Endpoint, page: Sequence[Event], oldest: int) -> Iterator[tuple[Event, str]]:
        for event in page:
            if logged_at(event.cursor) > asked.until:
                return
            if logged_at(event.cursor) < oldest:
                continue
            own = event.type.startswith(OWN) and event.data.get("endpoint") == endpoint.id
            fits = not own and matches(endpoint.types, event.type) and (not asked.types or matches(asked.types, event.type))
            if fits and self._filters.of(event).skipped(endpoint) is None:
                yield event, delivery_id(event.id, endpoint.id)

    async def _absent(self, deliveries: Sequence[str]) -> set[str]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for delivery in deliveries:
                pipe.exists(self._keys.delivery(delivery))
            found = await pipe.execute()
        return {delivery for delivery, exists in zip(deliveries, found, strict=True) if not exists}
