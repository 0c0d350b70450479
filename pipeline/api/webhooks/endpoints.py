"""Webhook endpoints: create, list, show, change, delete, pause, enable, rotate the secret."""

from collections.abc import Awaitable, Callable
from typing import Literal

import orjson
from aiohttp import web
from pydantic import Field

from pipeline.api.fields import Body, Query, Shape
from pipeline.api.requests import answer_json, json_response, once, read_query
from pipeline.api.webhooks.deliveries import Exchange
from pipeline.api.webhooks.translation import ENDPOINTS, Limit, object_of, route, webhooks_of
from pipeline.jobs.calls import now_ms
from pipeline.store.idempotency import Answer

EndpointState = Literal["enabled", "paused", "disabled"]


class NewEndpointBody(Body):
    """What an endpoint is created with; the package `webhooks` checks it, unknown fields included."""

    url: str
    types: list[str] = Field(["*"])
    """Event types, or patterns that end in `*`."""
    description: str = ""
    schedule: list[str] | None = None
    """The delay before each attempt (`["0s", "5s", "5m"]`); null: `webhooks.schedule`."""
    timeout: str = "15s"
    """For a whole attempt."""
    concurrency: int = 10
    """Attempts under way at once."""
    rate: str | None = None
    """Attempts in a time (`100/1m`); null: no limit."""
    ordering: str | None = None
    """Path of the key within which deliveries keep their order (`data.documentId`); null: no order."""
    filter: str | None = None
    """CEL over `event` (`event.data.score < 50`); what it is not true of is recorded as skipped."""
    payload: Literal["full", "thin"] = "full"
    asymmetric: bool = False
    """Sign with ed25519 (`v1a`) too."""
    headers: dict[str, str] = Field({})
    secret: str | None = None
    """`whsec_…`; without it, one is made."""


class EndpointChangesBody(Body):
    """What is left out stays as it is; null returns `schedule` to `webhooks.schedule` and takes `rate`, `ordering` and `filter` away."""

    url: str | None = None
    types: list[str] | None = None
    description: str | None = None
    schedule: list[str] | None = None
    timeout: str | None = None
    concurrency: int | None = None
    rate: str | None = None
    ordering: str | None = None
    filter: str | None = None
    payload: Literal["full", "thin"] | None = None
    asymmetric: bool | None = None
    headers: dict[str, str] | None = None


class SecretRotationBody(Body):
    """What replaces an endpoint's secret; nothing: one is made, and the former one signs beside it for a day."""

    secret: str | None = None
    """`whsec_…`; without it, one is made."""
    overlap: str = "24h"
    """For how long former secrets go on signing, 0s to 7d."""


class FormerPublicKey(Shape):
    public_key: str
    until: str
    """When it ceases to sign."""


class FormerSecret(Shape):
    until: str
    """When it ceases to sign."""


class EndpointHealth(Shape):
    """How it does; all of it begins anew with another URL, and when the endpoint is paused or enabled."""

    state: Literal["closed", "open", "half-open"]
    """Of its circuit breaker: `open` sends nothing before `openUntil`, `half-open` one attempt at a time."""
    failures: int
    """Attempts in a row that failed."""
    failing_since: str | None
    """When the first attempt after the last success began."""
    last_success_at: str | None
    open_until: str | None
    held_until: str | None
    """The receiver asked for quiet until then."""


class EndpointShown(Shape):
    id: str
    url: str
    types: list[str]
    status: EndpointState
    status_since: str | None
    """Null: from before this was noted."""
    reason: str | None
    """Why it is paused or disabled, where that was not a person's decision."""
    description: str
    schedule: list[str] | None
    timeout: str
    concurrency: int
    rate: str | None
    ordering: str | None
    filter: str | None
    payload: Literal["full", "thin"]
    asymmetric: bool
    public_key: str | None
    """`whpk_…`, which verifies `v1a`; null unless `asymmetric`."""
    former_public_keys: list[FormerPublicKey]
    former_secrets: list[FormerSecret]
    """Those that sign beside the present one."""
    headers: dict[str, str]
    """Names only; the values are hidden."""
    health: EndpointHealth
    source: Literal["api", "config"]
    created_at: str


class EndpointWithSecret(EndpointShown):
    secret: str
    """Shown this once."""


class EndpointPage(Shape):
    items: list[EndpointShown]
    next_cursor: str | None


class Probed(Exchange):
    event_id: str
    type: Literal["webhook.test"]
    delivered: bool
    """Whether this answer would end a delivery as delivered."""


class Period(Shape):
    delivered: int
    """Attempts that succeeded."""
    failed: int
    """Attempts that did not."""
    exhausted: int
    """Deliveries of which every attempt failed."""
    p50_ms: int | None
    """Of the attempts' durations; null where there were none."""
    p99_ms: int | None


class Totals(Shape):
    delivered: int
    failed: int
    exhausted: int


