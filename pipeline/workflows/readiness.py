"""Whether a step may run, seen from how its needs ended: `run_on` and `continue_on_error`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

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
    def of(cls, step: StepDefinition, definition: Definition, steps: Mapping[str, Step]) -> "Readiness":
        """A failed need with `continue_on_error` counts as completed, and also as failed for a step that runs on failures."""
        ended, bad = True, []
        for need in step.needs:
            status = steps[need].status
            if status in _FAILED:
                bad.append(need)
            elif not status.terminal:
                ended = False
        if not step.needs or "always" in step.run_on:
            return RUN if ended else WAIT
        if bad and "failed" not in step.run_on:
            for need in bad:
                if steps[need].status is not StepStatus.FAILED or not definition.steps[need].continue_on_error:
                    return cls(verdict=Verdict.BLOCK, reason=f"step {need} is {steps[need].status}")
        if not ended:
            return WAIT
        if bad and "failed" in step.run_on:
            return RUN
        for need in step.needs:
            status = StepStatus.COMPLETED if need in bad else steps[need].status
            if status not in step.run_on:
                return cls(verdict=Verdict.SKIP, reason=f"step {need} is {status}, and this one runs on {', '.join(step.run_on)}")
        return RUN


RUN, WAIT = Readiness(verdict=Verdict.RUN), Readiness(verdict=Verdict.WAIT)
