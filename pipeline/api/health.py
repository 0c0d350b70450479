"""Whether the process lives, and whether it is ready: which part is behind and by how long."""

import asyncio
from typing import Any, Literal

import structlog
from aiohttp import web

from pipeline.api import problems
from pipeline.api.fields import Shape
from pipeline.api.requests import json_response
from pipeline.api.routing import Access, Route
from pipeline.api.services import services_of
from pipeline.errors import HooklineError

TIMEOUT_SECONDS = 5.0
"""A probe's own patience is about this long; a store that hangs must not hang the probe."""

_log = structlog.get_logger()


class Live(Shape):
    status: Literal["live"]


class Ready(Shape):
    ok: bool
    parts: dict[str, Any]
    """Part → `{ok, …}`, with `behindMs` where it can be behind."""


async def live(request: web.Request) -> web.Response:
    return json_response({"status": "live"})


async def ready(request: web.Request) -> web.Response:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            found = await services_of(request).ready()
    except (*problems.STORE_AWAY, TimeoutError) as error:
        _log.warning("not ready", error=repr(error))
        found = _without_store("the store does not answer")
    except HooklineError as error:
        _log.error("not ready", error=str(error))
        found = _without_store("the store cannot be used as it is configured; the log says why")
    return json_response(found, status=200 if found["ok"] else 503)


def _without_store(detail: str) -> dict[str, Any]:
    return {"ok": False, "parts": {"store": {"ok": False, "detail": detail}}}


ROUTES = (
    Route(method="GET", path="/health/live", handler=live, summary="Whether the process answers", access=Access.PUBLIC, answer=Live),
    Route(
        method="GET",
        path="/health/ready",
        handler=ready,
        summary="Whether every part keeps up (503: which one does not)",
        access=Access.PUBLIC,
        answer=Ready,
        also=(503,),
    ),
)
