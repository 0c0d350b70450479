"""The events of a job, computed from its own fields so that executing again what was lost tells the same thing."""

from typing import Any

from pipeline.jobs.model import Job
from pipeline.store.event import Event, event_id_of
from pipeline.units import iso


def completed(job: Job, result: Any, *, started: int, now: int) -> tuple[str, dict[str, Any]]:
    """The id and the data of `job.completed`: what a worker, which appends one for each job, needs of the event."""
    id, data = _told("job.completed", job)
    data["attempts"], data["startedAt"], data["finishedAt"], data["durationMs"], data["result"] = job.attempt, started, now, now - started, result
    return id, data


def job_completed(job: Job, result: Any, *, started: int, now: int) -> Event:
    id, data = completed(job, result, started=started, now=now)
    return Event(id=id, type="job.completed", timestamp=now, data=data)


def job_failed(job: Job, reason: str, *, started: int, now: int) -> Event:
    id, data = _told("job.failed", job)
    data |= {"attempts": job.attempt, "startedAt": started, "finishedAt": now, "durationMs": now - started, "error": reason}
    return Event(id=id, type="job.failed", timestamp=now, data=data)


def job_progress(job: Job, progress: Any, *, now: int) -> Event:
    id, data = _told("job.progress", job, f"\x1f{job.attempt}\x1f{progress}")
    return Event(id=id, type="job.progress", timestamp=now, data=data | {"progress": progress})


def step_waiting(job: Job, deadline: int, *, now: int) -> Event | None:
    """A run's step waits for a callback; None for a job of no run."""
    if job.origin is None:
        return None
    id, data = _told("workflow.step.waiting", job, f"\x1f{job.attempt}")
    data |= {"status": "waiting", "attempts": job.attempt, "deadline": iso(deadline)}
    return Event(id=id, type="workflow.step.waiting", timestamp=now, data=data)


def _told(type: str, job: Job, moment: str = "") -> tuple[str, dict[str, Any]]:
    """The id of an event of the job, and whose it is. `moment` tells apart what happens to one attempt repeatedly."""
    named, origin = job.data, job.origin
    data: dict[str, Any] = {"queue": job.queue, "job": job.name, "jobId": job.id}
    user = document = None
    if isinstance(named, dict):
        user, document = named.get("userId"), named.get("documentId")
    if origin:
        data["runId"], data["workflow"], data["step"], data["n"] = origin.run, origin.workflow, origin.step, origin.n
        user, document = origin.user, document if isinstance(document, str) else origin.document
        # A run's step ends once per n, whichever attempt does it.
        what = f"{type}\x1f{origin.run}\x1f{origin.step}\x1f{origin.n}{moment}"
    else:
        what = f"{type}\x1f{job.queue}\x1f{job.id}\x1f{job.timestamp}\x1f{job.attempt}{moment}"
    # Which document it is about, and whose it is.
    if isinstance(document, str):
        data["documentId"] = document
    if isinstance(user, str):
        data["userId"] = user
    return event_id_of(what), data
