"""Why an endpoint got an event, or did not: reads what `explain.py` decides by."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from webhooks import records
from webhooks.criteria import Criteria
from webhooks.deliveries import Deliveries
from webhooks.directory import Directory
from webhooks.errors import InvalidInput
from webhooks.explain import Explanation, explain
from webhooks.facts import Facts, Known, Mailbox
from webhooks.keys import Keys
from webhooks.model import OWN, Attempt, Delivery, DeliveryStatus, Endpoint, KeptEvent
from webhooks.ordering import HASH, PLACE
from webhooks.pacing import earliest
from webhooks.ports import Event, History
from webhooks.scripts import Store
from webhooks.selecting import Filters

MAX_PAIRS = 200
MAX_RECORDS = 1_000
"""Of a run, that are looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    items: list[tuple[Facts, Explanation]]
    truncated: bool
    """Whether there are more."""

    def document(self) -> dict[str, Any]:
        return {"items": [explanation.document(facts) for facts, explanation in self.items], "truncated": self.truncated}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Subject:
    """An event that is asked about."""

    id: str
    event: Event | None
    """As the log or its deliveries have it; None where nobody knows it."""
    known: Known | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Receiver:
    """An endpoint that is asked about."""

    id: str
    definition: Endpoint | None
    deleted: int | None
    mailbox: Mailbox


