"""The way back of a pushed job: its receiver answers over a signed link, once."""

from typing import Any

from aiohttp import web
from pydantic import Field, model_validator

from pipeline.api.fields import Body, Query, Shape
from pipeline.api.requests import json_response, read_body, read_query
from pipeline.api.routing import Access, Route
from pipeline.api.services import services_of
from pipeline.errors import Conflict, Forbidden, Gone, InvalidInput, NotFound, PermanentFailure
from pipeline.jobs.calls import now_ms
from pipeline.jobs.results import check_result


class CallbackBody(Body):
    """Either the `result`, or an `error` (with `retry: true` if another attempt may help)."""

    result: Any = None
    error: str | None = Field(None, min_length=1, max_length=2000)
    retry: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> "CallbackBody":
        if ("result" in self.model_fields_set) == (self.error is not None):
            raise ValueError("give either `result` or `error`")
        return self


class Signature(Query):
    signature: str = ""


class Accepted(Shape):
    status: str


async def answer(request: web.Request) -> web.Response:
    services = services_of(request)
    id = request.match_info["id"]
    query = read_query(request, Signature)
    if not services.links.genuine(id, query.signature):
        raise Forbidden("this link is not one of ours: its signature does not fit")
    body, _ = await read_body(request, CallbackBody)
    try:
        check_result(body.result)
    except PermanentFailure as failure:
        # Refused while the link can still be used for a result that can be kept.
        raise InvalidInput(failure.message) from failure
    answered = {"error": body.error, "retry": body.retry} if body.error is not None else {"result": body.result}
    match await services.callbacks.answer(id, answered, now_ms()):
        case "accepted":
            return json_response({"status": "accepted"})
        case "repeated":
            raise Conflict("this job was answered before; the first answer stands")
        case "late":
            raise Gone("the deadline of this callback is over")
        case "over":
            raise Gone("this attempt has ended without a callback: it was answered at once, or given up; a later attempt has a link of its own")
        case "gone":
            raise Gone("the job is gone: it was cancelled, timed out or removed")
        case _:
            raise NotFound("there is no such callback")


ROUTES = (
    Route(
        method="POST",
        path="/api/callbacks/{id}",
        handler=answer,
        summary="Answer a pushed job (signed link, once)",
        access=Access.PUBLIC,
        body=CallbackBody,
        query=Signature,
        answer=Accepted,
        problems=(403, 404, 409, 410, 422),
    ),
)
