"""The rules of a run as one pure function: its state, what happened, and the time give the next state and what is to be done.

Every transition happens once, however often its cause is told: an outcome that the state has already taken in, or that
belongs to an earlier execution of a step (another `n`), gives no decision.
"""

from dataclasses import replace
from typing import Any, assert_never

from pipeline.store.event import Event
from pipeline.units import format_duration, iso
from pipeline.workflows import expressions, telling
from pipeline.workflows.definition import Definition, StepDefinition
from pipeline.workflows.expressions import ExpressionError
from pipeline.workflows.model import (
    Broken,
    Cancellation,
    CancelRequested,
    Decision,
    Dispatch,
    JobEnded,
    JobHeld,
    JobLost,
    Outcome,
    RetryRequested,
    Run,
    RunStatus,
    Step,
    StepStatus,
    Timer,
    TimerFired,
)
from pipeline.workflows.readiness import RUN, WAIT, Readiness, Verdict

_PENDING, _RUNNING, _COMPLETED = StepStatus.PENDING, StepStatus.RUNNING, StepStatus.COMPLETED
"""Up to Python 3.11 each look at an enum for a member is a call of its own."""
MAX_ERROR = 2000
"""Characters of a reason that are kept: a stack trace pasted into an error would be stored in every event."""


def start(definition: Definition, *, run_id: str, user_id: str | None, input: Any, now: int, trigger_step: str | None = None) -> Decision:
    """A new run and its first jobs. `trigger_step` is the step whose job takes BullMQ's counter as its id: its dispatch has an empty one."""
    run = Run(
        id=run_id,
        workflow=definition.name,
        version=definition.version,
        digest=definition.digest,
        user_id=user_id,
        input=input,
        created_at=now,
        status=RunStatus.RUNNING,
        steps={id: Step() for id in definition.steps},
    )
    transition = _Transition(definition, run, now, trigger_step)
    transition.tell_run("started")
    transition.set_run_timer()
    return transition.settle()


def advance(definition: Definition, run: Run, outcome: Outcome, now: int) -> Decision | None:
    """What follows from an outcome; None if nothing does, because it is no news to this run."""
    transition = _Transition(definition, run, now)
    match outcome:
        case JobEnded():
            return transition.job_ended(outcome)
        case JobHeld():
            return transition.job_held(outcome)
        case TimerFired():
            return transition.step_timed_out(outcome) if outcome.step else transition.run_timed_out(outcome)
        case JobLost():
            return transition.job_lost(outcome)
        case CancelRequested():
            return transition.end_early(RunStatus.CANCELLED, f"cancelled by {outcome.by}")
        case RetryRequested():
            return transition.retry(outcome)
        case Broken():
            return transition.end_early(RunStatus.FAILED, outcome.reason)
        case _:
            assert_never(outcome)