class Inquiry:
    def __init__(self, redis: Store, keys: Keys, deliveries: Deliveries, history: History | None, filters: Filters, clock: Callable[[], int]) -> None:
        self._redis = redis
        self._keys = keys
        self._deliveries = deliveries
        self._history = history
        self._filters = filters
        self._clock = clock
        self._directory = Directory(redis, keys)

    async def ask(self, *, event: str | None = None, run: str | None = None, endpoint: str | None = None) -> Answered:
        """About an event or those of a run, and an endpoint; without one, about each that has a record or wants the event.

        Raises InvalidInput where neither or both of event and run are given.
        """
        if (event is None) == (run is None):
            raise InvalidInput("give an event, or a run")
        wanted = Criteria(event=event, run=run, endpoint=endpoint)
        kept = [record for _, record in await self._deliveries.listing.after(wanted, None, count=MAX_RECORDS) if record and wanted.fits(record)]
        subjects = await self._subjects_of_run(run, kept) if run is not None else [await self._subject(str(event), kept, endpoint)]
        pairs = await self._pairs(subjects, kept, endpoint)
        ids = {receiver for _, receiver, _ in pairs[:MAX_PAIRS]}
        receivers = dict(zip(ids, await asyncio.gather(*map(self._receiver, ids)), strict=True))
        facts = await asyncio.gather(*(self._facts(subject, receivers[id], record) for subject, id, record in pairs[:MAX_PAIRS]))
        return Answered(items=[(one, explain(one)) for one in facts], truncated=len(pairs) > MAX_PAIRS or len(kept) >= MAX_RECORDS)

    async def of_records(self, found: Sequence[Delivery]) -> list[Explanation]:
        """Of each of these deliveries."""
        ids = {record.endpoint for record in found}
        receivers = dict(zip(ids, await asyncio.gather(*map(self._receiver, ids)), strict=True))
        subjects = [_Subject(id=record.event, event=None, known=_known(record)) for record in found]
        facts = await asyncio.gather(
            *(self._facts(subject, receivers[record.endpoint], record) for subject, record in zip(subjects, found, strict=True))
        )
        return [explain(one) for one in facts]

    # --- what is asked about ----------------------------------------------------------------------------------------

    async def _subject(self, event: str, kept: Sequence[Delivery], endpoint: str | None) -> _Subject:
        if kept and endpoint is not None:
            return _Subject(id=event, event=None, known=_known(kept[0]))
        # Only where there is no record is it asked what the log has: it is looked through for that.
        found = await self._history.find(event) if self._history else None
        if found is not None:
            return await self._logged(found)
        return await self._as_sent(event)

    async def _as_sent(self, event: str) -> _Subject:
        """As its deliveries have it, if there are any."""
        body = await self._deliveries.body(event)
        if body is None:
            return _Subject(id=event, event=None, known=None)
        sent = KeptEvent.parse(event, body)
        return _Subject(id=event, event=sent, known=_known_event(sent))

    async def _subjects_of_run(self, run: str, kept: Iterable[Delivery]) -> list[_Subject]:
        found = await self._history.of_run(run) if self._history else []
        subjects = {event.id: await self._logged(event) for event in found}
        for event in {record.event for record in kept} - subjects.keys():
            subjects[event] = await self._as_sent(event)
        return sorted(subjects.values(), key=lambda subject: subject.known.timestamp if subject.known else 0)

    async def _logged(self, event: Event) -> _Subject:
        fanned_out = not event.cursor or self._history is None or await self._history.fanned_out(event.cursor)
        return _Subject(id=event.id, event=event, known=_known_event(event, logged=bool(event.cursor), fanned_out=fanned_out))

    async def _pairs(
        self, subjects: Sequence[_Subject], kept: Sequence[Delivery], endpoint: str | None
    ) -> list[tuple[_Subject, str, Delivery | None]]:
        by_pair = {(record.event, record.endpoint): record for record in kept}
        if endpoint is not None:
            return [(subject, endpoint, by_pair.get((subject.id, endpoint))) for subject in subjects]
        await self._directory.refresh()
        pairs: list[tuple[_Subject, str, Delivery | None]] = []
        for subject in subjects:
            wanting = {one.id for one in self._directory.route(subject.known.type)} if subject.known else set()
            having = {record.endpoint for record in kept if record.event == subject.id}
            # Nobody: that is an answer, too.
            pairs += [(subject, id, by_pair.get((subject.id, id))) for id in sorted(wanting | having) or [""]]
        return pairs

    # --- what is known ----------------------------------------------------------------------------------------------

    async def _receiver(self, endpoint: str) -> _Receiver:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._keys.endpoint(endpoint))
            pipe.zscore(self._keys.deleted, endpoint)
            pipe.zscore(self._keys.changes, endpoint)
            pipe.zcard(self._keys.leases(endpoint))
            fields, deleted, changed, under_way = await pipe.execute()
        definition = records.parse(endpoint, fields) if fields else None
        rate_until = earliest(definition.rate, float(fields.get("tat") or 0)) if definition and definition.rate else 0
        gone = None if definition or (deleted is None and changed is None) else int(deleted or 0)
        return _Receiver(id=endpoint, definition=definition, deleted=gone, mailbox=Mailbox(under_way=under_way, rate_until=rate_until))

    async def _facts(self, subject: _Subject, receiver: _Receiver, record: Delivery | None) -> Facts:
        common: dict[str, Any] = {
            "now": self._clock(),
            "event": subject.id,
            "endpoint": receiver.id,
            "known": subject.known,
            "known_since": await self._deliveries.known_since(),
            "definition": receiver.definition,
            "deleted": receiver.deleted,
        }
        if record is None:
            start = await self._history.start() if self._history else None
            behind = await self._history.behind() if self._history else 0
            return Facts(**common, mailbox=receiver.mailbox, log_start=start, behind=behind, filtered=self._filtered(subject, receiver))
        return Facts(**common, **await self._of_record(record, receiver))

    def _filtered(self, subject: _Subject, receiver: _Receiver) -> str | None:
        event = subject.event
        # Of an event that only its run's timeline still has, the data is not complete.
        complete = event is not None and (bool(event.cursor) or isinstance(event, KeptEvent))
        return self._filters.of(event).skipped(receiver.definition) if event and receiver.definition and complete else None

    async def _of_record(self, record: Delivery, receiver: _Receiver) -> dict[str, Any]:
        before = "+inf" if record.due is None else f"({record.due}"
        sets = (self._keys.leases(record.endpoint), self._keys.mailbox(record.endpoint), self._keys.retries(record.endpoint))
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.lindex(self._keys.attempts(record.id), -1)
            pipe.hget(self._keys.delivery(record.id), "line")
            for waits in sets:
                pipe.zscore(waits, record.id)
            for waits in sets[1:]:
                pipe.zcount(waits, "-inf", before)
            last, line, *scores, fresh, retries = await pipe.execute()
        pending = record.status is DeliveryStatus.PENDING
        in_line = pending and line and scores == [None, None, None]
        return {
            "delivery": record,
            "leased": pending and scores[0] is not None,
            "head": await self._head(record, line) if in_line else None,
            "last": Attempt(**({"number": record.attempts} | orjson.loads(last))) if last else None,
            "mailbox": replace(receiver.mailbox, ahead=fresh + retries),
        }

    async def _head(self, record: Delivery, line: str) -> str | None:
        """The delivery that comes first in the same line."""
        members = await self._redis.zrange(self._keys.line(record.endpoint, line[:HASH]), 0, 1)
        return next((member[PLACE:] for member in members if member[PLACE:] != record.id), None)


def _known(record: Delivery) -> Known:
    return Known(type=record.type, timestamp=record.created)


def _known_event(event: Event, *, logged: bool = False, fanned_out: bool = True) -> Known:
    about = event.data.get("endpoint") if event.type.startswith(OWN) else None
    return Known(type=event.type, timestamp=event.timestamp, about=about, logged=logged, fanned_out=fanned_out)
