"""The OpenAPI 3.1 document, made from the route table and the models that the handlers themselves use."""

import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from pipeline.api.fields import Shape
from pipeline.api.problems import CONTENT_TYPE, TITLES
from pipeline.api.requests import json_response
from pipeline.api.routing import Access, Route

DOCUMENT = web.AppKey("openapi", dict[str, Any])
_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)[^}]*\}")


class FaultShown(Shape):
    path: str
    """Where, as a dotted path; empty for the whole."""
    message: str


class Problem(Shape):
    """RFC 9457."""

    type: str
    """`urn:hookline:problem:<code>`, stable."""
    title: str
    status: int
    detail: str
    instance: str
    """`urn:hookline:request:<id>`: the id is in the log and in the answer's X-Request-Id."""
    hint: str | None = None
    errors: list[FaultShown] | None = None
    earliest: str | None = None
    """Of a 410: the earliest cursor that is kept."""


async def serve(request: web.Request) -> web.Response:
    return json_response(request.app[DOCUMENT])


def document(routes: Sequence[Route]) -> dict[str, Any]:
    listed = [route for route in routes if route.listed]
    inputs: set[type[BaseModel]] = {model for route in listed for model in (route.body, route.multipart) if model}
    outputs: set[type[BaseModel]] = {Problem, *(route.answer for route in listed if route.answer)}
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in inputs]
    wanted += [(model, "serialization") for model in outputs]
    _, schemas = models_json_schema(sorted(wanted, key=lambda pair: pair[0].__name__), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hookline",
            "version": importlib.metadata.version("hookline"),
            "description": "Event-driven webhook pipelines. Times are ISO-8601 UTC with milliseconds, unless a field says otherwise.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "A JWT, or a service API key (hk_…)"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [_tag(route.path)],
        "security": [] if route.access is Access.PUBLIC else [{"bearer": []}],
        "parameters": _parameters(route),
        "responses": _responses(route),
    }
    if route.access is Access.JOBS:
        operation["security"] = [{"bearer": []}, {}]
        operation["description"] = "With `auth.anonymous_jobs`, open without a token."
    if route.access in (Access.ADMIN, Access.SERVICE):
        operation["description"] = "Takes the role admin." if route.access is Access.ADMIN else "Takes the role service or admin."
    if route.body:
        one = _reference(route.body)
        schema = {"oneOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": route.many}]} if route.many else one
        operation["requestBody"] = {"required": not route.optional, "content": {"application/json": {"schema": schema}}}
    if route.multipart:
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _reference(route.multipart)}}}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _PARAMETER.findall(route.path)
    ]
    if route.query:
        schema = route.query.model_json_schema(ref_template=_REF)
        found += [
            {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": field}
            for name, field in schema.get("properties", {}).items()
        ]
    if route.idempotent:
        text = "Any printable text of 1 to 255 characters: the same key and body get the first answer again, for 24 h."
        found.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": text,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        )
    return found


def _responses(route: Route) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": route.summary}
    if route.answer:
        answer["content"] = {route.media: {"schema": _reference(route.answer)}}
    elif route.status != 204:
        answer["content"] = {route.media: {"schema": {"type": "string"} if route.media != "application/json" else {}}}
    problems = set(route.problems) | {500}
    if route.access is not Access.PUBLIC:
        problems |= {401}
    if route.access in (Access.ADMIN, Access.SERVICE):
        problems |= {403}
    if route.body or route.multipart:
        problems |= {400, 413, 415, 422}
    if route.query:
        problems |= {422}
    if route.idempotent:
        problems |= {400, 409}
    problem = {CONTENT_TYPE: {"schema": _reference(Problem)}}
    answers = {str(status): answer for status in (route.status, *route.also)}
    return answers | {str(status): {"description": _DESCRIPTIONS[status], "content": problem} for status in sorted(problems)}


_DESCRIPTIONS = {
    400: TITLES["bad-request"],
    401: TITLES["unauthenticated"],
    403: TITLES["forbidden"],
    404: TITLES["not-found"],
    409: TITLES["conflict"],
    410: TITLES["gone"],
    413: TITLES["too-large"],
    415: TITLES["unsupported-media-type"],
    422: TITLES["invalid-input"],
    500: TITLES["internal"],
    503: TITLES["unavailable"],
}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _operation_id(route: Route) -> str:
    words = [word for word in re.split(r"[^A-Za-z0-9]+", _PARAMETER.sub(r"by \1", route.path)) if word and word != "api"]
    return route.method.lower() + "".join(word[0].upper() + word[1:] for word in words)


def _tag(path: str) -> str:
    parts = path.strip("/").split("/")
    return parts[1] if parts[0] == "api" and len(parts) > 1 else parts[0]


ROUTES = (Route(method="GET", path="/openapi.json", handler=serve, summary="This document", access=Access.PUBLIC),)
