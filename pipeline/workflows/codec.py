"""A run as text for the store, and as the API shows it."""

from typing import Any

import orjson

from pipeline.units import iso
from pipeline.workflows.model import Run, RunStatus, Step, StepStatus


def encode(run: Run) -> bytes:
    """JSON of a run's whole state; of its steps, what differs from a step that has not begun."""
    # orjson would write the dataclasses itself, at four times the cost.
    return orjson.dumps({
        "id": run.id,
        "workflow": run.workflow,
        "version": run.version,
        "digest": run.digest,
        "user_id": run.user_id,
        "input": run.input,
        "created_at": run.created_at,
        "status": run.status,
        "steps": {id: _kept(step) for id, step in run.steps.items()},
        "output": run.output,
        "error": run.error,
        "finished_at": run.finished_at,
        "generation": run.generation,
    })  # fmt: skip


def decode(text: str | bytes) -> Run:
    """The run that `encode` wrote."""
    state = orjson.loads(text)
    steps = {id: Step(**{**step, "status": StepStatus(step["status"])}) for id, step in state.pop("steps").items()}
    return Run(**{**state, "status": RunStatus(state["status"])}, steps=steps)


def _kept(step: Step) -> dict[str, Any]:
    kept: dict[str, Any] = {"status": step.status}
    if step.n:
        kept["n"] = step.n
    if step.job_id is not None:
        kept["job_id"] = step.job_id
    if step.attempts:
        kept["attempts"] = step.attempts
    if step.result is not None:
        kept["result"] = step.result
    if step.error is not None:
        kept["error"] = step.error
    if step.reason is not None:
        kept["reason"] = step.reason
    if step.started_at is not None:
        kept["started_at"] = step.started_at
    if step.finished_at is not None:
        kept["finished_at"] = step.finished_at
    if step.waited:
        kept["waited"] = True
    return kept


def public(run: Run) -> dict[str, Any]:
    """The run as the API answers it, its times as ISO-8601. What only a running job knows (progress, attempts) is the caller's to add."""
    return {
        "runId": run.id,
        "workflow": run.workflow,
        "version": run.version,
        "status": run.status.value,
        "userId": run.user_id,
        "input": run.input,
        "steps": {id: _public(step) for id, step in run.steps.items()},
        "output": run.output,
        "error": run.error,
        "createdAt": iso(run.created_at),
        "finishedAt": _time(run.finished_at),
    }


def _public(step: Step) -> dict[str, Any]:
    return {
        "status": step.status.value,
        "jobId": step.job_id or None,
        "attempts": step.attempts,
        "progress": 100 if step.status == StepStatus.COMPLETED else 0,
        "result": step.result,
        "error": step.error,
        "reason": step.reason,
        "startedAt": _time(step.started_at),
        "finishedAt": _time(step.finished_at),
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)
