"""Why did X not get Y: one answer for each pair of event and endpoint; and what should have arrived and has not."""

from typing import Any

from aiohttp import web

from pipeline.api.fields import Query, Shape
from pipeline.api.requests import json_response, read_query
from pipeline.api.webhooks.deliveries import DeliveryShown
from pipeline.api.webhooks.translation import Limit, route, webhooks_of


class Fact(Shape):
    name: str
    value: Any


class Why(Shape):
    verdict: str
    """One of a closed set; docs/webhooks-operating.md lists them."""
    reason: str
    """A sentence."""
    advice: str | None
    """What to do about it, if anything."""


class Explanation(Why):
    event: str
    type: str | None
    """Null where nobody knows the event."""
    endpoint: str | None
    """Null where no endpoint wants the event."""
    delivery: str | None
    facts: list[Fact]


class Explanations(Shape):
    items: list[Explanation]
    truncated: bool
    """Whether there are more; ask for one endpoint then."""


class ExplainQuery(Query):
    event: str | None = None
    """An event's id: this or a run."""
    run: str | None = None
    endpoint: str | None = None
    """Without it, each that has a record of the event or wants it."""


class Undelivered(DeliveryShown):
    why: Why


class UndeliveredPage(Shape):
    items: list[Undelivered]
    next_cursor: str | None


class UndeliveredQuery(Query):
    endpoint: str | None = None
    run: str | None = None
    type: str | None = None
    """A type, or a pattern such as `job.*`."""
    cursor: str | None = None
    limit: Limit = 50


async def explain(request: web.Request) -> web.StreamResponse:
    query = read_query(request, ExplainQuery)
    answered = await webhooks_of(request).inquiry.ask(event=query.event, run=query.run, endpoint=query.endpoint)
    return json_response(answered.document())


async def undelivered(request: web.Request) -> web.StreamResponse:
    query = read_query(request, UndeliveredQuery)
    page = await webhooks_of(request).undelivered.list(
        endpoint=query.endpoint, run=query.run, type=query.type, cursor=query.cursor, limit=query.limit
    )
    return json_response({"items": [one.document() for one in page.items], "nextCursor": page.next_cursor})


ROUTES = (
    route("GET", "/api/webhooks/explain", explain, "Why an endpoint got an event, or did not", query=ExplainQuery, answer=Explanations),
    route(
        "GET",
        "/api/webhooks/undelivered",
        undelivered,
        "What should have arrived and has not, oldest first, with why",
        query=UndeliveredQuery,
        answer=UndeliveredPage,
    ),
)
