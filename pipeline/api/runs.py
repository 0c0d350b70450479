"""Runs: list, show, timeline, cancel, retry; a user sees its own."""

from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field

from pipeline.api import ownership
from pipeline.api.fields import Query, Shape
from pipeline.api.requests import answer_json, json_response, once, read_query
from pipeline.api.routing import Route
from pipeline.api.services import principal_of, services_of
from pipeline.errors import NotFound
from pipeline.store.idempotency import Answer

RunState = Literal["pending", "running", "waiting", "completed", "failed", "cancelled"]
StepState = Literal["pending", "running", "waiting", "completed", "failed", "cancelled", "skipped", "blocked"]
Limit = Annotated[int, Field(ge=1, le=200)]


class StepShown(Shape):
    status: StepState
    job_id: str | None
    attempts: int
    progress: Any
    result: Any
    error: str | None
    reason: str | None
    started_at: str | None
    finished_at: str | None


class RunShown(Shape):
    run_id: str
    workflow: str
    version: int
    status: RunState
    user_id: str | None
    input: Any
    steps: dict[str, StepShown]
    output: Any
    error: str | None
    created_at: str
    finished_at: str | None


class RunPage(Shape):
    items: list[RunShown]
    next_cursor: str | None


class RunStarted(Shape):
    run_id: str
    workflow: str
    status: RunState


class EventShown(Shape):
    id: str
    type: str
    timestamp: str
    data: dict[str, Any]


class Timeline(Shape):
    items: list[EventShown]
    next_cursor: str | None


class RunQuery(Query):
    status: RunState | None = None
    workflow: str | None = None
    user_id: str | None = None
    """For admins and services; a user always sees its own."""
    cursor: str | None = None
    limit: Limit = 50


class PageQuery(Query):
    cursor: str | None = None
    limit: Limit = 200


async def list_runs(request: web.Request) -> web.Response:
    query, principal = read_query(request, RunQuery), principal_of(request)
    user_id = principal.sub if principal.role == "user" else query.user_id
    if query.user_id is not None and query.user_id != user_id:
        return json_response({"items": [], "nextCursor": None})
    page = await services_of(request).runs.list(status=query.status, workflow=query.workflow, user_id=user_id, cursor=query.cursor, limit=query.limit)
    return json_response({"items": page.items, "nextCursor": page.next_cursor})


async def show(request: web.Request) -> web.Response:
    return json_response(await _own(request))


async def timeline(request: web.Request) -> web.Response:
    query = read_query(request, PageQuery)
    run = await _own(request)
    page = await services_of(request).runs.timeline(run["runId"], cursor=query.cursor, limit=query.limit)
    return json_response({"items": page.items, "nextCursor": page.next_cursor})


async def cancel(request: web.Request) -> web.Response:
    run = await _own(request)

    async def work() -> Answer:
        return answer_json(await services_of(request).runs.cancel(run["runId"], by=principal_of(request).sub))

    return await once(request, {}, work)


async def retry(request: web.Request) -> web.Response:
    run = await _own(request)
    # Since the run was started, somebody else may have uploaded a document under the id that it names.
    await ownership.require(services_of(request), principal_of(request), run["input"])

    async def work() -> Answer:
        view = await services_of(request).runs.retry(run["runId"], by=principal_of(request).sub)
        return answer_json(view, status=202, headers={"Location": f"/api/runs/{run['runId']}"})

    return await once(request, {}, work)


async def _own(request: web.Request) -> dict[str, Any]:
    """The run that the path names. Raises NotFound, also for another user's."""
    run_id = request.match_info["runId"]
    # Beside a run lies its timeline, under the run's key and a colon.
    view = None if ":" in run_id else await services_of(request).runs.view(run_id)
    if view is None or not principal_of(request).owns(view["userId"]):
        raise NotFound(f"there is no run {run_id!r}")
    return view


ROUTES = (
    Route(method="GET", path="/api/runs", handler=list_runs, summary="List runs, newest first", query=RunQuery, answer=RunPage),
    Route(method="GET", path="/api/runs/{runId}", handler=show, summary="Show a run", answer=RunShown, problems=(404,)),
    Route(
        method="GET",
        path="/api/runs/{runId}/events",
        handler=timeline,
        summary="What happened to a run, oldest first",
        query=PageQuery,
        answer=Timeline,
        problems=(404,),
    ),
    Route(
        method="POST",
        path="/api/runs/{runId}/cancel",
        handler=cancel,
        summary="Cancel a run",
        answer=RunShown,
        idempotent=True,
        problems=(404, 409),
    ),
    Route(
        method="POST",
        path="/api/runs/{runId}/retry",
        handler=retry,
        summary="Run the failed steps, and what they blocked, again",
        status=202,
        answer=RunShown,
        idempotent=True,
        problems=(404, 409),
    ),
)
