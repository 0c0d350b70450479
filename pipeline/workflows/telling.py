"""What the log is told of a run and its steps: the events of a transition, their data and their ids."""

from collections.abc import Mapping
from typing import Any

from pipeline.store.event import Event, event_id, event_id_of
from pipeline.workflows.definition import StepDefinition
from pipeline.workflows.model import Run, RunStatus, Step, StepStatus


def of_run(run: Run, steps: Mapping[str, Step], what: str, now: int, more: Mapping[str, Any]) -> Event:
    """`workflow.<what>`; `steps` as they have become, `more` for its data."""
    data = _subject(run)
    data["status"], data["steps"] = run.status, {id: step.status for id, step in steps.items()}
    data |= more
    if run.status.terminal:
        data["durationMs"] = now - run.created_at
    if run.status == RunStatus.COMPLETED:
        data["output"] = run.output
    elif run.error is not None:
        data["reason" if run.status == RunStatus.CANCELLED else "error"] = run.error
    type = f"workflow.{what}"
    return Event(id=event_id(type, run.id, run.generation), type=type, timestamp=now, data=data)


def of_step(run: Run, definition: StepDefinition, step: Step, now: int) -> Event:
    """`workflow.step.<status>` of a step that has ended."""
    data = _subject(run)
    # In place: every step has such an event.
    data["step"], data["status"], data["queue"], data["job"] = definition.id, step.status, definition.queue, definition.job
    if step.job_id:
        data["jobId"] = step.job_id
    if step.attempts:
        data["attempts"] = step.attempts
    if step.started_at is not None and step.finished_at is not None:
        data["durationMs"] = max(step.finished_at - step.started_at, 0)
    if step.status == StepStatus.COMPLETED:
        data["result"] = step.result
    if step.error is not None:
        data["error"] = step.error
    if step.reason is not None:
        data["reason"] = step.reason
    type = f"workflow.step.{step.status}"
    happened = f"{type}\x1f{run.id}\x1f{definition.id}\x1f{step.n}"
    if step.status in (StepStatus.SKIPPED, StepStatus.BLOCKED):
        # Such a step was not dispatched, so that n alone would make its second time look like the first.
        happened += f"\x1f{run.generation}"
    return Event(id=event_id_of(happened), type=type, timestamp=now, data=data)


def _subject(run: Run) -> dict[str, Any]:
    data: dict[str, Any] = {"runId": run.id, "workflow": run.workflow, "version": run.version, "userId": run.user_id}
    if (document := run.document_id) is not None:
        data["documentId"] = document
    return data
