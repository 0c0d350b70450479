"""Workflows: list and show the declared ones, start any of them, and the original system's document upload."""

from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from pipeline.api import ownership
from pipeline.api.fields import MAX_INTEGER, Body, Filename, Id, MimeType, Query, Shape
from pipeline.api.requests import answer_json, claim_of, json_response, read_body, read_query, require_own, respond
from pipeline.api.routing import Route
from pipeline.api.runs import RunStarted
from pipeline.api.services import principal_of, services_of
from pipeline.errors import Forbidden, NotFound
from pipeline.store.idempotency import RUN, STATUS, Answer
from pipeline.workflows.definition import Definition, graph

DOCUMENT_UPLOAD = "document-upload"


class StartBody(Body):
    input: Any
    user_id: Id | None = None
    """Whose run it will be; without it, the caller's own."""


class UploadBody(Body):
    """What the original's clients send about a document that is in the storage already."""

    document_id: Id
    filename: Filename
    mime_type: MimeType
    file_size: Annotated[int, Field(ge=0, le=MAX_INTEGER)]


class StepOutline(Shape):
    id: str
    queue: str
    job: str
    needs: list[str]


class Graph(Shape):
    steps: list[StepOutline]
    edges: list[Any]


class WorkflowListed(Shape):
    name: str
    version: int
    triggers: list[str]
    """Queues whose jobs start a run."""
    steps: list[str]


class WorkflowPage(Shape):
    items: list[WorkflowListed]
    next_cursor: str | None


class WorkflowShown(WorkflowListed):
    digest: str
    """Content hash; a run is pinned to it."""
    timeout: int | None
    """ms that a run may take."""
    input: Any
    """JSON Schema of the input."""
    graph: Graph


class NoQuery(Query):
    pass


async def list_workflows(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    definitions = services_of(request).runs.definitions
    return json_response({"items": [_listed(definition) for definition in definitions.values()], "nextCursor": None})


async def show(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    definition = services_of(request).runs.definitions.get(name)
    if definition is None:
        raise NotFound(f"there is no workflow {name!r}")
    more = {"digest": definition.digest, "timeout": definition.timeout, "input": definition.input_schema, "graph": graph(definition)}
    return json_response(_listed(definition) | more)


async def start(request: web.Request) -> web.Response:
    services, principal = services_of(request), principal_of(request)
    body, sent = await read_body(request, StartBody)
    if body.user_id is not None:
        require_own(principal, body.user_id)
    await ownership.require(services, principal, body.input)
    claim, answer = claim_of(request, sent), started_answer(request.match_info["name"])
    started = await services.runs.start(request.match_info["name"], body.input, user_id=body.user_id or principal.sub, claim=claim, answer=answer)
    return respond(started.replay, replayed=True) if started.replay else respond(answer.filled(run=started.run_id, status=started.status))


async def document_upload(request: web.Request) -> web.Response:
    services, principal = services_of(request), principal_of(request)
    if principal.via == "key":
        raise Forbidden(
            "this route takes a user's token (JWT): the run belongs to its `sub`", hint="POST /api/jobs/document-processing names a userId"
        )
    body, sent = await read_body(request, UploadBody)
    data = body.stored()
    await ownership.require(services, principal, data)
    claim, answer = claim_of(request, sent), started_answer(DOCUMENT_UPLOAD)
    started = await services.runs.start(DOCUMENT_UPLOAD, data, user_id=principal.sub, claim=claim, answer=answer)
    return respond(started.replay, replayed=True) if started.replay else respond(answer.filled(run=started.run_id, status=started.status))


def started_answer(workflow: str, **more: Any) -> Answer:
    """202 with the run's place; its id and status are filled in when it starts."""
    return answer_json({"runId": RUN, "workflow": workflow, "status": STATUS, **more}, status=202, headers={"Location": f"/api/runs/{RUN}"})


def _listed(definition: Definition) -> dict[str, Any]:
    return {
        "name": definition.name,
        "version": definition.version,
        "triggers": list(definition.triggers),
        "steps": list(definition.steps),
    }


ROUTES = (
    Route(
        method="POST",
        path="/api/auth/workflow/document-upload",
        handler=document_upload,
        summary="Start the document-upload workflow for a document that is in the storage",
        body=UploadBody,
        status=202,
        answer=RunStarted,
        idempotent=True,
        problems=(403, 404, 409, 503),
    ),
    Route(method="GET", path="/api/workflows", handler=list_workflows, summary="List the declared workflows", query=NoQuery, answer=WorkflowPage),
    Route(method="GET", path="/api/workflows/{name}", handler=show, summary="Show a workflow with its graph", answer=WorkflowShown, problems=(404,)),
    Route(
        method="POST",
        path="/api/workflows/{name}/runs",
        handler=start,
        summary="Start a run",
        body=StartBody,
        status=202,
        answer=RunStarted,
        idempotent=True,
        problems=(403, 404, 409, 503),
    ),
)
