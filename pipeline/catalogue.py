"""The catalogue of Hookline's own event types: what each tells, a JSON Schema of its `data`, and an example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"
RESERVED = ("job.", "workflow.", "queue.", "endpoint.", "delivery.", "document.", "webhook.")
"""How Hookline's own types begin; no other may."""
TIMESTAMP = "2026-01-31T09:30:00.000Z"
"""Of every example."""

_TEXT: dict[str, Any] = {"type": "string"}
_TEXT_OR_NULL: dict[str, Any] = {"type": ["string", "null"]}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_STEPS = ("pending", "running", "waiting", "completed", "failed", "cancelled", "skipped", "blocked")


def _said(schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {**schema, "description": description}


_FIELDS: dict[str, dict[str, Any]] = {
    "queue": _said(_TEXT, "The queue of the job."),
    "job": _said(_TEXT, "The job's name, which says which of the queue's processors does it."),
    "jobId": _said(_TEXT, "The job's id within its queue."),
    "runId": _said(_TEXT, "The run; a job that was posted by itself has none."),
    "workflow": _said(_TEXT, "The name of the run's workflow."),
    "version": _said(_COUNT, "The version of the workflow's definition."),
    "step": _said(_TEXT, "The step of the workflow."),
    "n": _said(_COUNT, "1 for the first execution of the step, +1 with each retry of the run."),
    "documentId": _said(_TEXT, "The document that it is about."),
    "userId": _said(_TEXT_OR_NULL, "Whose job or run it is."),
    "attempts": _said(_COUNT, "Attempts made."),
    "startedAt": _said(_COUNT, "When the last attempt began, ms since 1970."),
    "finishedAt": _said(_COUNT, "When the last attempt ended, ms since 1970."),
    "durationMs": _said(_COUNT, "How long it took."),
    "result": {"description": "What the processor returned: any JSON."},
    "progress": {"description": "What the processor reported: a percentage, or any JSON."},
    "output": {"description": "The run's output, as its workflow makes it: any JSON."},
    "error": _said(_TEXT, "Why it failed."),
    "reason": _said(_TEXT, "Why it came to this."),
    "deadline": _said({"type": "string", "format": "date-time"}, "When the callback must have come."),
    "steps": {"type": "object", "additionalProperties": {"enum": list(_STEPS)}, "description": "The state of every step."},
    "by": _said(_TEXT, "Who asked for it."),
    "runs": _said(_COUNT, "How many runs of the document there were."),
    "endpoint": _said(_TEXT, "The webhook endpoint."),
    "delivery": _said(_TEXT, "The delivery."),
    "eventId": _said(_TEXT, "The event that was delivered, or was to be."),
    "eventType": _said(_TEXT, "Its type."),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EventType:
    """A type of event as a subscriber should know it."""

    type: str
    description: str
    schema: Mapping[str, Any]
    """JSON Schema (2020-12) of its `data`."""
    example: Mapping[str, Any]
    """A `data` that fits the schema."""

    def body(self) -> dict[str, Any]:
        """The example as a subscriber receives it."""
        return {"type": self.type, "timestamp": TIMESTAMP, "data": dict(self.example)}


def _type(
    type: str,
    description: str,
    example: Mapping[str, Any],
    *,
    always: Sequence[str],
    often: Sequence[str] = (),
    **own: Mapping[str, Any],
) -> EventType:
    """`always` and `often` name fields of the table; `own` are fields that this type always has in its own way."""
    properties = {name: _FIELDS[name] for name in (*always, *often)} | own
    # More may come with a later version: receivers that refuse what they do not know would break.
    schema = {"$schema": DIALECT, "type": "object", "properties": properties, "required": [*always, *own]}
    return EventType(type=type, description=description, schema=schema, example=example)


def _is(status: str) -> dict[str, Any]:
    return {"const": status}


_JOB = ("queue", "job", "jobId")
_OF_A_RUN = ("runId", "workflow", "step", "n", "documentId", "userId")
_ENDED = ("attempts", "startedAt", "finishedAt", "durationMs")
_RUN = ("runId", "workflow", "version", "userId")
_STEP = (*_RUN, "step", "queue", "job")
_DELIVERY = ("endpoint", "delivery", "eventId", "eventType")

_run = {"runId": "run_7d1f", "workflow": "document-upload", "version": 1, "userId": "alice", "documentId": "doc-1"}
_process = {
    **{"queue": "document-processing", "job": "process-document", "jobId": "run_7d1f_process_1"},
    **{"runId": "run_7d1f", "workflow": "document-upload", "step": "process", "n": 1, "documentId": "doc-1", "userId": "alice"},
}
_times = {"startedAt": 1769851799100, "finishedAt": 1769851800000, "durationMs": 900}
_about = {
    **{"endpoint": "ep_3f9c0a51d7e84b2c9a10", "delivery": "dlv_8a1c6f0e5b2d4c7f9e3a1b6d"},
    **{"eventId": "evt_5f0c2d6b1e9a47d38c05f2ab7e614d90", "eventType": "job.completed", "runId": "run_7d1f"},
}


def _step(step: str, status: str, queue: str, job: str, **more: Any) -> dict[str, Any]:
    return {**_run, "step": step, "status": status, "queue": queue, "job": job, **more}


_NULLABLE_RUN = _said(_TEXT_OR_NULL, "The run that the event was about, if it was about one.")
_ANSWERED = _said({"type": ["integer", "null"]}, "HTTP status of the last answer; null where there was none.")

OWN: tuple[EventType, ...] = (
    _type(
        "job.completed",
        "A job is done. Of a run's step, workflow.step.completed follows.",
        {**_process, "attempts": 1, **_times, "result": {"path": "doc-1/contract.pdf", "pages": 3}},
        always=(*_JOB, *_ENDED, "result"),
        often=_OF_A_RUN,
    ),
    _type(
        "job.failed",
        "A job has failed, all its attempts included.",
        {
            **{"queue": "notifications", "job": "send-notification", "jobId": "17", "userId": "alice", "attempts": 5},
            **{**_times, "error": "the mail server refused the recipient"},
        },
        always=(*_JOB, *_ENDED, "error"),
        often=_OF_A_RUN,
    ),
    _type(
        "job.progress",
        "A job reports how far it is. So frequent that no pattern matches it: who wants it names it.",
        {**_process, "progress": 40},
        always=(*_JOB, "progress"),
        often=_OF_A_RUN,
    ),
    _type(
        "workflow.started",
        "A run has begun.",
        {**_run, "status": "running", "steps": {"process": "running", "analyze": "pending", "notify": "pending"}},
        always=(*_RUN, "steps"),
        often=("documentId",),
        status={"enum": ["pending", "running"]},
    ),
    _type(
        "workflow.retried",
        "Somebody had a run that had failed, or was cancelled, go on.",
        {**_run, "status": "running", "steps": {"process": "completed", "analyze": "pending", "notify": "pending"}, "by": "alice"},
        always=(*_RUN, "steps", "by"),
        often=("documentId",),
        status=_is("running"),
    ),
    _type(
        "workflow.step.completed",
        "A step is done.",
        _step(
            "analyze",
            "completed",
            "compliance-analysis",
            "analyze-compliance",
            jobId="run_7d1f_analyze_1",
            attempts=1,
            durationMs=1200,
            result={"score": 86},
        ),
        always=(*_STEP, "result"),
        often=("documentId", "jobId", "attempts", "durationMs", "reason"),
        status=_is("completed"),
    ),
    _type(
        "workflow.step.failed",
        "A step has failed: its job, or an expression of its own, or its time was up.",
        _step(
            "process",
            "failed",
            "document-processing",
            "process-document",
            jobId="run_7d1f_process_1",
            attempts=3,
            durationMs=6400,
            error="the file is not a PDF, as declared, but a ZIP archive",
        ),
        always=(*_STEP, "error"),
        often=("documentId", "jobId", "attempts", "durationMs", "reason"),
        status=_is("failed"),
    ),
    _type(
        "workflow.step.skipped",
        "A step is not needed: its `if` is false, or it was for another outcome.",
        _step("notify", "skipped", "notifications", "send-notification", reason="its `if` is false: steps.analyze.result.score < 100"),
        always=(*_STEP, "reason"),
        often=("documentId",),
        status=_is("skipped"),
    ),
    _type(
        "workflow.step.blocked",
        "A step cannot run, because of how a step that it needs has ended.",
        _step("analyze", "blocked", "compliance-analysis", "analyze-compliance", reason="step process is failed"),
        always=(*_STEP, "reason"),
        often=("documentId",),
        status=_is("blocked"),
    ),
    _type(
        "workflow.step.waiting",
        "A step waits for the callback of the service that does its job.",
        {**_process, "status": "waiting", "attempts": 1, "deadline": "2026-01-31T10:30:00.000Z"},
        always=(*_JOB, "runId", "workflow", "step", "n", "attempts", "deadline"),
        often=("documentId", "userId"),
        status=_is("waiting"),
    ),
    _type(
        "workflow.completed",
        "A run has ended well.",
        {
            **{**_run, "status": "completed", "steps": {"process": "completed", "analyze": "completed", "notify": "completed"}},
            **{"durationMs": 3000, "output": None},
        },
        always=(*_RUN, "steps", "durationMs", "output"),
        often=("documentId",),
        status=_is("completed"),
    ),
    _type(
        "workflow.failed",
        "A run has failed.",
        {
            **{**_run, "status": "failed", "steps": {"process": "failed", "analyze": "blocked", "notify": "blocked"}, "durationMs": 6500},
            **{"error": "step process failed: the file is not a PDF, as declared, but a ZIP archive"},
        },
        always=(*_RUN, "steps", "durationMs", "error"),
        often=("documentId",),
        status=_is("failed"),
    ),
    _type(
        "workflow.cancelled",
        "Somebody has cancelled a run.",
        {
            **{**_run, "status": "cancelled", "steps": {"process": "completed", "analyze": "cancelled", "notify": "cancelled"}},
            **{"durationMs": 3000, "reason": "cancelled by alice"},
        },
        always=(*_RUN, "steps", "durationMs", "reason"),
        often=("documentId",),
        status=_is("cancelled"),
    ),
    _type(
        "document.erased",
        "A document and what was derived from it are gone.",
        {"documentId": "doc-1", "by": "alice", "runs": 1, "userId": "alice"},
        always=("documentId", "by", "runs"),
        often=("userId",),
    ),
    _type(
        "endpoint.disabled",
        "A webhook endpoint gets nothing any more.",
        {**_about, "status": 410, "attempts": 1, "error": "answered 410", "reason": "gone", "failingSince": None},
        always=(*_DELIVERY, "attempts"),
        runId=_NULLABLE_RUN,
        status=_ANSWERED,
        error=_said(_TEXT_OR_NULL, "Why the last attempt failed; null if it did not."),
        reason={
            "enum": ["gone", "asked", "failing"],
            "description": "The receiver answered 410, or `webhook-delivery: disable`, or failed for too long (webhooks.disable_after).",
        },
        failingSince={"type": ["integer", "null"], "description": "When the first attempt after the last success began, ms since 1970."},
    ),
    _type(
        "endpoint.failing",
        "No delivery to a webhook endpoint has succeeded for half of the time after which it is disabled.",
        {
            **_about,
            **{"status": 500, "attempts": 7, "error": "answered 500"},
            **{"failingSince": 1769592600000, "disabledAt": 1769808600000},
        },
        always=(*_DELIVERY, "attempts", "error"),
        runId=_NULLABLE_RUN,
        status=_ANSWERED,
        failingSince=_said(_COUNT, "When the first attempt after the last success began, ms since 1970."),
        disabledAt=_said(_COUNT, "When it will be disabled if that goes on, ms since 1970."),
    ),
    _type(
        "delivery.exhausted",
        "Every attempt of a delivery has failed; POST /api/webhooks/deliveries/{id}/replay begins anew.",
        {**_about, "status": 500, "attempts": 10, "error": "answered 500"},
        always=(*_DELIVERY, "attempts", "error"),
        runId=_NULLABLE_RUN,
        status=_ANSWERED,
    ),
    _type(
        "webhook.test",
        "Somebody tries an endpoint: sent to it alone, whatever it subscribes to; in no log and no listing.",
        {"endpoint": "ep_3f9c0a51d7e84b2c9a10"},
        always=("endpoint",),
    ),
)
"""In the order of a run's life; then what is told of documents and webhooks."""

BY_TYPE: Mapping[str, EventType] = {event.type: event for event in OWN}