class _Transition:
    """One transition in the making: the changing state, and what was decided so far."""

    def __init__(self, definition: Definition, run: Run, now: int, trigger_step: str | None = None) -> None:
        self._definition = definition
        self._run = run
        self._steps = dict(run.steps)
        self._now = now
        self._trigger = trigger_step
        self._dispatches: list[Dispatch] = []
        self._events: list[Event] = []
        self._timers: list[Timer] = []
        self._timers_over: list[Timer] = []
        self._cancellations: list[Cancellation] = []

    # --- what can happen --------------------------------------------------------------------------------------------

    def job_ended(self, end: JobEnded) -> Decision | None:
        if not self._runs(end.step, end.n):
            return None
        step = self._steps[end.step]
        status, result, error = _COMPLETED, end.result, None
        if end.error is not None:
            status, result, error = StepStatus.FAILED, None, _bounded(end.error)
        started, finished = end.started_at or step.started_at, end.finished_at or self._now
        # Written out, as in `_decision`: `replace` costs several times as much, and this is done for every job.
        self._steps[end.step] = Step(status, step.n, step.job_id, end.attempts, result, error, step.reason, started, finished, step.waited)
        self._drop_timer(end.step)
        self._tell_step(end.step)
        return self.settle()

    def job_held(self, held: JobHeld) -> Decision | None:
        step = self._steps.get(held.step)
        if step is None or step.n != held.n or step.waited:
            return None
        # What an engine that died had read comes after what was read since: then the step has ended, and this is only told.
        status = StepStatus.WAITING if step.status == StepStatus.RUNNING else step.status
        self._steps[held.step] = replace(step, status=status, waited=True)
        return self._decision()

    def step_timed_out(self, fired: TimerFired) -> Decision | None:
        definition = self._definition.steps.get(fired.step)
        if not definition or definition.timeout is None or not self._runs(fired.step, fired.n):
            return None
        reason = f"timed out: not ended {format_duration(definition.timeout)} after its job was added"
        self._cancel_job(fired.step, reason)
        self._steps[fired.step] = replace(self._steps[fired.step], status=StepStatus.FAILED, error=reason, finished_at=self._now)
        self._drop_timer(fired.step)
        self._tell_step(fired.step)
        return self.settle()

    def run_timed_out(self, fired: TimerFired) -> Decision | None:
        if self._definition.timeout is None or fired.n != self._run.generation:
            return None
        return self.end_early(RunStatus.FAILED, f"timed out: not ended after {format_duration(self._definition.timeout)}")

    def job_lost(self, lost: JobLost) -> Decision | None:
        if not self._runs(lost.step, lost.n):
            return None
        self._drop_timer(lost.step)
        self._dispatch(self._definition.steps[lost.step])
        return self.settle()

    def end_early(self, status: RunStatus, reason: str) -> Decision | None:
        """End the run although steps are under way or still to come."""
        if self._run.status.terminal:
            return None
        reason = _bounded(reason)
        for id, step in self._steps.items():
            if step.status.dispatched:
                self._cancel_job(id, reason)
                self._drop_timer(id)
            if not step.status.terminal:
                self._steps[id] = replace(step, status=StepStatus.CANCELLED, reason=reason, finished_at=self._now)
        return self._end(status, reason)

    def retry(self, request: RetryRequested) -> Decision | None:
        """Failed, blocked and cancelled steps begin anew; so do the skipped ones below them, whose reason may no longer hold."""
        if self._run.status not in (RunStatus.FAILED, RunStatus.CANCELLED):
            return None
        again = {id for id, step in self._steps.items() if step.status in (StepStatus.FAILED, StepStatus.BLOCKED, StepStatus.CANCELLED)}
        for step in self._definition.in_order:
            if self._steps[step.id].status == StepStatus.SKIPPED and again.intersection(step.needs):
                again.add(step.id)
        for id in again:
            self._steps[id] = Step(n=self._steps[id].n)
        generation = self._run.generation + 1
        self._run = replace(self._run, status=RunStatus.RUNNING, generation=generation, error=None, output=None, finished_at=None)
        self.tell_run("retried", by=request.by)
        self.set_run_timer()
        return self.settle()

    # --- what follows -----------------------------------------------------------------------------------------------

    def settle(self) -> Decision:
        """Move every step that can move, then the run if all of them have ended."""
        # In the order of needs, so that one pass carries a skip or a block to the end of its chain.
        steps = self._steps
        for step in self._definition.in_order:
            if steps[step.id].status is _PENDING:
                self._judge(step)
        for state in steps.values():
            if not state.status.terminal:
                return self._decision()
        failed = [id for id, step in self._steps.items() if step.status == StepStatus.FAILED and not self._definition.steps[id].continue_on_error]
        if failed:
            which = f"step {failed[0]}" if len(failed) == 1 else f"steps {', '.join(failed)}; {failed[0]}"
            return self._end(RunStatus.FAILED, f"{which} failed: {self._steps[failed[0]].error}")
        try:
            output = expressions.render(self._definition.output, self._scope())
        except ExpressionError as error:
            return self._end(RunStatus.FAILED, f"the output has no value: {error.message}")
        return self._end(RunStatus.COMPLETED, None, output)

    def _judge(self, step: StepDefinition) -> None:
        readiness = Readiness.of(step, self._definition, self._steps)
        if readiness is WAIT:
            return
        if readiness is RUN:
            self._begin(step)
        else:
            status = StepStatus.BLOCKED if readiness.verdict is Verdict.BLOCK else StepStatus.SKIPPED
            self._pass_over(step.id, status, readiness.reason)

    def _begin(self, step: StepDefinition) -> None:
        try:
            holds = step.condition is None or expressions.evaluate_if(step.condition, self._scope())
        except ExpressionError as error:
            self._fail_undispatched(step.id, error)
            return
        if holds:
            self._dispatch(step)
        else:
            self._pass_over(step.id, StepStatus.SKIPPED, f"its `if` is false: {step.condition}")

    def _dispatch(self, step: StepDefinition) -> None:
        try:
            data = expressions.render(step.data, self._scope())
        except ExpressionError as error:
            self._fail_undispatched(step.id, error)
            return
        n = self._steps[step.id].n + 1
        job_id = "" if step.id == self._trigger else f"{self._run.id}_{step.id}_{n}"
        self._dispatches.append(Dispatch(step.id, step.queue, step.job, job_id, data, step.attempts, step.backoff, n))
        self._steps[step.id] = Step(_RUNNING, n, job_id, started_at=self._now)
        if step.timeout is not None:
            self._timers.append(Timer(due=self._now + step.timeout, step=step.id, n=n))

    def _fail_undispatched(self, id: str, error: ExpressionError) -> None:
        # It counts as a dispatch, so that the failure of a retry is a new event.
        self._steps[id] = Step(status=StepStatus.FAILED, n=self._steps[id].n + 1, error=_bounded(error.message), finished_at=self._now)
        self._tell_step(id)

    def _pass_over(self, id: str, status: StepStatus, reason: str) -> None:
        self._steps[id] = replace(self._steps[id], status=status, reason=_bounded(reason), finished_at=self._now)
        self._tell_step(id)

    def _end(self, status: RunStatus, error: str | None, output: Any = None) -> Decision:
        error = _bounded(error) if error else None
        self._run = replace(self._run, status=status, output=output, error=error, finished_at=self._now)
        if self._definition.timeout is not None:
            self._timers_over.append(Timer(due=0, n=self._run.generation))
        self.tell_run(status.value)
        return self._decision()

    def _decision(self) -> Decision:
        run = self._run
        return Decision(
            Run(
                run.id,
                run.workflow,
                run.version,
                run.digest,
                run.user_id,
                run.input,
                run.created_at,
                run.status,
                self._steps,
                run.output,
                run.error,
                run.finished_at,
                run.generation,
            ),
            tuple(self._dispatches),
            tuple(self._events),
            tuple(self._timers),
            tuple(self._timers_over),
            tuple(self._cancellations),
        )

    def set_run_timer(self) -> None:
        if self._definition.timeout is not None:
            self._timers.append(Timer(due=self._now + self._definition.timeout, n=self._run.generation))

    def tell_run(self, what: str, **more: Any) -> None:
        self._events.append(telling.of_run(self._run, self._steps, what, self._now, more))

    def _tell_step(self, id: str) -> None:
        self._events.append(telling.of_step(self._run, self._definition.steps[id], self._steps[id], self._now))

    # --- the state --------------------------------------------------------------------------------------------------

    def _runs(self, id: str, n: int) -> bool:
        """Whether this execution of the step is under way."""
        step = self._steps.get(id)
        return step is not None and step.status.dispatched and step.n == n

    def _scope(self) -> dict[str, Any]:
        run = self._run
        return {
            "input": run.input,
            "run": {"id": run.id, "workflow": run.workflow, "userId": run.user_id, "createdAt": iso(run.created_at)},
            "steps": {id: {"status": step.status._value_, "result": step.result, "error": step.error} for id, step in self._steps.items()},
        }

    def _cancel_job(self, id: str, reason: str) -> None:
        if job_id := self._steps[id].job_id:
            self._cancellations.append(Cancellation(queue=self._definition.steps[id].queue, job_id=job_id, reason=reason))

    def _drop_timer(self, id: str) -> None:
        if self._definition.steps[id].timeout is not None:
            self._timers_over.append(Timer(due=0, step=id, n=self._steps[id].n))


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_ERROR else f"{text[:MAX_ERROR]}…"
