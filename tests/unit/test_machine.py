"""The machine: every rule of a run by a small table, and what must hold for any graph and any order of outcomes."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import yamlsource
from pipeline.config import Config
from pipeline.config.queues import Queue
from pipeline.store.event import event_id
from pipeline.workflows import machine
from pipeline.workflows.codec import decode, encode, public
from pipeline.workflows.definition import Definition, compile_all
from pipeline.workflows.model import (
    Broken,
    Cancellation,
    CancelRequested,
    Decision,
    JobEnded,
    JobHeld,
    JobLost,
    Outcome,
    RetryRequested,
    Run,
    RunStatus,
    StepStatus,
    Timer,
    TimerFired,
)

QUEUES = {"q": Queue(processors={"j": "a.b:C"}), "p": Queue(processors={"k": "a.b:C"})}


def define(steps: str, more: str = "") -> Definition:
    source = yamlsource.parse(f"workflows:\n  w:\n    {more}\n    steps: {{{steps}}}\n")
    return compile_all(Config(queues=QUEUES, workflows=source.data["workflows"]), source)["w"]


class Play:
    """A run played step by step; keeps every decision."""

    def __init__(self, steps: str, more: str = "", *, input: Any = None, trigger: str | None = None) -> None:
        self.definition = define(steps, more)
        self.now = 1_000
        first = machine.start(self.definition, run_id="run_1", user_id="u-1", input=input, now=self.now, trigger_step=trigger)
        self.decisions = [first]

    @property
    def run(self) -> Run:
        return self.decisions[-1].run

    @property
    def last(self) -> Decision:
        return self.decisions[-1]

    def tell(self, outcome: Outcome) -> Decision | None:
        self.now += 1_000
        decision = machine.advance(self.definition, self.run, outcome, self.now)
        if decision:
            self.decisions.append(decision)
        return decision

    def done(self, step: str, result: Any = None) -> Decision | None:
        return self.tell(JobEnded(step=step, n=self.run.steps[step].n, result=result))

    def fail(self, step: str, error: str = "boom") -> Decision | None:
        return self.tell(JobEnded(step=step, n=self.run.steps[step].n, error=error))

    def play(self, script: str) -> None:
        """`a b! c` : a completed, b failed, c completed."""
        for word in script.split():
            assert self.fail(word[:-1]) if word.endswith("!") else self.done(word), f"{word} changed nothing"

    @property
    def statuses(self) -> str:
        return " ".join(f"{id}:{step.status.value}" for id, step in self.run.steps.items())

    @property
    def dispatched(self) -> list[str]:
        return [job.step for decision in self.decisions for job in decision.dispatches]

    @property
    def events(self) -> list[str]:
        return [
            f"{event.type.removeprefix('workflow.')} {event.data.get('step', '')}".strip() for decision in self.decisions for event in decision.events
        ]


CHAIN = "a: {queue: q}, b: {queue: q, needs: a}, c: {queue: q, needs: b}"
FORK = "a: {queue: q}, b: {queue: q, needs: a}, c: {queue: q, needs: a}, d: {queue: q, needs: [b, c]}"


@pytest.mark.parametrize(
    ("steps", "script", "statuses", "run"),
    [
        (CHAIN, "a", "a:completed b:running c:pending", "running"),
        (CHAIN, "a b c", "a:completed b:completed c:completed", "completed"),
        (CHAIN, "a!", "a:failed b:blocked c:blocked", "failed"),
        (CHAIN, "a b!", "a:completed b:failed c:blocked", "failed"),
        (FORK, "a b", "a:completed b:completed c:running d:pending", "running"),
        (FORK, "a c b", "a:completed b:completed c:completed d:running", "running"),
        (FORK, "a b!", "a:completed b:failed c:running d:blocked", "running"),
        (FORK, "a b! c", "a:completed b:failed c:completed d:blocked", "failed"),
        ("a: {queue: q}, b: {queue: q}", "a", "a:completed b:running", "running"),
        # skipped: satisfies dependents; a chain of skips is passed in one go, whatever the order of writing
        ("a: {queue: q, if: 'false'}, b: {queue: q, needs: a}", "", "a:skipped b:running", "running"),
        (
            "c: {queue: q, needs: b, if: 'false'}, b: {queue: q, needs: a, if: 'false'}, a: {queue: q}",
            "a",
            "c:skipped b:skipped a:completed",
            "completed",
        ),
        ("a: {queue: q, if: 'false'}", "", "a:skipped", "completed"),
        ("a: {queue: q}, b: {queue: q, needs: a, if: steps.a.result.x > 1}", "a", "a:completed b:skipped", "completed"),
        # run_on
        ("a: {queue: q}, b: {queue: q, needs: a, run_on: failed}", "a!", "a:failed b:running", "running"),
        ("a: {queue: q}, b: {queue: q, needs: a, run_on: failed}", "a! b", "a:failed b:completed", "failed"),
        ("a: {queue: q}, b: {queue: q, needs: a, run_on: failed}", "a", "a:completed b:skipped", "completed"),
        ("a: {queue: q}, b: {queue: q, needs: a, run_on: [completed, failed]}", "a", "a:completed b:running", "running"),
        ("a: {queue: q, if: 'false'}, b: {queue: q, needs: a, run_on: completed}", "", "a:skipped b:skipped", "completed"),
        ("a: {queue: q}, b: {queue: q}, c: {queue: q, needs: [a, b], run_on: failed}", "a!", "a:failed b:running c:pending", "running"),
        ("a: {queue: q}, b: {queue: q}, c: {queue: q, needs: [a, b], run_on: failed}", "a! b", "a:failed b:completed c:running", "running"),
        ("a: {queue: q}, b: {queue: q, needs: a}, c: {queue: q, needs: b, run_on: failed}", "a!", "a:failed b:blocked c:running", "running"),
        ("a: {queue: q}, b: {queue: q}, c: {queue: q, needs: [a, b], run_on: always}", "a!", "a:failed b:running c:pending", "running"),
        ("a: {queue: q}, b: {queue: q}, c: {queue: q, needs: [a, b], run_on: always}", "a! b! c", "a:failed b:failed c:completed", "failed"),
        ("a: {queue: q}, b: {queue: q, needs: a, run_on: always, if: 'false'}", "a!", "a:failed b:skipped", "failed"),
        # continue_on_error: neither fails the run nor blocks; it still counts as a failure for who runs on failures
        ("a: {queue: q, continue_on_error: true}, b: {queue: q, needs: a}", "a! b", "a:failed b:completed", "completed"),
        ("a: {queue: q, continue_on_error: true}, b: {queue: q, needs: a, run_on: failed}", "a! b", "a:failed b:completed", "completed"),
        ("a: {queue: q, continue_on_error: true}, b: {queue: q, needs: a, run_on: completed}", "a!", "a:failed b:running", "running"),
        ("a: {queue: q, continue_on_error: true}, b: {queue: q}, c: {queue: q, needs: [a, b]}", "a! b!", "a:failed b:failed c:blocked", "failed"),
        # an expression without a value fails its step; in an `if` a null on the way is false
        ("a: {queue: q}, b: {queue: q, needs: a, with: {x: '${{ steps.a.result.p }}'}}", "a", "a:completed b:failed", "failed"),
        ("a: {queue: q}, b: {queue: q, needs: a, if: steps.a.result}", "a", "a:completed b:failed", "failed"),
        ("a: {queue: q, with: {x: '${{ input.p }}'}}, b: {queue: q, needs: a}", "", "a:failed b:blocked", "failed"),
    ],
)
def test_rules(steps: str, script: str, statuses: str, run: str) -> None:
    play = Play(steps)
    play.play(script)
    assert play.statuses == statuses
    assert play.run.status.value == run
    assert (play.run.finished_at is not None) == play.run.status.terminal


# --- starting -------------------------------------------------------------------------------------------------------------


def test_start_dispatches_what_needs_nothing() -> None:
    play = Play("a: {queue: q, retry: {attempts: 2, backoff: {type: fixed, delay: 3s}}, with: {v: '${{ input.v }}'}}, b: {queue: p}", input={"v": 7})
    first, second = play.last.dispatches
    assert (first.queue, first.name, first.job_id, first.data, first.n) == ("q", "j", "run_1_a_1", {"v": 7}, 1)
    assert (first.attempts, first.backoff) == (2, {"type": "fixed", "delay": 3000})
    assert (second.queue, second.name, second.data, second.attempts, second.backoff) == ("p", "k", {"v": 7}, None, None)
    assert play.run.status == RunStatus.RUNNING


def test_the_triggers_job_takes_the_counter_as_its_id() -> None:
    play = Play(CHAIN, "triggers: [{queue: q}]", trigger="a")
    assert play.last.dispatches[0].job_id == ""
    assert public(play.run)["steps"]["a"]["jobId"] is None
    play.tell(JobLost(step="a", n=1))
    assert play.last.dispatches[0].job_id == "run_1_a_2"


def test_data_reads_results_of_needs() -> None:
    play = Play("a: {queue: q}, b: {queue: q, needs: a, with: {p: '${{ steps.a.result.path }}', s: '${{ steps.a.status }} ${{ run.id }}'}}")
    play.done("a", {"path": "/x"})
    assert play.last.dispatches[0].data == {"p": "/x", "s": "completed run_1"}


# --- repeated and late outcomes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        JobEnded(step="a", n=1),
        JobEnded(step="a", n=1, error="late"),
        JobEnded(step="b", n=2),
        JobEnded(step="b", n=0),
        JobEnded(step="c", n=0),
        JobEnded(step="c", n=1),
        JobEnded(step="nope", n=1),
        JobLost(step="a", n=1),
        JobLost(step="b", n=2),
        JobLost(step="nope", n=1),
        TimerFired(step="a", n=1),
        TimerFired(step="b", n=1),
        TimerFired(step="nope", n=1),
        TimerFired(),
        RetryRequested(by="me"),
    ],
)
def test_what_is_no_news_changes_nothing(outcome: Outcome) -> None:
    play = Play(CHAIN)  # without timeouts
    play.play("a")
    assert play.tell(outcome) is None


@pytest.mark.parametrize("script", ["a b c", "a!"])
def test_an_ended_run_takes_nothing_but_a_retry(script: str) -> None:
    play = Play(CHAIN, "timeout: 1h")
    play.play(script)
    for step in "abc":
        for n in range(3):
            for outcome in (JobEnded(step=step, n=n), JobLost(step=step, n=n), TimerFired(step=step, n=n)):
                assert play.tell(outcome) is None
    assert play.tell(TimerFired(n=0)) is None
    assert play.tell(CancelRequested(by="me")) is None
    assert play.tell(Broken(reason="x")) is None
    assert (play.tell(RetryRequested(by="me")) is None) == (play.run.status == RunStatus.COMPLETED)


def test_a_lost_job_is_dispatched_again_and_its_old_end_ignored() -> None:
    play = Play("a: {queue: q, timeout: 1m}")
    lost = play.tell(JobLost(step="a", n=1))
    assert lost is not None
    assert [(job.job_id, job.n) for job in lost.dispatches] == [("run_1_a_2", 2)]
    assert lost.events == ()
    assert lost.timers_over == (Timer(due=0, step="a", n=1),)
    assert lost.timers == (Timer(due=2_000 + 60_000, step="a", n=2),)
    assert play.tell(JobEnded(step="a", n=1)) is None
    assert play.tell(JobEnded(step="a", n=2)) is not None


# --- time -----------------------------------------------------------------------------------------------------------------


def test_a_steps_time_is_up() -> None:
    play = Play("a: {queue: q}, b: {queue: p, needs: a, timeout: 10m}, c: {queue: q, needs: b}")
    assert play.last.timers == ()
    play.play("a")
    assert play.last.timers == (Timer(due=2_000 + 600_000, step="b", n=1),)
    decision = play.tell(TimerFired(step="b", n=1))
    assert decision is not None
    reason = "timed out: not ended 10m after its job was added"
    assert decision.cancellations == (Cancellation(queue="p", job_id="run_1_b_1", reason=reason),)
    assert decision.run.steps["b"].error == reason
    assert play.statuses == "a:completed b:failed c:blocked"
    assert decision.run.error == f"step b failed: {reason}"
    assert Timer(due=0, step="b", n=1) in decision.timers_over


def test_a_steps_timer_is_over_when_it_ends() -> None:
    play = Play("a: {queue: q, timeout: 1m}, b: {queue: q}")
    play.play("a")
    assert play.last.timers_over == (Timer(due=0, step="a", n=1),)


def test_a_runs_time_is_up() -> None:
    play = Play("a: {queue: q}, b: {queue: p}, c: {queue: q, needs: a}", "timeout: 1h")
    assert play.last.timers == (Timer(due=1_000 + 3_600_000),)
    play.play("a")
    decision = play.tell(TimerFired())
    assert decision is not None
    assert (decision.run.status, decision.run.error) == (RunStatus.FAILED, "timed out: not ended after 1h")
    assert play.statuses == "a:completed b:cancelled c:cancelled"
    assert {job.job_id for job in decision.cancellations} == {"run_1_b_1", "run_1_c_1"}
    assert play.events[-1] == "failed"


def test_a_timer_of_an_earlier_generation_does_not_end_the_retried_run() -> None:
    play = Play("a: {queue: q}", "timeout: 1h")
    play.play("a!")
    assert play.last.timers_over == (Timer(due=0),)
    play.tell(RetryRequested(by="me"))
    assert play.last.timers == (Timer(due=play.now + 3_600_000, n=1),)
    assert play.tell(TimerFired(n=0)) is None
    assert play.tell(TimerFired(n=1)) is not None


# --- cancel, retry, broken ------------------------------------------------------------------------------------------------


def test_cancel() -> None:
    play = Play("a: {queue: q}, b: {queue: p, timeout: 1m}, c: {queue: q, needs: a}, d: {queue: q, needs: c, run_on: always}", "timeout: 1h")
    play.play("a")
    decision = play.tell(CancelRequested(by="u-1"))
    assert decision is not None
    assert play.statuses == "a:completed b:cancelled c:cancelled d:cancelled"
    assert (decision.run.status, decision.run.error) == (RunStatus.CANCELLED, "cancelled by u-1")
    assert decision.dispatches == ()
    assert {(job.queue, job.job_id) for job in decision.cancellations} == {("p", "run_1_b_1"), ("q", "run_1_c_1")}
    assert set(decision.timers_over) == {Timer(due=0, step="b", n=1), Timer(due=0)}
    assert [(event.type, event.data["reason"]) for event in decision.events] == [("workflow.cancelled", "cancelled by u-1")]


def test_retry_runs_what_failed_and_what_it_blocked() -> None:
    play = Play(FORK)
    play.play("a b! c")
    play.tell(RetryRequested(by="me"))
    assert play.statuses == "a:completed b:running c:completed d:pending"
    assert [(job.job_id, job.n) for job in play.last.dispatches] == [("run_1_b_2", 2)]
    assert (play.run.status, play.run.generation, play.run.error, play.run.finished_at) == (RunStatus.RUNNING, 1, None, None)
    assert play.tell(JobEnded(step="b", n=1)) is None
    play.play("b d")
    assert play.run.status == RunStatus.COMPLETED
    assert Counter(play.dispatched) == {"a": 1, "b": 2, "c": 1, "d": 1}


def test_retry_after_cancel() -> None:
    play = Play(CHAIN)
    play.play("a")
    play.tell(CancelRequested(by="me"))
    play.tell(RetryRequested(by="me"))
    assert play.statuses == "a:completed b:running c:pending"
    assert play.run.steps["b"].n == 2


def test_retry_judges_skipped_steps_below_a_failure_again() -> None:
    play = Play("a: {queue: q}, b: {queue: q, needs: a, run_on: always, if: steps.a.status == 'completed'}, c: {queue: q, if: 'false'}")
    play.play("a!")
    assert play.statuses == "a:failed b:skipped c:skipped"
    play.tell(RetryRequested(by="me"))
    assert play.statuses == "a:running b:pending c:skipped"
    play.play("a b")
    assert play.run.status == RunStatus.COMPLETED


def test_a_second_failure_is_a_new_event() -> None:
    play = Play("a: {queue: q, with: {x: '${{ input.p }}'}}, b: {queue: q, needs: a}")
    play.tell(RetryRequested(by="me"))
    play.tell(RetryRequested(by="me"))
    ids = [event.id for decision in play.decisions for event in decision.events]
    assert len(ids) == len(set(ids))
    assert Counter(play.events) == {"started": 1, "retried": 2, "step.failed a": 3, "step.blocked b": 3, "failed": 3}


def test_a_broken_run_fails_with_the_reason() -> None:
    play = Play(CHAIN)
    decision = play.tell(Broken(reason="the engine failed 5 times: " + "x" * 5000))
    assert decision is not None
    assert decision.run.status == RunStatus.FAILED
    assert decision.run.error is not None
    assert decision.run.error.startswith("the engine failed 5 times: x")
    assert len(decision.run.error) < 2100
    assert [job.job_id for job in decision.cancellations] == ["run_1_a_1"]


# --- output ---------------------------------------------------------------------------------------------------------------


def test_output() -> None:
    play = Play("a: {queue: q}", "output: {score: '${{ steps.a.result.score }}'}")
    play.done("a", {"score": 88})
    assert play.run.output == {"score": 88}
    assert play.last.events[-1].data["output"] == {"score": 88}


def test_an_output_without_a_value_fails_the_run() -> None:
    play = Play("a: {queue: q}", "output: ${{ steps.a.result.score }}")
    play.play("a")
    assert play.run.status == RunStatus.FAILED
    assert play.run.error == "the output has no value: ${{ steps.a.result.score }}: steps.a.result is null"


# --- events ---------------------------------------------------------------------------------------------------------------


def test_events_of_a_run() -> None:
    play = Play(CHAIN, input={"documentId": "doc-1"})
    play.tell(JobEnded(step="a", n=1, result={"path": "/x"}, attempts=2, started_at=1_500, finished_at=1_750))
    play.play("b!")
    assert play.events == ["started", "step.completed a", "step.failed b", "step.blocked c", "failed"]
    started, completed, failed, blocked, ended = (event for decision in play.decisions for event in decision.events)
    subject = {"runId": "run_1", "workflow": "w", "version": 1, "userId": "u-1", "documentId": "doc-1"}
    about = {"queue": "q", "job": "j"}
    assert started.data == subject | {"status": "running", "steps": {"a": "pending", "b": "pending", "c": "pending"}}
    assert completed.data == subject | about | {
        "step": "a", "status": "completed", "jobId": "run_1_a_1", "attempts": 2, "durationMs": 250, "result": {"path": "/x"}
    }  # fmt: skip
    assert failed.data == subject | about | {
        "step": "b",
        "status": "failed",
        "jobId": "run_1_b_1",
        "attempts": 1,
        "durationMs": 1000,
        "error": "boom",
    }
    assert blocked.data == subject | about | {"step": "c", "status": "blocked", "reason": "step b is failed"}
    steps = {"a": "completed", "b": "failed", "c": "blocked"}
    assert ended.data == subject | {"status": "failed", "steps": steps, "durationMs": 2000, "error": "step b failed: boom"}
    assert completed.id == event_id("workflow.step.completed", "run_1", "a", 1)
    assert ended.id == event_id("workflow.failed", "run_1", 0)


def test_a_document_id_that_is_no_text_is_left_out() -> None:
    assert "documentId" not in Play(CHAIN, input={"documentId": 7}).last.events[0].data
    assert "documentId" not in Play(CHAIN, input=["documentId"]).last.events[0].data


def test_the_public_shape() -> None:
    play = Play(CHAIN, input={"x": 1})
    play.tell(JobEnded(step="a", n=1, result=[1], attempts=1, started_at=1_500, finished_at=1_750))
    shown = public(play.run)
    assert {name: shown[name] for name in shown if name not in ("steps", "input")} == {
        "runId": "run_1", "workflow": "w", "version": 1, "status": "running", "userId": "u-1", "output": None, "error": None,
        "createdAt": "1970-01-01T00:00:01.000Z", "finishedAt": None,
    }  # fmt: skip
    assert shown["steps"]["a"] == {
        "status": "completed", "jobId": "run_1_a_1", "attempts": 1, "progress": 100, "result": [1], "error": None, "reason": None,
        "startedAt": "1970-01-01T00:00:01.500Z", "finishedAt": "1970-01-01T00:00:01.750Z",
    }  # fmt: skip
    assert shown["steps"]["c"]["startedAt"] is None


# --- any graph, any order -------------------------------------------------------------------------------------------------

RUN_ON = ["[completed, skipped]", "completed", "failed", "[completed, failed]", "always"]


@st.composite
def graphs(draw: st.DrawFn) -> Definition:
    """Up to seven steps, each needing some earlier ones, written in any order."""
    steps = []
    for index in range(draw(st.integers(1, 7))):
        needs = sorted(draw(st.sets(st.integers(0, index - 1), max_size=3))) if index else []
        parts = [f"queue: {draw(st.sampled_from('qp'))}"]
        if needs:
            parts += [f"needs: [{', '.join(f's{need}' for need in needs)}]", f"run_on: {draw(st.sampled_from(RUN_ON))}"]
            if draw(st.integers(0, 3)) == 0:
                parts.append(f"if: steps.s{needs[0]}.status == 'completed'")
            if draw(st.integers(0, 3)) == 0:
                parts.append(f"with: {{x: '${{{{ steps.s{needs[-1]}.result.x }}}}'}}")
        if draw(st.integers(0, 3)) == 0:
            parts.append("continue_on_error: true")
        if draw(st.booleans()):
            parts.append("timeout: 1m")
        steps.append(f"s{index}: {{{', '.join(parts)}}}")
    return define(", ".join(draw(st.permutations(steps))), "timeout: 1h" if draw(st.booleans()) else "")


def an_outcome(draw: st.DrawFn, run: Run) -> Outcome:
    """Mostly an end of a running job; also what is late, lost, repeated or asked for."""
    running = [(id, step.n) for id, step in run.steps.items() if step.status == StepStatus.RUNNING]
    kind = draw(st.sampled_from(["end", "end", "end", "end", "end", "lost", "timer", "stray", "run timer", "cancel", "retry", "broken"]))
    if kind in ("end", "lost", "timer") and running:
        step, n = draw(st.sampled_from(running))
        if kind == "lost":
            return JobLost(step=step, n=n)
        if kind == "timer":
            return TimerFired(step=step, n=n)
        return JobEnded(step=step, n=n, **draw(st.sampled_from([{"result": {"x": 1}}, {"result": None}, {"error": "boom"}])))
    if kind == "run timer":
        return TimerFired(n=draw(st.integers(0, 2)))
    if kind == "cancel":
        return CancelRequested(by="me")
    if kind == "broken":
        return Broken(reason="broken")
    if kind == "retry":
        return RetryRequested(by="me")
    return JobEnded(step=draw(st.sampled_from(list(run.steps))), n=draw(st.integers(0, 4)))


class Watch:
    """Checks every decision against what must hold whatever happens."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.event_ids: set[str] = set()
        self.job_ids: set[str] = set()
        self.taken: list[Outcome] = []

    def see(self, before: Run | None, outcome: Outcome | None, decision: Decision) -> None:
        run = decision.run
        assert decode(encode(run)) == run
        for event in decision.events:
            assert event.id not in self.event_ids, f"{event.type} told twice"
            self.event_ids.add(event.id)
        for job in decision.dispatches:
            assert job.job_id not in self.job_ids, f"{job.job_id} dispatched twice"
            self.job_ids.add(job.job_id)
            assert run.steps[job.step].status == StepStatus.RUNNING
            assert run.steps[job.step].n == job.n
            assert all(run.steps[need].status.terminal for need in self.definition.steps[job.step].needs)
        for id, step in run.steps.items():
            was = before.steps[id] if before else None
            if was and was.status.terminal and not isinstance(outcome, RetryRequested):
                assert step == was, "an ended step changed"
        ended = all(step.status.terminal for step in run.steps.values())
        assert ended == run.status.terminal, "a run ends exactly when its steps have"
        assert (run.status == RunStatus.RUNNING) == any(step.status == StepStatus.RUNNING for step in run.steps.values())
        if run.status.terminal and outcome and isinstance(outcome, JobEnded):
            fatal = [id for id, step in run.steps.items() if step.status == StepStatus.FAILED and not self.definition.steps[id].continue_on_error]
            assert (run.status == RunStatus.FAILED) == bool(fatal)
        self.taken += [outcome] if outcome else []


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_any_graph_and_any_order_of_outcomes(data: st.DataObject) -> None:
    definition = data.draw(graphs())
    watch = Watch(definition)
    decision = machine.start(definition, run_id="run_1", user_id=None, input={}, now=1, trigger_step=None)
    watch.see(None, None, decision)
    run = decision.run
    for now in range(2, 2 + data.draw(st.integers(0, 25))):
        outcome = data.draw(st.composite(lambda draw, run: an_outcome(draw, run))(run))
        moved = machine.advance(definition, run, outcome, now)
        assert moved == machine.advance(definition, run, outcome, now), "the same question got two answers"
        if moved:
            watch.see(run, outcome, moved)
            run = moved.run
            if not isinstance(outcome, RetryRequested) or run.status == RunStatus.RUNNING:
                assert machine.advance(definition, run, outcome, now) is None, f"{outcome} was taken twice"
    # Whatever happened, once every job that is under way ends, so does the run.
    for now in range(100, 100 + len(run.steps) + 1):
        for id, step in run.steps.items():
            if step.status == StepStatus.RUNNING:
                end = JobEnded(step=id, n=step.n, result={"x": 1})
                moved = machine.advance(definition, run, end, now)
                assert moved
                watch.see(run, end, moved)
                run = moved.run
                break
    assert run.status.terminal
    for outcome in watch.taken:
        if not isinstance(outcome, RetryRequested):
            assert machine.advance(definition, run, outcome, 1000) is None, f"{outcome} was taken again by an ended run"


