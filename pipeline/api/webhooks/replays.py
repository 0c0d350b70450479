"""Replays of many deliveries of an endpoint: count them, begin, watch, cancel."""

from typing import Literal

from aiohttp import web
from pydantic import Field, RootModel

from pipeline.api.fields import Body, Query, Shape
from pipeline.api.requests import answer_json, json_response, once, read_query
from pipeline.api.webhooks.translation import ENDPOINTS, Limit, object_of, route, webhooks_of
from pipeline.store.idempotency import Answer
from webhooks.replays import DryRun as Counted

REPLAYS = "/api/webhooks/replays"


class NewReplayBody(Body):
    """What is sent again; the package `webhooks` checks it, unknown fields included."""

    since: str
    """ISO-8601 with a zone: of the record's creation, of what is missing the event's."""
    until: str | None = None
    """Null: now."""
    status: list[Literal["delivered", "exhausted", "skipped"]] | None = None
    """Null: exhausted and skipped, with `missing` none."""
    types: list[str] = Field([])
    """Types or patterns; empty: all."""
    missing: bool = False
    """Also the events of the log that the endpoint wants now and has no record of."""
    rate: str | None = None
    """At most so many in a time (`100/1m`)."""
    dry_run: bool = False
    """Only count them."""


class Candidate(Shape):
    delivery: str
    at: str
    event: str
    type: str
    status: Literal["delivered", "exhausted", "skipped", "missing"]


class Asked(Shape):
    since: str
    until: str
    status: list[str]
    types: list[str]
    missing: bool
    rate: str | None


class ReplayShown(Shape):
    id: str
    endpoint: str
    status: Literal["running", "done", "cancelled"]
    reason: str | None
    """Why it was cancelled, where that was not a person's decision."""
    asked: Asked
    matched: int
    """Found so far."""
    replayed: int
    skipped: int
    """Found, but pending or gone when their turn came."""
    started_at: str
    finished_at: str | None


class DryRun(Shape):
    count: int
    complete: bool
    """Whether everything was looked at; if not, there may be more."""
    sample: list[Candidate]
    oldest: str | None
    newest: str | None


class Begun(RootModel[ReplayShown | DryRun]):
    """A replay, or what a dry run has counted."""


class ReplayPage(Shape):
    items: list[ReplayShown]
    next_cursor: str | None


class ReplayQuery(Query):
    cursor: str | None = None
    limit: Limit = 50


async def create(request: web.Request) -> web.StreamResponse:
    document = await object_of(request)

    async def work() -> Answer:
        begun = await webhooks_of(request).replays.create(request.match_info["endpointId"], document)
        if isinstance(begun, Counted):
            return answer_json(begun.document())
        return answer_json(begun.document(), status=202, headers={"Location": f"{REPLAYS}/{begun.id}"})

    return await once(request, document, work)


async def list_replays(request: web.Request) -> web.StreamResponse:
    query = read_query(request, ReplayQuery)
    page = await webhooks_of(request).replays.list(cursor=query.cursor, limit=query.limit)
    return json_response({"items": [replay.document() for replay in page.items], "nextCursor": page.next_cursor})


async def show(request: web.Request) -> web.StreamResponse:
    return json_response((await webhooks_of(request).replays.get(request.match_info["replayId"])).document())


async def cancel(request: web.Request) -> web.StreamResponse:
    return json_response((await webhooks_of(request).replays.cancel(request.match_info["replayId"])).document())


ROUTES = (
    route(
        "POST",
        f"{ENDPOINTS}/{{endpointId}}/replay",
        create,
        "Send many deliveries of an endpoint again, or count them (200)",
        body=NewReplayBody,
        status=202,
        also=(200,),
        answer=Begun,
        idempotent=True,
        problems=(404, 409),
    ),
    route("GET", REPLAYS, list_replays, "List replays, newest first", query=ReplayQuery, answer=ReplayPage),
    route("GET", f"{REPLAYS}/{{replayId}}", show, "Show how far a replay is", answer=ReplayShown, problems=(404,)),
    route("POST", f"{REPLAYS}/{{replayId}}/cancel", cancel, "End a replay; what it sent again stays so", answer=ReplayShown, problems=(404, 409)),
)
