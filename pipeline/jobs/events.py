"""The events of a job, computed from its own fields so that executing again what was lost tells the same thing."""

from typing import Any

from pipeline.jobs.model import Job
from pipeline.store.log import Event, event_id
from pipeline.units import iso


def job_completed(job: Job, result: Any, *, started: int, now: int) -> Event:
    event = _event("job.completed", job, now)
    # In place, here and below: every job has such an event.
    data = event.data
    data["attempts"], data["startedAt"], data["finishedAt"], data["durationMs"], data["result"] = job.attempt, started, now, now - started, result
    return event


def job_failed(job: Job, reason: str, *, started: int, now: int) -> Event:
    event = _event("job.failed", job, now)
    event.data |= {"attempts": job.attempt, "startedAt": started, "finishedAt": now, "durationMs": now - started, "error": reason}
    return event


def job_progress(job: Job, progress: Any, *, now: int) -> Event:
    event = _event("job.progress", job, now, job.attempt, progress)
    event.data["progress"] = progress
    return event


def step_waiting(job: Job, deadline: int, *, now: int) -> Event | None:
    """A run's step waits for a callback; None for a job of no run."""
    if job.origin is None:
        return None
    event = _event("workflow.step.waiting", job, now, job.attempt)
    event.data |= {"status": "waiting", "attempts": job.attempt, "deadline": iso(deadline)}
    return event


def _event(type: str, job: Job, now: int, *moment: object) -> Event:
    """`moment` tells apart what happens to one attempt repeatedly."""
    data: dict[str, Any] = {"queue": job.queue, "job": job.name, "jobId": job.id}
    user, document = (job.data.get("userId"), job.data.get("documentId")) if isinstance(job.data, dict) else (None, None)
    if origin := job.origin:
        data["runId"], data["workflow"], data["step"], data["n"] = origin.run, origin.workflow, origin.step, origin.n
        user, document = origin.user, document if isinstance(document, str) else origin.document
        # A run's step ends once per n, whichever attempt does it.
        id = event_id(type, origin.run, origin.step, origin.n, *moment)
    else:
        id = event_id(type, job.queue, job.id, job.timestamp, job.attempt, *moment)
    # Which document it is about, and whose it is.
    if isinstance(document, str):
        data["documentId"] = document
    if isinstance(user, str):
        data["userId"] = user
    return Event(id=id, type=type, timestamp=now, data=data)
