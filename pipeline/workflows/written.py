"""A workflow as it is written in YAML: the keys, their types and what they mean, for the compiler and for editors."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.config.queues import Backoff
from pipeline.units import Duration

MAX_STEPS = 200

RunOn = Literal["completed", "skipped", "failed", "always"]
DEFAULT_RUN_ON: tuple[RunOn, ...] = ("completed", "skipped")


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Retry(_Written):
    attempts: int | None = Field(None, ge=1, le=100, description="How often the job is tried in all; without it, as often as its queue says.")
    backoff: Backoff | None = Field(None, description="How long to wait between two attempts.")


class Step(_Written):
    queue: str = Field(description="The queue of the step's job.")
    job: str | None = Field(None, description="The job's name; without it, the queue's only processor.")
    with_: dict[str, Any] | str = Field("${{ input }}", alias="with", description="The job's data; without it, the run's input.")
    needs: list[str] | str = Field([], description="Steps that must have ended before this one.")
    if_: bool | str | None = Field(None, alias="if", description="A CEL expression; false: the step is skipped, which satisfies its dependents.")
    run_on: list[RunOn] | RunOn = Field(list(DEFAULT_RUN_ON), description="How the needs must have ended for the step to run.")
    continue_on_error: bool = Field(False, description="The step's failure neither fails the run nor blocks its dependents.")
    retry: Retry = Retry()
    timeout: Duration | None = Field(None, description="How long the step may take from when its job is added, over all attempts.")


class Trigger(_Written):
    queue: str = Field(description="A job posted to this queue becomes the first step of a run.")


class Workflow(_Written):
    version: int = Field(1, ge=1)
    triggers: list[Trigger] = []
    input: dict[str, Any] = Field({}, description="JSON Schema (2020-12) of the input.")
    timeout: Duration | None = Field(None, description="How long a run may take.")
    steps: dict[str, Step] = Field(min_length=1, max_length=MAX_STEPS)
    output: Any = Field(None, description="What the completed run gives, with expressions.")

    @field_validator("timeout")
    @classmethod
    def _positive(cls, value: int | None) -> int | None:
        if value == 0:
            raise ValueError("a timeout of 0 would end every run at once; leave it out for none")
        return value
