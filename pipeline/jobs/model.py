"""A job as a processor sees it, and what it may ask of the worker that runs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger


# Neither frozen nor by keyword: one is made for each job, and either makes that several times as dear.
@dataclass(slots=True)
class Origin:
    """The run's step that a job does; carried in the job's options under `hookline`. Never changed."""

    run: str
    workflow: str
    step: str
    n: int
    """1 for the first execution, +1 for each manual retry; attempts do not change it."""
    user: str | None = None
    """Whose run it is: its jobs and their events are that user's, whatever their data names."""
    document: str | None = None
    """The document that the run was started for."""

    def mark(self) -> dict[str, Any]:
        """As it stands in the job's options."""
        mark: dict[str, Any] = {"run": self.run, "workflow": self.workflow, "step": self.step, "n": self.n}
        if self.user is not None:
            mark["user"] = self.user
        if self.document is not None:
            mark["document"] = self.document
        return mark


@dataclass(slots=True)  # as Origin
class Job:
    """One attempt at one job."""

    id: str
    queue: str
    name: str
    data: Any
    """The input: the processor's pydantic model if it declares one, else plain JSON."""
    attempt: int
    """1 for the first."""
    attempts: int
    """How many attempts there are in all."""
    timestamp: int
    """When it was added, ms since the epoch."""
    opts: Mapping[str, Any] = field(default_factory=dict)
    """BullMQ's; jobs with the same options share them."""
    origin: Origin | None = None


class Context(Protocol):
    """What a processor may ask of the worker that runs it."""

    @property
    def log(self) -> FilteringBoundLogger:
        """Bound to queue, jobId, runId and processor."""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at this job, and for no other job: hand it to services that deduplicate."""

    @property
    def cancelled(self) -> bool:
        """Whether the job should stop: its run was cancelled, its step timed out, or its lock was lost."""

    async def progress(self, percent: int) -> None:
        """Report progress, 0 to 100; readers see it in the job's status and the run's step."""

    async def heartbeat(self) -> None:
        """Say that the job is alive; raises CancelledError if it should stop."""
