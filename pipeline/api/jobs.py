"""Jobs as the original system posts and watches them: three ways in, status, statistics."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field, StringConstraints
from redis.exceptions import ResponseError

from pipeline.api import ownership
from pipeline.api.fields import MAX_INTEGER, Body, Filename, Id, Line, MimeType, Shape, StoragePath
from pipeline.api.requests import answer_json, claim_of, json_response, read_body, require_own, respond
from pipeline.api.routing import Access, Handler, Route
from pipeline.api.services import principal_of, services_of
from pipeline.errors import InvalidInput, NotFound
from pipeline.jobs.queues import JobStatus
from pipeline.store.idempotency import JOB, RUN


class JobBody(Body):
    user_id: Id


class DocumentJob(JobBody):
    document_id: Id
    filename: Filename
    mime_type: MimeType
    file_size: Annotated[int, Field(ge=0, le=MAX_INTEGER)]
    """Bytes; 0 where it is not known."""


class NotificationJob(JobBody):
    type: Literal["email", "slack", "sms", "push"]
    subject: Annotated[Line, StringConstraints(max_length=998)]
    message: Annotated[str, StringConstraints(max_length=65_536)]
    to: Annotated[Line, StringConstraints(max_length=320)] | None = None


class ComplianceJob(JobBody):
    document_id: Id
    document_path: StoragePath
    mime_type: MimeType
    compliance_frameworks: Annotated[list[Annotated[Line, StringConstraints(min_length=1, max_length=64)]], Field(max_length=50)]


class JobCreated(Shape):
    job_id: str
    queue_name: str
    name: str
    state: str
    run_id: str | None = None
    """Where the queue triggers a workflow."""


class JobShown(Shape):
    job_id: str
    queue_name: str
    name: str
    state: str
    """BullMQ's: waiting, active, completed, failed, delayed, prioritized, waiting-children, unknown."""
    progress: Any
    attempts_made: int
    data: Any
    result: Any
    failed_reason: str | None
    timestamp: int
    """When it was added; this and the next two are BullMQ's, in ms since the epoch."""
    processed_on: int | None
    finished_on: int | None


class Counts(Shape):
    waiting: int
    active: int
    completed: int
    failed: int
    delayed: int
    prioritized: int
    paused: int
    """Jobs held by a pause."""


class QueueStats(Counts):
    queue_name: str