class StatsShown(Shape):
    endpoint: str
    pending: int
    in_flight: int
    oldest_due_ms: int | None
    """For how long the one has been due that waits longest; null where none is."""
    last_hour: Period
    last_day: Period
    total: Totals
    """Since the endpoint was created."""
    last_success_at: str | None
    last_failure_at: str | None


class EndpointQuery(Query):
    cursor: str | None = None
    limit: Limit = 50


async def create(request: web.Request) -> web.StreamResponse:
    document = await object_of(request)

    async def work() -> Answer:
        endpoint, _ = await webhooks_of(request).endpoints.create(document)
        return answer_json(endpoint.document(), status=201, headers={"Location": f"/api/webhooks/endpoints/{endpoint.id}"})

    return await once(request, document, work, complete=_with_secret(request))


async def list_endpoints(request: web.Request) -> web.StreamResponse:
    query = read_query(request, EndpointQuery)
    page = await webhooks_of(request).endpoints.list(cursor=query.cursor, limit=query.limit)
    return json_response({"items": [endpoint.document() for endpoint in page.items], "nextCursor": page.next_cursor})


async def show(request: web.Request) -> web.StreamResponse:
    return json_response((await webhooks_of(request).endpoints.get(_id(request))).document())


async def change(request: web.Request) -> web.StreamResponse:
    return json_response((await webhooks_of(request).endpoints.patch(_id(request), await object_of(request))).document())


async def delete(request: web.Request) -> web.StreamResponse:
    await webhooks_of(request).endpoints.delete(_id(request))
    return web.Response(status=204)


async def enable(request: web.Request) -> web.StreamResponse:
    return json_response((await webhooks_of(request).endpoints.enable(_id(request))).document())


async def pause(request: web.Request) -> web.StreamResponse:
    return json_response((await webhooks_of(request).endpoints.pause(_id(request))).document())


async def rotate_secret(request: web.Request) -> web.StreamResponse:
    document = await object_of(request) if request.can_read_body else {}

    async def work() -> Answer:
        endpoint, _ = await webhooks_of(request).endpoints.rotate_secret(_id(request), document)
        return answer_json(endpoint.document())

    return await once(request, document, work, complete=_with_secret(request))


async def stats(request: web.Request) -> web.StreamResponse:
    return json_response((await webhooks_of(request).stats(_id(request))).document())


async def test(request: web.Request) -> web.StreamResponse:
    async def work() -> Answer:
        return answer_json((await webhooks_of(request).probe.send(_id(request))).document())

    return await once(request, {}, work)


def _with_secret(request: web.Request) -> Callable[[Answer], Awaitable[Answer]]:
    """Adds the secret to an answer on its way out: secrets are stored encrypted, so the answer kept for a key is without."""

    async def complete(answer: Answer) -> Answer:
        document = orjson.loads(answer.body)
        endpoints = webhooks_of(request).endpoints
        secret = endpoints.keyring.secrets(await endpoints.get(document["id"]), now_ms())[0]
        return answer_json(document | {"secret": secret}, status=answer.status, headers=answer.headers)

    return complete


def _id(request: web.Request) -> str:
    return request.match_info["endpointId"]


ROUTES = (
    route(
        "POST",
        ENDPOINTS,
        create,
        "Create an endpoint",
        body=NewEndpointBody,
        status=201,
        answer=EndpointWithSecret,
        idempotent=True,
        problems=(409,),
    ),
    route("GET", ENDPOINTS, list_endpoints, "List endpoints, oldest first", query=EndpointQuery, answer=EndpointPage),
    route("GET", f"{ENDPOINTS}/{{endpointId}}", show, "Show an endpoint", answer=EndpointShown, problems=(404,)),
    route("PATCH", f"{ENDPOINTS}/{{endpointId}}", change, "Change an endpoint", body=EndpointChangesBody, answer=EndpointShown, problems=(404, 409)),
    route("DELETE", f"{ENDPOINTS}/{{endpointId}}", delete, "Delete an endpoint; its pending deliveries are skipped", status=204, problems=(404, 409)),
    route("POST", f"{ENDPOINTS}/{{endpointId}}/enable", enable, "Enable an endpoint", answer=EndpointShown, problems=(404, 409)),
    route("POST", f"{ENDPOINTS}/{{endpointId}}/pause", pause, "Hold an endpoint's deliveries", answer=EndpointShown, problems=(404,)),
    route("GET", f"{ENDPOINTS}/{{endpointId}}/stats", stats, "How an endpoint fares", answer=StatsShown, problems=(404,)),
    route(
        "POST",
        f"{ENDPOINTS}/{{endpointId}}/test",
        test,
        "Send a test event to an endpoint, and show what came of it",
        answer=Probed,
        idempotent=True,
        problems=(404, 409),
    ),
    route(
        "POST",
        f"{ENDPOINTS}/{{endpointId}}/rotate-secret",
        rotate_secret,
        "Give an endpoint another secret, and another key pair where it has one; the former ones sign beside them for a while",
        body=SecretRotationBody,
        optional=True,
        answer=EndpointWithSecret,
        idempotent=True,
        problems=(404, 409),
    ),
)
