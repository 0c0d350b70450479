"""Every error as RFC 9457 `application/problem+json`: the one place that maps errors to HTTP statuses."""

import math
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as StoreTimeoutError

from pipeline.api.services import REQUEST_ID
from pipeline.errors import (
    Conflict,
    Forbidden,
    Gone,
    HooklineError,
    InFlight,
    InvalidInput,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

CONTENT_TYPE = "application/problem+json"
TYPE = "urn:hookline:problem:"
"""With the error's code: the stable `type` that clients may branch on."""
INSTANCE = "urn:hookline:request:"
"""With the request's id, which the log carries too."""

STORE_AWAY = (StoreConnectionError, StoreTimeoutError, OutOfMemoryError, ReadOnlyError)
"""What the store raises when it cannot serve anybody for the moment, whatever was asked."""

# The first class that fits decides, so a class stands before the one it derives from.
_STATUS: tuple[tuple[type[HooklineError], int], ...] = (
    (TooLarge, 413),
    (Unsupported, 415),
    (InvalidInput, 422),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (Gone, 410),
    (NotFound, 404),
    (Conflict, 409),
    (Unavailable, 503),
)
_STATUS_BY_CODE = {"invalid-json": 400, "invalid-header": 400, "invalid-multipart": 400, "unknown-queue": 404}

TITLES = {
    "invalid-input": "The request does not fit",
    "invalid-json": "The body is not JSON",
    "invalid-header": "A header cannot be used",
    "invalid-multipart": "The multipart body cannot be read",
    "unknown-queue": "There is no such queue",
    "refused-address": "The address may not be dialled",
    "too-large": "The body is too large",
    "unsupported-media-type": "The media type is not supported",
    "unauthenticated": "Sign in first",
    "forbidden": "Not allowed",
    "not-found": "Not found",
    "gone": "No longer kept",
    "conflict": "The present state does not allow it",
    "in-flight": "The same request is being answered",
    "unavailable": "Try again later",
    "method-not-allowed": "Method not allowed",
    "request-timeout": "The body took too long",
    "expectation-failed": "The expectation cannot be met",
    "bad-request": "The request cannot be read",
    "internal": "Something went wrong on our side",
}
_HTTP_CODES = {404: "not-found", 405: "method-not-allowed", 408: "request-timeout", 413: "too-large", 417: "expectation-failed"}


def status_of(error: HooklineError) -> int:
    """The HTTP status for an error of the tree; 500 for what no caller can do anything about."""
    if isinstance(error, InvalidInput) and error.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[error.code]
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def of_error(request: web.Request, error: HooklineError) -> web.Response:
    """The answer to a request that ended in an error which Hookline raised on purpose."""
    status = status_of(error)
    if status == 500:
        return of_unexpected(request)
    members: dict[str, Any] = {}
    if isinstance(error, InvalidInput) and error.faults:
        members["errors"] = [{"path": fault.path, "message": fault.message} for fault in error.faults]
    if isinstance(error, Gone):
        members["earliest"] = error.earliest
    headers = {}
    if isinstance(error, InFlight | Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer" if "Authorization" not in request.headers else 'Bearer error="invalid_token"'
    return _problem(request, status, error.code, error.message, hint=error.hint, headers=headers, members=members)


def of_http(request: web.Request, error: web.HTTPException, *, limit: int) -> web.Response:
    """The answer to a request that aiohttp itself turned down: no such route, wrong method, body over `limit` bytes."""
    code = _HTTP_CODES.get(error.status, "bad-request")
    detail, headers = error.reason, {}
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail, headers = f"{request.method} is not allowed here; allowed: {allowed}", {"Allow": allowed}
    elif error.status == 404:
        detail = "there is no such route; /openapi.json lists them all"
    elif error.status == 413:
        detail = f"the body has more than {limit} bytes"
    return _problem(request, error.status, code, detail, headers=headers)


def of_store(request: web.Request) -> web.Response:
    return of_error(request, Unavailable("the store does not answer", retry_after=1.0))


def of_unexpected(request: web.Request) -> web.Response:
    """Says nothing of the exception; the instance's id is in the log beside it."""
    return _problem(request, 500, "internal", "an unexpected error; the log has it under this instance's id")


def bad_request(request: web.Request, detail: str) -> web.Response:
    return _problem(request, 400, "bad-request", detail)


def _problem(
    request: web.Request,
    status: int,
    code: str,
    detail: str,
    *,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> web.Response:
    # What is quoted of a header may be bytes that are no text.
    detail = detail.encode(errors="backslashreplace").decode()
    document: dict[str, Any] = {"type": TYPE + code, "title": TITLES.get(code, code), "status": status, "detail": detail}
    document["instance"] = INSTANCE + request.get(REQUEST_ID, "unknown")
    if hint:
        document["hint"] = hint
    document |= members or {}
    return web.Response(status=status, body=orjson.dumps(document), content_type=CONTENT_TYPE, headers=headers)
