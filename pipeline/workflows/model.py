"""The nouns of a workflow's execution: a run, its steps, what can happen to them, and what is decided then.

None is changed once it is made. Those made for each transition are not `frozen` all the same: that would triple the cost of
making them, which was a tenth of a transition.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pipeline.store.event import Event


class RunStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    terminal: bool

    def __init__(self, value: str) -> None:
        self.terminal = value in ("completed", "failed", "cancelled")


class StepStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    """Its job was added; whether a worker has it already is the job's own state."""
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """Its own `if` was false; satisfies its dependents."""
    BLOCKED = "blocked"
    """One of its needs failed or is blocked, and its `run_on` does not name that."""

    terminal: bool
    dispatched: bool
    """Whether its job is under way."""

    def __init__(self, value: str) -> None:
        self.dispatched = value in ("running", "waiting")
        self.terminal = value != "pending" and not self.dispatched


@dataclass(kw_only=True, slots=True)
class Step:
    """The state of one step of a run."""

    status: StepStatus = StepStatus.PENDING
    n: int = 0
    """How often it was dispatched: 0 never, +1 for each manual retry (or redispatch of a lost job)."""
    job_id: str | None = None
    """Empty for the first job of a run that a queue trigger started: the start script writes its id beside the state."""
    attempts: int = 0
    result: Any = None
    error: str | None = None
    """Why it failed, as its job's failedReason says."""
    reason: str | None = None
    """Why it was skipped, blocked or cancelled."""
    started_at: int | None = None
    """When its job was added; once that ended, when its last attempt began."""
    finished_at: int | None = None
    waited: bool = False
    """Whether this execution was held for a callback; told once, also where its end was read first."""


@dataclass(kw_only=True, slots=True)
class Run:
    """The state of one execution of a workflow; never changed, so that a decision is a comparison of two of them."""

    id: str
    workflow: str
    version: int
    digest: str
    """Content hash of the definition it is pinned to."""
    user_id: str | None
    input: Any
    created_at: int
    status: RunStatus = RunStatus.PENDING
    steps: dict[str, Step] = field(default_factory=dict)
    output: Any = None
    error: str | None = None
    finished_at: int | None = None
    generation: int = 0
    """+1 for each manual retry; part of the ids of its workflow.* events, so that a second failure is a new event."""

    @property
    def document_id(self) -> str | None:
        """The document that it was started for, if its input names one."""
        document = self.input.get("documentId") if isinstance(self.input, dict) else None
        return document if isinstance(document, str) else None


@dataclass(kw_only=True, slots=True)
class Dispatch:
    """A job to be added for a step."""

    step: str
    queue: str
    name: str
    job_id: str
    """`<run>_<step>_<n>`; empty for the first job of a run that a queue trigger starts, which takes BullMQ's counter."""
    data: Any
    attempts: int | None
    """None: the queue's own."""
    backoff: dict[str, Any] | None
    """BullMQ's `{type, delay}` in ms; None: the queue's own."""
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Timer:
    """When a step's or (with no step) the run's time is up."""

    due: int
    """ms since the epoch; 0 in `timers_over`, where only step and n count."""
    step: str = ""
    n: int = 0
    """The step's n, or the run's generation: a timer from before a retry must not end what began after it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancellation:
    """A job whose outcome no longer matters: removed if it waits, told to stop if it runs."""

    queue: str
    job_id: str
    reason: str


# --- what can happen to a run -----------------------------------------------------------------------------------------


@dataclass(kw_only=True, slots=True)
class JobEnded:
    """A step's job ended; `error` is None if it completed."""

    step: str
    n: int
    result: Any = None
    error: str | None = None
    attempts: int = 1
    started_at: int | None = None
    finished_at: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobHeld:
    """A step's job waits for a callback, without a worker's slot."""

    step: str
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TimerFired:
    """A step's (or, with no step, the run's) time is up."""

    step: str = ""
    n: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class JobLost:
    """A step's job is in no queue and will not report (removed by foreign hands): it is dispatched again with n+1."""

    step: str
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelRequested:
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryRequested:
    """Run the failed, cancelled and blocked steps again; completed ones keep their results."""

    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """The machine raised repeatedly on one of the run's log entries: the run fails with this reason."""

    reason: str


Outcome = JobEnded | JobHeld | TimerFired | JobLost | CancelRequested | RetryRequested | Broken


@dataclass(kw_only=True, slots=True)
class Decision:
    """What a transition does, all of it in one script: the run's new state, jobs, events, timers, cancellations."""

    run: Run
    dispatches: tuple[Dispatch, ...] = ()
    events: tuple[Event, ...] = ()
    timers: tuple[Timer, ...] = ()
    """To be set; those of steps and runs that ended are dropped by `timers_over`."""
    timers_over: tuple[Timer, ...] = ()
    cancellations: tuple[Cancellation, ...] = ()