class AllStats(Shape):
    queues: dict[str, Counts]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One of the three ways in."""

    queue: str
    name: str
    body: type[JobBody]
    summary: str


KINDS = (
    Kind(queue="document-processing", name="process-document", body=DocumentJob, summary="Process a document that is in the storage"),
    Kind(queue="notifications", name="send-notification", body=NotificationJob, summary="Send a notification"),
    Kind(queue="compliance-analysis", name="analyze-compliance", body=ComplianceJob, summary="Check a document against compliance frameworks"),
)


def _post(kind: Kind) -> Handler:
    created = {"jobId": JOB, "queueName": kind.queue, "name": kind.name, "state": "waiting"}
    location = {"Location": f"/api/jobs/status/{kind.queue}/{JOB}"}
    plain = answer_json(created, status=201, headers=location)
    triggering = answer_json(created | {"runId": RUN}, status=201, headers=location)

    async def handle(request: web.Request) -> web.Response:
        services, principal = services_of(request), principal_of(request)
        body, sent = await read_body(request, kind.body)
        require_own(principal, body.user_id)
        data = body.stored()
        claim = claim_of(request, sent)
        workflow = services.runs.trigger_for(kind.queue)
        if workflow is None:
            # Asked in the script that adds: an erasure that begins meanwhile finds the job, or keeps it out.
            documents, user = ownership.named(principal, data), principal.sub if principal.role == "user" else None
            added = await services.queues.add(kind.queue, kind.name, data, claim=claim, answer=plain, documents=documents, user=user)
            return respond(added.replay, replayed=True) if added.replay else respond(plain.filled(job=added.job_id))
        await ownership.require(services, principal, data)
        started = await services.runs.start(workflow.name, data, user_id=body.user_id, trigger=kind.queue, claim=claim, answer=triggering)
        return respond(started.replay, replayed=True) if started.replay else respond(triggering.filled(job=started.job_id, run=started.run_id))

    return handle


async def refuse_other(request: web.Request) -> web.Response:
    """A POST to a queue that has no body of its own here."""
    queue = request.match_info["queueName"]
    require_queue(services_of(request).queues.names, queue)
    raise NotFound(f"jobs are not posted to queue {queue!r} directly; start a workflow that uses it: POST /api/workflows/{{name}}/runs")


async def status(request: web.Request) -> web.Response:
    services = services_of(request)
    queue, job_id = request.match_info["queueName"], request.match_info["jobId"]
    require_queue(services.queues.names, queue)
    job = await _find(request, queue, job_id)
    if job is None or not _visible(request, job):
        raise NotFound(f"there is no job {job_id!r} in queue {queue!r}")
    shown = JobShown(
        job_id=job.job_id,
        queue_name=job.queue,
        name=job.name,
        state=job.state,
        progress=job.progress,
        attempts_made=job.attempts_made,
        data=job.data,
        result=job.result,
        failed_reason=job.failed_reason,
        timestamp=job.timestamp,
        processed_on=job.processed_on,
        finished_on=job.finished_on,
    )
    return json_response(shown.model_dump(by_alias=True))


async def stats(request: web.Request) -> web.Response:
    services = services_of(request)
    queue = request.match_info["queueName"]
    require_queue(services.queues.names, queue)
    return json_response({"queueName": queue, **await services.queues.counts(queue)})


async def all_stats(request: web.Request) -> web.Response:
    return json_response({"queues": await services_of(request).queues.all_counts()})


def require_queue(names: tuple[str, ...], queue: str) -> None:
    """Raises InvalidInput (unknown-queue, answered as 404) for a queue that is not configured."""
    if queue not in names:
        raise InvalidInput(f"there is no queue {queue!r}", hint=f"known queues: {', '.join(names)}", code="unknown-queue")


async def _find(request: web.Request, queue: str, job_id: str) -> JobStatus | None:
    try:
        return await services_of(request).queues.job(queue, job_id)
    except ResponseError as error:
        # Beside a queue's jobs lie its lists and sets: `wait` is no job, though there is a key of that name.
        if str(error).startswith("WRONGTYPE"):
            return None
        raise


def _visible(request: web.Request, job: JobStatus) -> bool:
    """Whether the job belongs to the caller: by the run whose step it does, or else by its data's userId."""
    named = job.data.get("userId") if isinstance(job.data, dict) else None
    return principal_of(request).owns(job.origin.user if job.origin else named)


ROUTES = (
    *(
        Route(
            method="POST",
            path=f"/api/jobs/{kind.queue}",
            handler=_post(kind),
            summary=kind.summary,
            access=Access.JOBS,
            body=kind.body,
            status=201,
            answer=JobCreated,
            idempotent=True,
            problems=(403, 409, 503),
        )
        for kind in KINDS
    ),
    # `stats` is a route of its own, where a POST is the wrong method and not an unknown queue.
    Route(
        method="POST",
        path="/api/jobs/{queueName:(?!stats$)[^/]+}",
        handler=refuse_other,
        summary="Any other queue: refused",
        status=404,
        listed=False,
    ),
    Route(
        method="GET",
        path="/api/jobs/status/{queueName}/{jobId}",
        handler=status,
        summary="Show a job",
        access=Access.JOBS,
        answer=JobShown,
        problems=(404,),
    ),
    Route(
        method="GET",
        path="/api/jobs/stats/{queueName}",
        handler=stats,
        summary="Count one queue's jobs by state",
        access=Access.JOBS,
        answer=QueueStats,
        problems=(404,),
    ),
    Route(
        method="GET",
        path="/api/jobs/stats",
        handler=all_stats,
        summary="Count every queue's jobs by state",
        access=Access.ADMIN,
        answer=AllStats,
    ),
)
