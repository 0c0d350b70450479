"""Webhook deliveries: list, show with the attempts, send again."""

from typing import Literal

from aiohttp import web

from pipeline.api.fields import Query, Shape
from pipeline.api.requests import answer_json, json_response, once, read_query
from pipeline.api.webhooks.translation import DELIVERIES, Limit, Time, route, webhooks_of
from pipeline.store.idempotency import Answer

DeliveryState = Literal["pending", "delivered", "exhausted", "skipped"]


class DeliveryShown(Shape):
    id: str
    event_id: str
    endpoint: str
    type: str
    run_id: str | None
    status: DeliveryState
    reason: str | None
    """Why it was skipped, or exhausted before its schedule's end."""
    attempt_count: int
    last_status: int | None
    """HTTP status of the last attempt."""
    next_attempt_at: str | None
    created_at: str
    finished_at: str | None


class Phases(Shape):
    """ms that each part of a request took; null for one that it had not, as over a kept connection."""

    dns: float | None
    connect: float | None
    tls: float | None
    first_byte: float | None
    """From the request's end to the answer's first byte."""
    total: float | None


class Exchange(Shape):
    """One request and what came of it."""

    at: str
    duration_ms: int | None
    status: int | None
    error: str | None
    response: str | None
    """The first 4 KiB of the answer."""
    address: str | None
    """That was dialled."""
    phases: Phases | None
    """Null where nothing was sent."""
    reused: bool | None
    """Whether it went over a connection that an earlier request had opened."""


class AttemptShown(Exchange):
    number: int


class DeliveryWithAttempts(DeliveryShown):
    attempts: list[AttemptShown]


class DeliveryPage(Shape):
    items: list[DeliveryShown]
    next_cursor: str | None


class DeliveryQuery(Query):
    status: DeliveryState | None = None
    endpoint: str | None = None
    type: str | None = None
    """A type, or a pattern such as `job.*`."""
    since: Time | None = None
    """Created at or after this time (ISO-8601 with a zone)."""
    until: Time | None = None
    """Created at or before this time."""
    event: str | None = None
    run: str | None = None
    last_status: str | None = None
    """HTTP status of the last attempt: one (`503`), a class (`5xx`), or `none` where there was no answer."""
    cursor: str | None = None
    limit: Limit = 50


async def list_deliveries(request: web.Request) -> web.StreamResponse:
    query = read_query(request, DeliveryQuery)
    page = await webhooks_of(request).deliveries.list(
        status=query.status,
        endpoint=query.endpoint,
        type=query.type,
        since=query.since,
        until=query.until,
        event=query.event,
        run=query.run,
        code=query.last_status,
        cursor=query.cursor,
        limit=query.limit,
    )
    return json_response({"items": [delivery.document() for delivery in page.items], "nextCursor": page.next_cursor})


async def show_delivery(request: web.Request) -> web.StreamResponse:
    return json_response(await webhooks_of(request).deliveries.document(request.match_info["deliveryId"]))


async def replay(request: web.Request) -> web.StreamResponse:
    async def work() -> Answer:
        delivery = await webhooks_of(request).replay.one(request.match_info["deliveryId"])
        return answer_json(delivery.document(), status=202)

    return await once(request, {}, work)


ROUTES = (
    route("GET", DELIVERIES, list_deliveries, "List deliveries, newest first", query=DeliveryQuery, answer=DeliveryPage),
    route("GET", f"{DELIVERIES}/{{deliveryId}}", show_delivery, "Show a delivery with its attempts", answer=DeliveryWithAttempts, problems=(404,)),
    route(
        "POST",
        f"{DELIVERIES}/{{deliveryId}}/replay",
        replay,
        "Send a delivery again",
        status=202,
        answer=DeliveryShown,
        idempotent=True,
        problems=(404, 409),
    ),
)
