"""Events: pull them by cursor, follow them as server-sent events, publish one's own; a user sees those of its own objects."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
import structlog
from aiohttp import web
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from pipeline.api.feed import FEED, Subscription
from pipeline.api.fields import Body, Query, Shape
from pipeline.api.requests import answer_json, claim_of, json_response, parse, read_json, read_query, respond
from pipeline.api.routing import Access, Route
from pipeline.api.runs import EventShown
from pipeline.api.services import principal_of, services_of
from pipeline.auth import Principal
from pipeline.errors import Gone, InvalidInput, Unavailable
from pipeline.eventtypes import check_type
from pipeline.jobs.calls import now_ms
from pipeline.store.event import Event, event_id
from pipeline.store.idempotency import SECONDS, Idempotency, record
from pipeline.store.idempotency import parse as parse_record
from pipeline.store.log import CURSOR
from pipeline.store.memory import REFUSE_NEW
from pipeline.units import iso

BATCH = 500
"""Events in one publication."""
_PATTERN = re.compile(r"\*|[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*(\.\*)?")
_PAGE = 500
_PAGES = 10
"""Pages of the log that one pull looks through for events that pass its filter; then it answers how far it came."""
_RECONNECT_MS = 3_000

_log = structlog.get_logger()


def _event_type(text: str) -> str:
    try:
        check_type(text)
    except ValueError as error:
        raise PydanticCustomError("event_type", "{said}", {"said": str(error)}) from error
    return text


class EventBody(Body):
    type: Annotated[str, AfterValidator(_event_type)]
    data: dict[str, Any]


class Published(Shape):
    ids: list[str]


class LoggedEvent(EventShown):
    cursor: str
    """Its place in the log; the `id` is what to deduplicate on."""


class EventPage(Shape):
    items: list[LoggedEvent]
    next_cursor: str | None
    """What to pass as `after` next time, also when there is nothing yet; null only while the log is empty."""


class EventQuery(Query):
    after: str | None = None
    """A cursor; without it a pull begins at the earliest event kept, a stream with the next one."""
    types: str | None = None
    """Comma-separated types or patterns (`job.*`); without it all but job.progress."""
    limit: Annotated[int, Field(ge=1, le=BATCH)] = 100


class StreamQuery(Query):
    after: str | None = None
    types: str | None = None


class _Filter:
    """Which events one caller gets to see."""

    def __init__(self, request: web.Request, types: str | None) -> None:
        self._matches = services_of(request).matches
        self._principal: Principal = principal_of(request)
        self._patterns: Sequence[str] = ("*",) if types is None else tuple(part.strip() for part in types.split(","))
        for pattern in self._patterns:
            if not _PATTERN.fullmatch(pattern):
                raise InvalidInput(f"types: {pattern!r} is not a type or pattern", hint="for example types=job.completed,workflow.*")

    def passes(self, event: Event) -> bool:
        return self._principal.owns(event.data.get("userId")) and self._matches(self._patterns, event.type)


async def pull(request: web.Request) -> web.Response:
    query = read_query(request, EventQuery)
    wanted, log = _Filter(request, query.types), services_of(request).log
    cursor, found = _cursor(query.after), list[Event]()
    for _ in range(_PAGES):
        page = await log.after(cursor, limit=_PAGE)
        for event in page:
            cursor = event.cursor
            if wanted.passes(event):
                found.append(event)
                if len(found) == query.limit:
                    break
        if len(page) < _PAGE or len(found) == query.limit:
            break
    return json_response({"items": [_shown(event) for event in found], "nextCursor": cursor or None})


async def publish(request: web.Request) -> web.Response:
    sent = await read_json(request)
    many = isinstance(sent, list)
    if many and not 1 <= len(sent) <= BATCH:
        raise InvalidInput(f"the list has {len(sent)} events; 1 to {BATCH} can be published at once")
    values = sent if many else [sent]
    at = [str(index) if many else "" for index in range(len(values))]
    bodies = [parse(EventBody, value, what=f"event {where}" if many else "the body", at=where) for value, where in zip(values, at, strict=True)]
    claim = claim_of(request, sent)
    services = services_of(request)
    # First: what was accepted once is answered as it was, though a schema has changed since, or the store has filled.
    if claim and (earlier := await Idempotency(services.redis).peek(claim)):
        return respond(earlier, replayed=True)
    if (share := await services.memory.share()) >= REFUSE_NEW:
        raise Unavailable(f"the store is {share:.0%} full: events are refused until deliveries end or older ones are removed", retry_after=10)
    await services.event_types.check([(body.type, body.data) for body in bodies], at)
    # Nothing of the key goes into the ids: a day later it may stand for another publication.
    source, now = secrets.token_hex(16), now_ms()
    events = [
        Event(id=event_id(body.type, "published", source, index), type=body.type, timestamp=now, data=body.data) for index, body in enumerate(bodies)
    ]
    answer = answer_json({"ids": [event.id for event in events]}, status=202)
    if claim is None:
        await services.log.append(events)
        return respond(answer)
    ours = record(claim, answer)
    kept = await services.log.append_once(events, key=claim.key, record=ours, seconds=SECONDS)
    return respond(parse_record(kept, claim), replayed=kept != ours)


# --- server-sent events -----------------------------------------------------------------------------------------------


async def stream(request: web.Request) -> web.StreamResponse:
    query = read_query(request, StreamQuery)
    wanted = _Filter(request, query.types)
    cursor = _cursor(request.headers.get("Last-Event-ID") or query.after)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"})
    follower = _Follower(request, response, wanted)
    try:
        await follower.follow(cursor)
    except ConnectionError:
        _log.debug("the reader of a stream went away")
    except Exception:
        if not response.prepared:
            raise
        # The headers are out: the client learns by the end of the stream, and comes back with its Last-Event-ID.
        _log.exception("a stream broke")
    finally:
        await follower.close()
    return response


class _Follower:
    """Writes one stream: first what the client missed, out of the log, then what the feed tells."""

    def __init__(self, request: web.Request, response: web.StreamResponse, wanted: _Filter) -> None:
        self._request = request
        self._response = response
        self._wanted = wanted
        self._feed = request.app[FEED]
        self._expires_at = principal_of(request).expires_at
        self._subscription: Subscription | None = None

    async def follow(self, cursor: str) -> None:
        """Until the client leaves, is too slow, its token ends, or the service stops."""
        if not cursor:
            # Before the headers go out: what is published once the client has them is not missed.
            cursor = (await self._subscribe()).start
        await self._response.prepare(self._request)
        await self._response.write(b"retry: %d\n\n" % _RECONNECT_MS)
        if self._subscription is None:
            # Nearly up to date before subscribing, so that a long history does not overflow the subscription.
            cursor = await self._catch_up(cursor, until=None)
            subscription = await self._subscribe()
            cursor = await self._catch_up(cursor, until=subscription.start)
        await self._live(cursor)

    async def close(self) -> None:
        if self._subscription:
            await self._feed.unsubscribe(self._subscription)

    async def _subscribe(self) -> Subscription:
        self._subscription = await self._feed.subscribe(self._abort)
        return self._subscription

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _catch_up(self, cursor: str, *, until: str | None) -> str:
        """Write what the log has after `cursor`, up to `until` or to its end; returns how far that was."""
        log = services_of(self._request).log
        while until is None or order(cursor) < order(until):
            try:
                page = await log.after(cursor, limit=_PAGE)
            except Gone as gone:
                await self._response.write(_sse({"after": cursor, "earliest": gone.earliest}, event="gap"))
                cursor = ""
                continue
            await self._write(page)
            if page:
                cursor = page[-1].cursor
            if len(page) < _PAGE:
                break
        return cursor

    async def _live(self, cursor: str) -> None:
        assert self._subscription
        queue = self._subscription.events
        while (patience := self._patience()) > 0:
            try:
                batch = [await asyncio.wait_for(queue.get(), patience)]
            except TimeoutError:
                await self._response.write(b": keep-alive\n\n")
                continue
            with contextlib.suppress(asyncio.QueueEmpty):
                while len(batch) < 100:
                    batch.append(queue.get_nowait())
            await self._write([event for event in batch if event is not None and order(event.cursor) > order(cursor)])
            if None in batch:
                return

    def _patience(self) -> float:
        """Seconds to wait for the next event before a heartbeat is due, or the token ends."""
        if self._expires_at is None:
            return self._feed.heartbeat
        return min(self._feed.heartbeat * 1000, self._expires_at - now_ms()) / 1000

    async def _write(self, events: Sequence[Event]) -> None:
        text = b"".join(_sse(_shown(event), id=event.cursor) for event in events if self._wanted.passes(event))
        if text:
            await self._response.write(text)


def order(cursor: str) -> tuple[int, int]:
    """Cursors in the order of the log; the empty one stands before all."""
    ms, _, sequence = cursor.partition("-")
    return int(ms or 0), int(sequence or 0)


def _cursor(text: str | None) -> str:
    """Raises InvalidInput for what is no cursor."""
    if text and not CURSOR.fullmatch(text):
        raise InvalidInput(f"{text!r} is not a cursor of the log", hint="use an event's cursor, or leave it out")
    return text or ""


def _shown(event: Event) -> dict[str, Any]:
    return {"id": event.id, "type": event.type, "timestamp": iso(event.timestamp), "data": event.data, "cursor": event.cursor}


def _sse(data: dict[str, Any], *, event: str = "", id: str = "") -> bytes:
    # JSON has no raw line breaks, so one `data:` line holds it. Events carry their type inside: a browser's `onmessage` gets them all.
    head = (f"event: {event}\n" if event else "") + (f"id: {id}\n" if id else "")
    return head.encode() + b"data: " + orjson.dumps(data) + b"\n\n"


ROUTES = (
    Route(method="GET", path="/api/events", handler=pull, summary="Pull events by cursor", query=EventQuery, answer=EventPage, problems=(410,)),
    Route(
        method="GET",
        path="/api/events/stream",
        handler=stream,
        summary="Follow events as they happen (Last-Event-ID resumes; `event: gap` where the log no longer reaches back)",
        query=StreamQuery,
        media="text/event-stream",
    ),
    Route(
        method="POST",
        path="/api/events",
        handler=publish,
        summary="Publish an event, or a list of up to 500",
        access=Access.SERVICE,
        body=EventBody,
        many=BATCH,
        status=202,
        answer=Published,
        idempotent=True,
        problems=(403, 409, 413, 503),
    ),
)
