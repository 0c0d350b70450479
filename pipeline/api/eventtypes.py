"""The catalogue of event types: Hookline's own with their schemas, and those that a team registers."""

from typing import Any, Literal

from aiohttp import web
from pydantic import ConfigDict, Field

from pipeline import catalogue
from pipeline.api.fields import Body, Shape
from pipeline.api.requests import json_response, read_body
from pipeline.api.routing import Access, Route
from pipeline.api.services import services_of
from pipeline.errors import InvalidInput
from pipeline.eventtypes import MAX_DESCRIPTION, Registered, check_type
from pipeline.jobs.calls import now_ms
from pipeline.units import iso


class EventTypeBody(Body):
    """What is left out is not kept from before."""

    # A schema under a misspelt name would be no schema at all.
    model_config = ConfigDict(extra="forbid")

    description: str = Field("", max_length=MAX_DESCRIPTION)
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    """JSON Schema (2020-12) of `data`, of at most 32 KiB; without one, any object may be published."""
    example: dict[str, Any] | None = None
    """A `data` that fits the schema."""


class EventTypeShown(Shape):
    type: str
    source: Literal["hookline", "registered"]
    description: str
    schema_: dict[str, Any] | None = Field(alias="schema")
    """JSON Schema (2020-12) of the event's `data`; around it, every event is `{type, timestamp, data}`."""
    example: dict[str, Any] | None
    """A `data` that fits the schema."""
    updated_at: str | None
    """When it was registered last; null for Hookline's own."""


class EventTypeList(Shape):
    items: list[EventTypeShown]


async def list_types(request: web.Request) -> web.Response:
    registered = await services_of(request).event_types.all()
    return json_response({"items": [*map(_own, catalogue.OWN), *map(_shown, registered)]})


async def show(request: web.Request) -> web.Response:
    type = request.match_info["type"]
    if own := catalogue.BY_TYPE.get(type):
        return json_response(_own(own))
    return json_response(_shown(await services_of(request).event_types.get(type)))


async def put(request: web.Request) -> web.Response:
    body, _ = await read_body(request, EventTypeBody)
    registered, added = await services_of(request).event_types.put(
        request.match_info["type"], description=body.description, schema=body.schema_, example=body.example, now=now_ms()
    )
    return json_response(_shown(registered), status=201 if added else 200)


async def delete(request: web.Request) -> web.Response:
    type = request.match_info["type"]
    try:
        check_type(type)
    except ValueError as error:
        raise InvalidInput(f"the event type {type!r} {error}") from error
    await services_of(request).event_types.delete(type)
    return web.Response(status=204)


def _own(event: catalogue.EventType) -> dict[str, Any]:
    return {
        "type": event.type,
        "source": "hookline",
        "description": event.description,
        "schema": event.schema,
        "example": event.example,
        "updatedAt": None,
    }


def _shown(event: Registered) -> dict[str, Any]:
    return {
        "type": event.type,
        "source": "registered",
        "description": event.description,
        "schema": event.schema,
        "example": event.example,
        "updatedAt": iso(event.updated),
    }


_ONE = "/api/events/types/{type}"

ROUTES = (
    Route(
        method="GET",
        path="/api/events/types",
        handler=list_types,
        summary="List the event types, with a JSON Schema and an example of each",
        answer=EventTypeList,
    ),
    Route(method="GET", path=_ONE, handler=show, summary="Show an event type", answer=EventTypeShown, problems=(404,)),
    Route(
        method="PUT",
        path=_ONE,
        handler=put,
        summary="Register an event type of one's own, or replace it (200)",
        access=Access.ADMIN,
        body=EventTypeBody,
        status=201,
        also=(200,),
        answer=EventTypeShown,
        problems=(409,),
    ),
    Route(
        method="DELETE",
        path=_ONE,
        handler=delete,
        summary="Forget an event type of one's own",
        access=Access.ADMIN,
        status=204,
        problems=(404, 422),
    ),
)
