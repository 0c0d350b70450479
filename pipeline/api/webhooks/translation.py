"""What these routes share: the package behind them, its errors in the API's own tree, who may call."""

import functools
from typing import Annotated, Any

from aiohttp import web
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

import webhooks
from pipeline.api.requests import read_json
from pipeline.api.routing import Access, Handler, Route
from pipeline.api.services import services_of
from pipeline.errors import Conflict, Fault, HooklineError, InvalidInput, NotFound
from webhooks import Webhooks
from webhooks.units import ms

ENDPOINTS = "/api/webhooks/endpoints"
DELIVERIES = "/api/webhooks/deliveries"
Limit = Annotated[int, Field(ge=1, le=200)]


def _time(text: str) -> int:
    # Not pydantic's own reading, to which `2026` is half an hour into 1970.
    try:
        return ms(text)
    except ValueError as error:
        raise PydanticCustomError("time", "must be a time with its zone, for example 2026-01-31T09:00:00Z") from error


Time = Annotated[int, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]
"""ms since the epoch; comes as ISO-8601 with a zone."""


def route(method: str, path: str, handler: Handler, summary: str, **more: Any) -> Route:
    return Route(method=method, path=path, handler=_translated(handler), summary=summary, access=Access.ADMIN, **more)


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
        case webhooks.Conflict() | webhooks.MissingKey():
            return Conflict(error.message, hint=error.hint)
    return HooklineError(error.message, hint=error.hint)


def webhooks_of(request: web.Request) -> Webhooks:
    found: Webhooks = services_of(request).webhooks
    return found


async def object_of(request: web.Request) -> dict[str, Any]:
    value = await read_json(request)
    if not isinstance(value, dict):
        raise InvalidInput("the body must be a JSON object")
    return value
