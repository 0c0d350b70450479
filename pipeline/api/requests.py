"""Reading a request: its JSON body, its query, its `Idempotency-Key`; and answering it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

import orjson
from aiohttp import hdrs, web
from pydantic import BaseModel, ValidationError

from pipeline.api.services import principal_of, services_of
from pipeline.auth import Principal
from pipeline.errors import Fault, Forbidden, InvalidInput, TooLarge, Unsupported
from pipeline.store.idempotency import Answer, Claim, Idempotency, check_key, fingerprint

Model = TypeVar("Model", bound=BaseModel)

DEPTH = 100
"""Levels of nesting that a body may have: parsers further on (the store's included) have limits of their own."""
BODY_SECONDS = 30.0
"""Within which a JSON body must be there: what drips holds a connection, and memory, for as long as it likes."""
_JSON_TYPES = ("", "application/octet-stream", "application/json")
"""Go's and other clients' habits: a missing or odd type with a JSON body is taken for JSON."""


async def read_json(request: web.Request) -> Any:
    """The body as JSON.

    Raises Unsupported for another media type or a compressed body, TooLarge above `server.body_limit`, InvalidInput for what is not JSON.
    """
    kind = request.headers.get(hdrs.CONTENT_TYPE, "")
    if kind not in _JSON_TYPES:
        kind = kind.partition(";")[0].strip().lower()
    if kind not in _JSON_TYPES and not kind.endswith("+json"):
        raise Unsupported(f"the body's type is {kind}; this route takes application/json", hint="send Content-Type: application/json")
    refuse_compressed(request)
    raw = await read_limited(request, services_of(request).config.server.body_limit)
    if not raw.strip():
        raise InvalidInput("the body is empty; this route takes a JSON object", code="invalid-json")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}", code="invalid-json") from error
    if raw.count(b"[") + raw.count(b"{") > DEPTH and _depth_exceeds(value, DEPTH):
        raise InvalidInput(f"the body is nested more than {DEPTH} levels deep")
    return value


def refuse_compressed(request: web.Request) -> None:
    """Raises Unsupported."""
    coding = request.headers.get(hdrs.CONTENT_ENCODING)
    if coding is not None and coding.strip().lower() != "identity":
        raise Unsupported(f"the body is compressed ({coding}), which this service does not take", hint="send it as it is, without Content-Encoding")


async def read_limited(request: web.Request, limit: int) -> bytes:
    """The raw body. Raises TooLarge above `limit` bytes, before reading it where its length is declared, and 408 for one that drips."""
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    if request.content.is_eof():
        # It came with the headers, as small ones do: there is nothing to wait for.
        body = request.content.read_nowait()
        if len(body) > limit:
            raise too_large(limit)
        return body
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise too_large(limit) from error
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(reason=f"the body did not end within {BODY_SECONDS:g} s") from error


def too_large(limit: int, what: str = "body") -> TooLarge:
    return TooLarge(f"the {what} has more than {limit} bytes")


def parse(model: type[Model], value: object, *, what: str = "the body", at: str = "") -> Model:
    """`value` as the model. Raises InvalidInput that names every field which does not fit."""
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} must be a JSON object")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        _refuse(error, what, at)


async def read_body(request: web.Request, model: type[Model]) -> tuple[Model, Any]:
    """The body as the model, and as it was sent (for the idempotency fingerprint)."""
    value = await read_json(request)
    return parse(model, value), value


def read_query(request: web.Request, model: type[Model]) -> Model:
    """The query string as the model; of a parameter given twice, the values are joined by commas."""
    values = {name: ",".join(request.query.getall(name)) for name in request.query}
    return parse(model, values, what="the query")


def _refuse(error: ValidationError, what: str, at: str) -> NoReturn:
    faults = tuple(
        Fault(path=_path(at, detail["loc"]), message=_message(detail["type"], detail["msg"])) for detail in error.errors(include_input=False)
    )
    names = ", ".join(dict.fromkeys(fault.path or "all of it" for fault in faults))
    raise InvalidInput(f"{what} does not fit: {names}", faults=faults)


def _path(at: str, loc: tuple[int | str, ...]) -> str:
    return ".".join(part for part in (at, *map(str, loc)) if part)


def _message(kind: str, message: str) -> str:
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a parameter of this route"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "must be an object"
    return message.replace("Input should be", "must be").replace("String should", "must").replace("Value error, ", "").replace("List should", "must")


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        children = (child for parent in level for child in (parent.values() if isinstance(parent, dict) else parent))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return True


# --- whose ------------------------------------------------------------------------------------------------------------


def require_own(principal: Principal, user_id: str, *, field: str = "userId") -> None:
    """Raises Forbidden if a user names somebody else in a body."""
    if not principal.owns(user_id):
        raise Forbidden(f"{field} is not the token's `sub`", hint="a user starts work for itself; acting for others takes the role service or admin")


# --- once -------------------------------------------------------------------------------------------------------------


def claim_of(request: web.Request, *parts: object) -> Claim | None:
    """The claim that an `Idempotency-Key` makes, per principal and route; None without that header.

    `parts` are what must be the same next time: JSON, or hashes. Raises InvalidInput for a key that cannot be one.
    """
    sent = request.headers.get("Idempotency-Key")
    if sent is None:
        return None
    key = check_key(sent)
    who, where = quote(principal_of(request).id, safe=""), quote(f"{request.method} {request.path}", safe="")
    mark = fingerprint(*(part if isinstance(part, bytes | str) else orjson.dumps(part, option=orjson.OPT_SORT_KEYS) for part in parts))
    return Claim(key=services_of(request).keys.idempotency(who, where, quote(key, safe="")), fingerprint=mark)


async def once(
    request: web.Request, body: object, work: Callable[[], Awaitable[Answer]], *, complete: Callable[[Answer], Awaitable[Answer]] | None = None
) -> web.Response:
    """The answer of `work`, which is done once per `Idempotency-Key`; without that header, each time.

    `complete` adds, first and later times, what must not be kept.
    """
    finish = complete or _as_it_is
    claim = claim_of(request, body)
    if claim is None:
        return respond(await finish(await work()))
    records = Idempotency(services_of(request).redis)
    held = await records.begin(claim)
    if isinstance(held, Answer):
        return respond(await finish(held), replayed=True)
    try:
        answer = await work()
    except BaseException:
        await records.abandon(held)
        raise
    await records.finish(held, answer)
    return respond(await finish(answer))


async def _as_it_is(answer: Answer) -> Answer:
    return answer


def answer_json(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status=status, headers=headers or {}, body=orjson.dumps(value).decode())


def respond(answer: Answer, *, replayed: bool = False) -> web.Response:
    """An answer as HTTP; a replayed one says so in `Idempotent-Replayed`."""
    headers = answer.headers | {"Idempotent-Replayed": "true"} if replayed else answer.headers
    if answer.status == 204:
        return web.Response(status=204, headers=headers)
    return web.Response(status=answer.status, body=answer.body.encode(), headers={**headers, hdrs.CONTENT_TYPE: "application/json; charset=utf-8"})


def json_response(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")
