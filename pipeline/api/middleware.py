"""What happens around every handler: an id, a log line, errors as problems, and who is calling."""

import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from pipeline.api import problems
from pipeline.api.routing import Access, Route
from pipeline.api.services import PRINCIPAL, REQUEST_ID, services_of
from pipeline.auth import ANONYMOUS, Principal
from pipeline.errors import Forbidden, HooklineError
from pipeline.logs import info_soon

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ROUTES = web.AppKey("routes", dict[web.AbstractRoute, Route])

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_OWN_IDS, _numbers = secrets.token_hex(4), itertools.count(secrets.randbits(24))
"""Ids of requests that bring none: this process's, and a number."""
_log = structlog.get_logger()


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives the request its id (the caller's `X-Request-Id`, if that is one), turns whatever is raised into a problem document, and
    writes one line when it is answered.
    """
    request_id = _identify(request)
    began = time.perf_counter()
    status = 499  # the caller went away before there was an answer
    # Not taken back: a connection's task serves one request after the other, and each binds its own.
    structlog.contextvars.bind_contextvars(requestId=request_id)
    try:
        try:
            response = await _admitted(request, handler)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            response = problems.of_http(request, error, limit=services_of(request).config.server.body_limit)
        except Exception as error:
            response = _problem(request, error)
        status = response.status
        return response
    finally:
        principal = request.get(PRINCIPAL)
        # The path alone: a query string may hold what does not belong into a log.
        row = {
            "method": request.method,
            "path": request.path,
            "status": status,
            "ms": round((time.perf_counter() - began) * 10_000) / 10,
            "sub": principal.sub if principal else None,
        }
        info_soon("request", row)


def _problem(request: web.Request, error: Exception) -> web.Response:
    match error:
        case HooklineError():
            if problems.status_of(error) == 500:
                _log.exception("an error that no caller can do anything about")
            return problems.of_error(request, error)
        case _ if isinstance(error, problems.STORE_AWAY):
            _log.warning("the store did not serve a request", error=repr(error))
            return problems.of_store(request)
        case web.RequestPayloadError() | HttpProcessingError():
            return problems.bad_request(request, "the body is not what its headers say (Content-Length, Content-Encoding or Transfer-Encoding)")
    _log.exception("unexpected error")
    return problems.of_unexpected(request)


async def _admitted(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's answer to whom the route's `access` admits; routes that do not exist answer for themselves."""
    match_info = request.match_info
    route = match_info.current_app[ROUTES].get(match_info.route)
    if route is not None and route.access is not Access.PUBLIC:
        request[PRINCIPAL] = principal = await _principal(request, route.access)
        _require(principal, route.access)
    return await handler(request)


async def _principal(request: web.Request, access: Access) -> Principal:
    services = services_of(request)
    authorization = request.headers.get(hdrs.AUTHORIZATION)
    if authorization is None and access is Access.JOBS and services.config.auth.anonymous_jobs:
        return ANONYMOUS
    return await services.authenticator.authenticate(authorization)


def _require(principal: Principal, access: Access) -> None:
    if access is Access.ADMIN and principal.role != "admin":
        raise Forbidden(f"this takes the role admin; the token's is {principal.role}")
    if access is Access.SERVICE and principal.role == "user":
        raise Forbidden("this takes the role service or admin; the token's is user")


async def expect(request: web.Request) -> web.StreamResponse | None:
    """`Expect: 100-continue` is granted; aiohttp asks this outside of the middlewares, hence the answer instead of an error."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        _identify(request)
        return problems.of_http(request, web.HTTPExpectationFailed(reason="only 100-continue can be expected"), limit=0)
    if request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
    return None


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer, streams included."""
    if REQUEST_ID in request:
        response.headers["X-Request-Id"] = request[REQUEST_ID]
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")


def _identify(request: web.Request) -> str:
    sent = request.headers.get("X-Request-Id")
    found = sent if sent and _REQUEST_ID.fullmatch(sent) else f"{_OWN_IDS}{next(_numbers):08x}"
    request[REQUEST_ID] = found
    return found
