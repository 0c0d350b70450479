"""A run as text for the store, and as the API shows it."""

from typing import Any

import orjson

from pipeline.units import iso
from pipeline.workflows.model import Run, RunStatus, Step, StepStatus


def encode(run: Run) -> str:
    """JSON of a run's whole state."""
    # orjson writes dataclasses and enums itself: `asdict` would copy every result of the run, at each of its transitions.
    return orjson.dumps(run).decode()


def decode(text: str) -> Run:
    """The run that `encode` wrote."""
    state = orjson.loads(text)
    steps = {id: Step(**{**step, "status": StepStatus(step["status"])}) for id, step in state.pop("steps").items()}
    return Run(**{**state, "status": RunStatus(state["status"])}, steps=steps)


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
