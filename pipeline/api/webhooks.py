"""Webhook endpoints and deliveries, for admins: the package `webhooks` over HTTP."""

import functools
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import orjson
from aiohttp import web
from pydantic import AwareDatetime, Field

import webhooks
from pipeline.api.fields import Body, Query, Shape
from pipeline.api.requests import answer_json, json_response, once, read_json, read_query
from pipeline.api.routing import Access, Handler, Route
from pipeline.api.services import services_of
from pipeline.errors import Conflict, Fault, HooklineError, InvalidInput, NotFound
from pipeline.jobs.calls import now_ms
from pipeline.store.idempotency import Answer
from webhooks import Webhooks

Limit = Annotated[int, Field(ge=1, le=200)]
EndpointState = Literal["enabled", "paused", "disabled"]
DeliveryState = Literal["pending", "delivered", "exhausted", "skipped"]


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


class EndpointShown(Shape):
    id: str
    url: str
    types: list[str]
    status: EndpointState
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
    headers: dict[str, str]
    """Names only; the values are hidden."""
    source: Literal["api", "config"]
    created_at: str


class EndpointWithSecret(EndpointShown):
    secret: str
    """Shown this once."""


class EndpointPage(Shape):
    items: list[EndpointShown]
    next_cursor: str | None


class DeliveryShown(Shape):
    id: str
    event_id: str
    endpoint: str
    type: str
    run_id: str | None
    status: DeliveryState
    reason: str | None
    """Why it was skipped."""
    attempt_count: int
    last_status: int | None
    """HTTP status of the last attempt."""
    next_attempt_at: str | None
    created_at: str
    finished_at: str | None


class AttemptShown(Shape):
    number: int
    at: str
    duration_ms: int | None
    status: int | None
    error: str | None
    response: str | None
    """The first 4 KiB of the answer."""
    address: str | None


class DeliveryWithAttempts(DeliveryShown):
    attempts: list[AttemptShown]


class DeliveryPage(Shape):
    items: list[DeliveryShown]
    next_cursor: str | None


class EndpointQuery(Query):
    cursor: str | None = None
    limit: Limit = 50


class DeliveryQuery(Query):
    status: DeliveryState | None = None
    endpoint: str | None = None
    type: str | None = None
    """A type, or a pattern such as `job.*`."""
    since: AwareDatetime | None = None
    """Created at or after this time (ISO-8601 with a zone)."""
    cursor: str | None = None
    limit: Limit = 50


def _translated(handler: Handler) -> Handler:
    """The package has its own errors; the API answers with those of the one tree."""

    @functools.wraps(handler)
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except webhooks.WebhookError as error:
            raise _translate(error) from error

    return handle


def _translate(error: webhooks.WebhookError) -> HooklineError:
    match error:
        case webhooks.RefusedAddress():
            return InvalidInput(error.message, faults=(Fault(path="url", message=error.message),), hint=error.hint, code=error.code)
        case webhooks.InvalidInput():
            faults = tuple(Fault(path=fault.path, message=fault.message) for fault in error.faults)
            return InvalidInput(error.message, faults=faults, hint=error.hint)
        case webhooks.NotFound():
            return NotFound(error.message, hint=error.hint)
        case webhooks.Conflict():
            return Conflict(error.message, hint=error.hint)
    return HooklineError(error.message, hint=error.hint)


def _webhooks(request: web.Request) -> Webhooks:
    found: Webhooks = services_of(request).webhooks
    return found


async def _document(request: web.Request) -> dict[str, Any]:
    value = await read_json(request)
    if not isinstance(value, dict):
        raise InvalidInput("the body must be a JSON object")
    return value


# --- endpoints --------------------------------------------------------------------------------------------------------


async def create(request: web.Request) -> web.StreamResponse:
    document = await _document(request)

    async def work() -> Answer:
        endpoint, _ = await _webhooks(request).endpoints.create(document)
        return answer_json(endpoint.document(), status=201, headers={"Location": f"/api/webhooks/endpoints/{endpoint.id}"})

    return await once(request, document, work, complete=_with_secret(request))


async def list_endpoints(request: web.Request) -> web.StreamResponse:
    query = read_query(request, EndpointQuery)
    page = await _webhooks(request).endpoints.list(cursor=query.cursor, limit=query.limit)
    return json_response({"items": [endpoint.document() for endpoint in page.items], "nextCursor": page.next_cursor})


async def show(request: web.Request) -> web.StreamResponse:
    return json_response((await _webhooks(request).endpoints.get(_id(request))).document())


async def change(request: web.Request) -> web.StreamResponse:
    return json_response((await _webhooks(request).endpoints.patch(_id(request), await _document(request))).document())


async def delete(request: web.Request) -> web.StreamResponse:
    await _webhooks(request).endpoints.delete(_id(request))
    return web.Response(status=204)


