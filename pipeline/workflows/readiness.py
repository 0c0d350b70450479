"""Whether a step may run, seen from how its needs ended: `run_on` and `continue_on_error`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pipeline.workflows.definition import Definition, StepDefinition
from pipeline.workflows.model import Step, StepStatus

_FAILED = (StepStatus.FAILED, StepStatus.BLOCKED, StepStatus.CANCELLED)


class Verdict(StrEnum):
    WAIT = "wait"
    RUN = "run"
    SKIP = "skip"
    BLOCK = "block"


@dataclass(kw_only=True, slots=True)
class Readiness:
    """What is to become of a pending step, and why if it is not to run."""

    verdict: Verdict
    reason: str = ""

    @classmethod
    def of(cls, step: StepDefinition, definition: Definition, steps: Mapping[str, Step]) -> Self:
        """A failed need with `continue_on_error` counts as completed, and also as failed for a step that runs on failures."""
        ended = all(steps[need].status.terminal for need in step.needs)
        bad = [need for need in step.needs if steps[need].status in _FAILED]
        fatal = [need for need in bad if steps[need].status != StepStatus.FAILED or not definition.steps[need].continue_on_error]
        if not step.needs or "always" in step.run_on:
            return cls(verdict=Verdict.RUN if ended else Verdict.WAIT)
        if "failed" not in step.run_on and fatal:
            return cls(verdict=Verdict.BLOCK, reason=f"step {fatal[0]} is {steps[fatal[0]].status.value}")
        if not ended:
            return cls(verdict=Verdict.WAIT)
        if "failed" in step.run_on and bad:
            return cls(verdict=Verdict.RUN)
        for need in step.needs:
            status = StepStatus.COMPLETED if need in bad else steps[need].status
            if status.value not in step.run_on:
                return cls(verdict=Verdict.SKIP, reason=f"step {need} is {status.value}, and this one runs on {', '.join(step.run_on)}")
        return cls(verdict=Verdict.RUN)