def test_the_state_is_never_changed_in_place() -> None:
    play = Play(FORK)
    before = play.run
    kept = replace(before, steps=dict(before.steps))
    play.play("a b! c")
    assert before == kept


def test_a_held_step_waits_and_then_ends_as_any_other() -> None:
    definition = define("a: {queue: q}")
    run = machine.start(definition, run_id="run_1", user_id="u", input={}, now=1).run
    held = machine.advance(definition, run, JobHeld(step="a", n=1), 2)
    assert held
    assert (held.run.steps["a"].status, held.events, held.dispatches) == (StepStatus.WAITING, (), ())
    assert machine.advance(definition, held.run, JobHeld(step="a", n=1), 3) is None
    assert machine.advance(definition, held.run, JobHeld(step="a", n=2), 3) is None
    ended = machine.advance(definition, held.run, JobEnded(step="a", n=1, result=1), 4)
    assert ended
    assert ended.run.status == RunStatus.COMPLETED
    cancelled = machine.advance(definition, held.run, CancelRequested(by="me"), 4)
    assert cancelled
    assert [job.job_id for job in cancelled.cancellations] == ["run_1_a_1"]


def test_a_step_that_was_held_is_told_of_once_also_after_its_end() -> None:
    """What a killed engine had read comes again after what others have read since."""
    definition = define("a: {queue: q}")
    run = machine.start(definition, run_id="r", user_id=None, input=None, now=1).run
    ended = machine.advance(definition, run, JobEnded(step="a", n=1, result=1), 2)
    assert ended
    held = machine.advance(definition, ended.run, JobHeld(step="a", n=1), 3)
    assert held
    assert (held.run.status, held.run.steps["a"].status, held.events) == (RunStatus.COMPLETED, StepStatus.COMPLETED, ())
    assert machine.advance(definition, held.run, JobHeld(step="a", n=1), 4) is None