async def enable(request: web.Request) -> web.StreamResponse:
    return json_response((await _webhooks(request).endpoints.enable(_id(request))).document())


async def pause(request: web.Request) -> web.StreamResponse:
    return json_response((await _webhooks(request).endpoints.pause(_id(request))).document())


async def rotate_secret(request: web.Request) -> web.StreamResponse:
    document = await _document(request) if request.can_read_body else {}

    async def work() -> Answer:
        endpoint, _ = await _webhooks(request).endpoints.rotate_secret(_id(request), document)
        return answer_json(endpoint.document())

    return await once(request, document, work, complete=_with_secret(request))


def _with_secret(request: web.Request) -> Callable[[Answer], Awaitable[Answer]]:
    """Adds the secret to an answer on its way out: secrets are stored encrypted, so the answer kept for a key is without."""

    async def complete(answer: Answer) -> Answer:
        document = orjson.loads(answer.body)
        endpoints = _webhooks(request).endpoints
        secret = endpoints.keyring.secrets(await endpoints.get(document["id"]), now_ms())[0]
        return answer_json(document | {"secret": secret}, status=answer.status, headers=answer.headers)

    return complete


def _id(request: web.Request) -> str:
    return request.match_info["endpointId"]


# --- deliveries -------------------------------------------------------------------------------------------------------


async def list_deliveries(request: web.Request) -> web.StreamResponse:
    query = read_query(request, DeliveryQuery)
    page = await _webhooks(request).deliveries.list(
        status=query.status,
        endpoint=query.endpoint,
        type=query.type,
        since=round(query.since.timestamp() * 1000) if query.since else None,
        cursor=query.cursor,
        limit=query.limit,
    )
    return json_response({"items": [delivery.document() for delivery in page.items], "nextCursor": page.next_cursor})


async def show_delivery(request: web.Request) -> web.StreamResponse:
    return json_response(await _webhooks(request).deliveries.document(request.match_info["deliveryId"]))


async def replay(request: web.Request) -> web.StreamResponse:
    async def work() -> Answer:
        delivery = await _webhooks(request).replay.one(request.match_info["deliveryId"])
        return answer_json(delivery.document(), status=202)

    return await once(request, {}, work)


_ENDPOINTS = "/api/webhooks/endpoints"
_DELIVERIES = "/api/webhooks/deliveries"


def _route(method: str, path: str, handler: Handler, summary: str, **more: Any) -> Route:
    return Route(method=method, path=path, handler=_translated(handler), summary=summary, access=Access.ADMIN, **more)


ROUTES = (
    _route(
        "POST",
        _ENDPOINTS,
        create,
        "Create an endpoint",
        body=NewEndpointBody,
        status=201,
        answer=EndpointWithSecret,
        idempotent=True,
        problems=(409,),
    ),
    _route("GET", _ENDPOINTS, list_endpoints, "List endpoints, oldest first", query=EndpointQuery, answer=EndpointPage),
    _route("GET", f"{_ENDPOINTS}/{{endpointId}}", show, "Show an endpoint", answer=EndpointShown, problems=(404,)),
    _route(
        "PATCH", f"{_ENDPOINTS}/{{endpointId}}", change, "Change an endpoint", body=EndpointChangesBody, answer=EndpointShown, problems=(404, 409)
    ),
    _route(
        "DELETE", f"{_ENDPOINTS}/{{endpointId}}", delete, "Delete an endpoint; its pending deliveries are skipped", status=204, problems=(404, 409)
    ),
    _route("POST", f"{_ENDPOINTS}/{{endpointId}}/enable", enable, "Enable an endpoint", answer=EndpointShown, problems=(404, 409)),
    _route("POST", f"{_ENDPOINTS}/{{endpointId}}/pause", pause, "Hold an endpoint's deliveries", answer=EndpointShown, problems=(404,)),
    _route(
        "POST",
        f"{_ENDPOINTS}/{{endpointId}}/rotate-secret",
        rotate_secret,
        "Give an endpoint another secret, and another key pair where it has one; the former ones sign beside them for a while",
        body=SecretRotationBody,
        optional=True,
        answer=EndpointWithSecret,
        idempotent=True,
        problems=(404, 409),
    ),
    _route("GET", _DELIVERIES, list_deliveries, "List deliveries, newest first", query=DeliveryQuery, answer=DeliveryPage),
    _route("GET", f"{_DELIVERIES}/{{deliveryId}}", show_delivery, "Show a delivery with its attempts", answer=DeliveryWithAttempts, problems=(404,)),
    _route(
        "POST",
        f"{_DELIVERIES}/{{deliveryId}}/replay",
        replay,
        "Send a delivery again",
        status=202,
        answer=DeliveryShown,
        idempotent=True,
        problems=(404, 409),
    ),
)
