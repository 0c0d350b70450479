"""The events of a job, computed from its own fields so that executing again what was lost tells the same thing."""

from typing import Any

from pipeline.jobs.model import Job
from pipeline.store.log import Event, event_id
from pipeline.units import iso


def job_completed(job: Job, result: Any, *, started: int, now: int) -> Event:
    event = _event("job.completed", job, now)
    # In place: every job has such an event.
    data = event.data
    data["attempts"], data["startedAt"], data["finishedAt"], data["durationMs"], data["result"] = job.attempt, started, now, now - started, result
    return event


def job_failed(job: Job, reason: str, *, started: int, now: int) -> Event:
    return _event("job.failed", job, now, attempts=job.attempt, startedAt=started, finishedAt=now, durationMs=now - started, error=reason)


def job_progress(job: Job, progress: Any, *, now: int) -> Event:
    return _event("job.progress", job, now, job.attempt, progress, progress=progress)


def step_waiting(job: Job, deadline: int, *, now: int) -> Event | None:
    """A run's step waits for a callback; None for a job of no run."""
    if job.origin is None:
        return None
    return _event("workflow.step.waiting", job, now, job.attempt, status="waiting", attempts=job.attempt, deadline=iso(deadline))


def _event(type: str, job: Job, now: int, *moment: object, **more: Any) -> Event:
    """`moment` tells apart what happens to one attempt repeatedly."""
    data: dict[str, Any] = {"queue": job.queue, "job": job.name, "jobId": job.id}
    origin, named = job.origin, job.data if isinstance(job.data, dict) else {}
    user, document = named.get("userId"), named.get("documentId")
    if origin:
        data |= {"runId": origin.run, "workflow": origin.workflow, "step": origin.step, "n": origin.n}
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
    data |= more
    return Event(id=id, type=type, timestamp=now, data=data)
