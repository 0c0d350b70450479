"""Runs on a real store: each transition once over a log that may be read twice, whatever dies or is removed meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from pipeline.config import Config
from pipeline.errors import Conflict, InvalidInput, NotFound, Unavailable
from pipeline.jobs.bridge import Bridge
from pipeline.jobs.calls import now_ms
from pipeline.jobs.queues import Queues
from pipeline.store import connection
from pipeline.store.event import Event, event_id
from pipeline.store.group import Group
from pipeline.store.idempotency import Answer, Claim
from pipeline.store.keys import Keys
from pipeline.store.log import Log
from pipeline.store.wire import Wire
from pipeline.workflows import engine as engine_module
from pipeline.workflows import recovery as recovery_module
from pipeline.workflows.commits import TOGETHER, Commit, Commits
from pipeline.workflows.definition import compile_all
from pipeline.workflows.definitions import Definitions
from pipeline.workflows.engine import Engine
from pipeline.workflows.model import CancelRequested, JobEnded, JobLost, Run, RunStatus, StepStatus
from pipeline.workflows.recovery import Recovery
from pipeline.workflows.runs import Runs
from pipeline.workflows.timers import Timers
from pipeline.workflows.transitions import News, Transitions
from pipeline.workflows.written import MAX_STEPS
from tests.support.jobs import take
from tests.support.valkey import Valkey

HOUR = 3_600_000
CONFIG = Config(
    queues={name: {"processors": {"do": "x:y"}} for name in ("first", "second", "third")},
    workflows={
        "chain": {
            "version": 1,
            "timeout": "1h",
            "triggers": [{"queue": "first"}],
            "input": {"type": "object", "required": ["documentId"]},
            "steps": {
                "one": {"queue": "first", "with": {"documentId": "${{ input.documentId }}"}, "timeout": "10m"},
                "two": {"needs": ["one"], "queue": "second", "with": {"got": "${{ steps.one.result.value }}"}},
                "three": {"needs": ["two"], "queue": "third", "with": {"text": "value ${{ steps.two.result.value }}"}},
            },
        }
    },
)


class House:
    """The engine's parts over one store, without workers: the tests end jobs themselves."""

    def __init__(self, url: str, config: Config = CONFIG) -> None:
        self.redis = connection.connect(url)
        self.keys = Keys("hookline")
        self.queues = Queues(self.redis, config)
        self.log = Log(self.redis, self.keys.log)
        self.definitions = Definitions(self.redis, self.keys, compile_all(config))
        self.transitions = Transitions(self.redis, self.keys, self.queues, self.definitions)
        self.runs = Runs(self.redis, self.keys, self.queues, self.definitions, self.transitions)
        self.bridge = Bridge(self.redis, self.keys, self.queues)
        self.recovery = Recovery(self.redis, self.keys, self.log, self.queues, self.bridge, self.definitions, self.transitions, CONFIG.retention)
        self.timers = Timers(self.redis, self.keys, self.transitions)

    def group(self, consumer: str) -> Group:
        return Group(self.redis, self.keys.log, "engine", consumer)

    def engine(self, consumer: str = "e1") -> Engine:
        return Engine(self.group(consumer), self.transitions)

    async def start(self, **more: Any) -> str:
        return (await self.runs.start("chain", {"documentId": "d1"}, user_id="u1", **more)).run_id

    async def ended(self, run_id: str, step: str, result: Any = None, *, n: int = 1, error: str | None = None) -> Event:
        """Append the end of a step's job to the log, as the finish transaction does."""
        type = "job.failed" if error else "job.completed"
        data = {"queue": "q", "job": "do", "jobId": f"{run_id}_{step}_{n}", "runId": run_id, "workflow": "chain", "step": step, "n": n, "attempts": 1}
        event = Event(
            id=event_id(type, run_id, step, n), type=type, timestamp=now_ms(), data=data | {"error": error} if error else data | {"result": result}
        )
        (cursor,) = await self.log.append([event])
        event.cursor = cursor
        return event

    async def turn(self, consumer: str = "e1") -> None:
        """Let an engine handle what is in the log."""
        group = self.group(consumer)
        await group.create()
        while events := await group.read(count=100, block_ms=10):
            await Engine(group, self.transitions).handle(events)

    async def waiting(self, queue: str) -> list[str]:
        return list(await self.redis.lrange(self.queues.keys(queue).key("wait"), 0, -1))

    async def told(self, type: str) -> list[Event]:
        return [event for event in await self.log.after("", limit=1000) if event.type == type]

    async def status(self, run_id: str) -> dict[str, str]:
        run = await self.runs.get(run_id)
        assert run
        return {"run": run.status.value, **{id: step.status.value for id, step in run.steps.items()}}


@pytest.fixture
async def house(valkey: Valkey, redis: Redis) -> AsyncIterator[House]:
    made = House(valkey.socket_url)
    yield made
    await made.redis.aclose()


async def test_a_chain_runs_to_its_end(house: House) -> None:
    run_id = await house.start()
    assert await house.waiting("first") == [f"{run_id}_one_1"]
    await house.ended(run_id, "one", {"value": 1})
    await house.turn()
    assert await house.waiting("second") == [f"{run_id}_two_1"]
    job = await house.queues.job("second", f"{run_id}_two_1")
    assert job
    assert job.data == {"got": 1}
    assert job.origin
    assert (job.origin.run, job.origin.step, job.origin.n) == (run_id, "two", 1)
    await house.ended(run_id, "two", {"value": "x"})
    await house.ended(run_id, "three")
    await house.turn()
    await house.ended(run_id, "three")
    await house.turn()
    assert await house.status(run_id) == {"run": "completed", "one": "completed", "two": "completed", "three": "completed"}
    timeline = await house.runs.timeline(run_id)
    kinds = [(event["type"], event["data"].get("step")) for event in timeline.items]
    assert kinds == [
        ("workflow.started", None), ("job.completed", "one"), ("workflow.step.completed", "one"), ("job.completed", "two"),
        ("workflow.step.completed", "two"), ("job.completed", "three"), ("workflow.step.completed", "three"), ("workflow.completed", None),
    ]  # fmt: skip
    assert await house.redis.zcard(house.keys.timers) == 0
    assert await house.log.acknowledged("engine", await house.log.last())


async def test_two_engines_given_the_same_entry_at_once_make_one_transition(house: House) -> None:
    run_id = await house.start()
    event = await house.ended(run_id, "one", {"value": 1})
    for consumer in ("e1", "e2"):
        await house.group(consumer).create()
    await asyncio.gather(*(house.engine(consumer).handle([event]) for consumer in ("e1", "e2")))
    assert await house.waiting("second") == [f"{run_id}_two_1"]
    assert len(await house.told("workflow.step.completed")) == 1


async def test_a_run_that_another_engine_has_moved_meanwhile_is_read_again(house: House, valkey: Valkey) -> None:
    """Each engine keeps the runs as it left them: what it knows of one may be old."""
    other = House(valkey.socket_url)
    run_id = await house.start()
    await house.turn()
    apply, theirs = house.transitions.apply, other.transitions.apply
    await apply(run_id, JobEnded(step="one", n=1, result={"value": 1}))
    await theirs(run_id, JobLost(step="two", n=1))
    # To what the first engine remembers this is no news, for there n is 1 still.
    assert await apply(run_id, JobEnded(step="two", n=2, result={"value": 2}))
    await theirs(run_id, JobLost(step="three", n=1))
    # And here its commit is refused.
    assert await apply(run_id, CancelRequested(by="me"))
    view = await house.runs.get(run_id)
    assert view
    assert (view.status, view.steps["two"].result, view.steps["three"].n) == (RunStatus.CANCELLED, {"value": 2}, 2)
    told = [item["type"] for item in (await house.runs.timeline(run_id)).items]
    assert told.count("workflow.step.completed") == 2
    await other.redis.aclose()


async def test_an_entry_read_again_after_its_job_ran_and_was_removed_adds_nothing(house: House) -> None:
    """BullMQ forgets a job's id with its hash: adding it again would run it again (reference: A2)."""
    run_id = await house.start()
    event = await house.ended(run_id, "one", {"value": 1})
    await house.turn()
    await house.redis.delete(house.queues.keys("second").key(f"{run_id}_two_1"), house.queues.keys("second").key("wait"))
    await asyncio.gather(*(house.engine(consumer).handle([event]) for consumer in ("e1", "e2")))
    assert await house.waiting("second") == []
    assert len(await house.told("workflow.step.completed")) == 1


async def test_a_commit_whose_reply_was_lost_is_not_done_twice(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await house.start()
    event = await house.ended(run_id, "one", {"value": 1})
    await house.group("e1").create()
    original = Commits.send

    async def reply_lost(self: Commits, commits: Sequence[Commit], *, group: str) -> list[bool | ResponseError]:
        monkeypatch.setattr(Commits, "send", original)
        assert await original(self, commits, group=group) == [True]
        return await original(self, commits, group=group)

    monkeypatch.setattr(Commits, "send", reply_lost)
    await house.engine().handle([event])
    assert Commits.send is original
    assert await house.waiting("second") == [f"{run_id}_two_1"]
    assert len(await house.told("workflow.step.completed")) == 1


async def test_of_runs_that_move_together_each_moves_by_itself(house: House, valkey: Valkey) -> None:
    """One that another engine has moved is read again, one whose job cannot be added stays as it was, and neither keeps back the others."""
    other = House(valkey.socket_url)
    moved, stuck, sound = [await house.start() for _ in range(3)]
    for run_id in (moved, stuck):
        await house.ended(run_id, "one", {"value": 1})
    await house.turn()
    # The first engine remembers n as it was.
    await other.transitions.apply(moved, JobLost(step="two", n=1))
    await house.redis.set(house.queues.keys("third").key("wait"), "not a list")
    events = [await house.ended(moved, "two", n=1), await house.ended(stuck, "two", {"value": 2}), await house.ended(sound, "one", {"value": 1})]
    events.append(await house.ended(moved, "two", error="no luck", n=2))
    group = house.group("e1")
    await group.read(count=100, block_ms=10)
    await Engine(group, house.transitions).handle(events)
    assert (await house.status(moved))["run"] == "failed"
    assert await house.status(stuck) == {"run": "running", "one": "completed", "two": "running", "three": "pending"}
    assert (await house.status(sound))["two"] == "running"
    assert [row["message_id"] for row in await house.redis.xpending_range(house.keys.log, "engine", min="-", max="+", count=10)] == [events[1].cursor]
    await other.redis.aclose()


async def test_a_part_of_a_batch_is_on_its_way_while_the_next_is_decided(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [await house.start() for _ in range(TOGETHER + 1)]
    for run_id in runs:
        await house.ended(run_id, "one", {"value": 1})
    await house.turn()
    events = [await house.ended(run_id, "two", {"value": 1}) for run_id in runs]
    seen: list[str] = []
    decide, write = house.transitions.apply_all, Wire.write

    def deciding(news: Sequence[News]) -> Any:
        seen.append(f"{len(news)} decided")
        return decide(news)

    def writing(self: Wire, packed: list[bytes], slots: list[Any]) -> None:
        seen.append("sent")
        write(self, packed, slots)

    monkeypatch.setattr(house.transitions, "apply_all", deciding)
    monkeypatch.setattr(Wire, "write", writing)
    await house.engine().handle(events)
    assert seen == [f"{TOGETHER} decided", "sent", "1 decided", "sent"]


async def test_the_widest_workflow_moves_at_once(valkey: Valkey, redis: Redis) -> None:
    steps = {f"step{number}": {"queue": "first", "needs": ["root"]} for number in range(MAX_STEPS - 1)}
    wide = {"version": 1, "steps": {"root": {"queue": "second"}, **steps}}
    house = House(valkey.socket_url, CONFIG.model_copy(update={"workflows": {"wide": wide}}))
    run_id = (await house.runs.start("wide", {}, user_id=None)).run_id
    await house.ended(run_id, "root")
    await house.turn()
    assert len(await house.waiting("first")) == MAX_STEPS - 1
    assert (await house.runs.cancel(run_id, "me"))["status"] == "cancelled"
    assert await house.waiting("first") == []
    await house.redis.aclose()


async def test_a_job_that_cannot_be_removed_holds_up_no_run(valkey: Valkey, redis: Redis) -> None:
    """An external queue's job goes once its run has moved."""
    queues = {"theirs": {"processors": {"do": "external"}}, "odd": {"processors": {"do": "external"}}, "ours": {"processors": {"do": "x:y"}}}
    steps = {queue: {"steps": {"one": {"queue": queue}, "two": {"needs": ["one"], "queue": "ours"}}} for queue in ("theirs", "odd")}
    house = House(valkey.socket_url, Config(queues=queues, workflows=steps))
    ids = {queue: (await house.runs.start(queue, {}, user_id="u")).run_id for queue in ("odd", "theirs")}
    await house.redis.rename("bull:odd:wait", "aside")
    await house.redis.set("bull:odd:wait", "not a list")
    for queue, run_id in ids.items():
        data = {"queue": queue, "job": "do", "jobId": f"{run_id}_one_1", "runId": run_id, "step": "one", "n": 1}
        await house.log.append([Event(id=event_id("job.completed", run_id), type="job.completed", timestamp=now_ms(), data=data)])
    await house.turn()
    for run_id in ids.values():
        assert (await house.status(run_id))["two"] == "running"
    assert not await house.redis.exists(f"bull:theirs:{ids['theirs']}_one_1")
    assert await house.log.acknowledged("engine", await house.log.last())
    await house.redis.aclose()


async def test_a_retry_whose_reply_was_lost_is_answered_as_what_it_was(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await house.start()
    await house.runs.cancel(run_id, by="me")
    original = Transitions._commit

    async def reply_lost(self: Transitions, *arguments: Any) -> bool:
        monkeypatch.setattr(Transitions, "_commit", original)
        assert await original(self, *arguments)
        return await original(self, *arguments)

    monkeypatch.setattr(Transitions, "_commit", reply_lost)
    assert (await house.runs.retry(run_id, by="me"))["status"] == "running"
    assert len(await house.told("workflow.retried")) == 1


async def test_a_start_that_is_repeated_with_its_key_starts_one_run(house: House) -> None:
    claim, answer = (
        Claim(key="hookline:idempotency:k", fingerprint="f"),
        Answer(status=202, headers={"Location": "/api/runs/@run@"}, body='{"runId":"@run@"}'),
    )
    first = await house.runs.start("chain", {"documentId": "d"}, user_id="u", claim=claim, answer=answer)
    second = await house.runs.start("chain", {"documentId": "d"}, user_id="u", claim=claim, answer=answer)
    assert second.replay
    assert second.replay.headers == {"Location": f"/api/runs/{first.run_id}"}
    assert len(await house.told("workflow.started")) == 1
    with pytest.raises(Conflict):
        await house.runs.start("chain", {"documentId": "e"}, user_id="u", claim=Claim(key=claim.key, fingerprint="other"), answer=answer)


async def test_a_queues_own_job_becomes_the_first_step(house: House) -> None:
    started = await house.runs.start("chain", {"documentId": "d"}, user_id="u", trigger="first")
    assert started.job_id == "1"
    assert await house.waiting("first") == ["1"]
    run = await house.runs.get(started.run_id)
    assert run
    assert run.steps["one"].job_id == "1"
    await house.ended(started.run_id, "one", {"value": 1})
    await house.turn()
    run = await house.runs.get(started.run_id)
    assert run
    assert (run.steps["one"].job_id, run.steps["one"].status) == ("1", StepStatus.COMPLETED)


async def test_a_run_keeps_the_definition_it_started_with(house: House, valkey: Valkey) -> None:
    """Another process, with another config.yaml, goes on with what the run was started as; a new run takes the new one."""
    old = await house.start()
    steps = {"one": {"queue": "first", "with": {"documentId": "x"}}, "instead": {"needs": ["one"], "queue": "third", "with": {}}}
    changed = CONFIG.model_copy(update={"workflows": {"chain": {"version": 2, "steps": steps}}})
    other = House(valkey.socket_url, changed)
    new = await other.start()
    for run_id in (old, new):
        await other.ended(run_id, "one", {"value": 1})
    await other.turn()
    assert await house.waiting("second") == [f"{old}_two_1"]
    assert await house.waiting("third") == [f"{new}_instead_1"]
    shown = await other.runs.view(old)
    assert shown
    assert shown["version"] == 1
    await other.redis.aclose()


async def test_a_failed_run_is_retried_from_the_failed_step(house: House) -> None:
    run_id = await house.start()
    await house.ended(run_id, "one", {"value": 1})
    await house.turn()
    await house.ended(run_id, "two", error="no luck")
    await house.turn()
    assert await house.status(run_id) == {"run": "failed", "one": "completed", "two": "failed", "three": "blocked"}
    with pytest.raises(Conflict):
        await house.runs.cancel(run_id, by="me")
    shown = await house.runs.retry(run_id, by="me")
    assert (shown["status"], shown["steps"]["two"]["status"]) == ("running", "running")
    assert f"{run_id}_two_2" in await house.waiting("second")
    await house.ended(run_id, "two", {"value": 2}, n=2)
    await house.turn()
    await house.ended(run_id, "three")
    await house.turn()
    assert (await house.status(run_id))["run"] == "completed"
    with pytest.raises(Conflict):
        await house.runs.retry(run_id, by="me")


async def test_a_cancelled_runs_waiting_job_is_removed_and_its_running_one_told(house: House) -> None:
    waiting, running = await house.start(), await house.start()
    keys = house.queues.keys("first")
    await house.redis.set(keys.key(f"{running}_one_1:lock"), "t")
    for run_id in (waiting, running):
        assert (await house.runs.cancel(run_id, by="me"))["status"] == "cancelled"
        assert (await house.runs.cancel(run_id, by="me"))["status"] == "cancelled"
    assert await house.waiting("first") == [f"{running}_one_1"]
    assert not await house.redis.exists(keys.key(f"{waiting}_one_1"))
    assert await house.redis.hget(keys.key(f"{running}_one_1"), "defa") == "cancelled by me"
    await house.ended(running, "one", {"value": 1})
    await house.turn()
    assert await house.status(running) == {"run": "cancelled", "one": "cancelled", "two": "cancelled", "three": "cancelled"}


async def test_timers_fire_once_and_end_what_they_time(house: House) -> None:
    run_id = await house.start()
    await house.timers.fire(now_ms())
    assert (await house.status(run_id))["run"] == "running"
    await asyncio.gather(house.timers.fire(now_ms() + 600_001), house.timers.fire(now_ms() + 600_001))
    assert await house.status(run_id) == {"run": "failed", "one": "failed", "two": "blocked", "three": "blocked"}
    run = await house.runs.get(run_id)
    assert run
    assert "timed out" in str(run.error)
    assert await house.waiting("first") == []
    assert len(await house.told("workflow.failed")) == 1
    assert await house.redis.zcard(house.keys.timers) == 0


async def test_timers_outlive_an_error_that_is_not_the_stores_absence(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that died would be missed by nobody, and no step would time out again."""
    run_id = await house.start()
    await house.redis.rename(house.keys.timers, "aside")
    await house.redis.set(house.keys.timers, "not a sorted set")
    raised, fired = asyncio.Event(), asyncio.Event()
    fire = house.timers.fire

    async def watched(now: int) -> float:
        try:
            await fire(now + 600_001)
        except Exception:
            raised.set()
            raise
        fired.set()
        return 0.01

    monkeypatch.setattr(house.timers, "fire", watched)
    task = asyncio.create_task(house.timers.run())
    await asyncio.wait_for(raised.wait(), 5)
    await house.redis.rename("aside", house.keys.timers)
    await asyncio.wait([asyncio.create_task(fired.wait()), task], timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done()
    task.cancel()
    assert (await house.status(run_id))["run"] == "failed"


async def test_a_job_removed_by_foreign_hands_is_dispatched_again_once_the_engine_has_read_everything(house: House) -> None:
    run_id = await house.start()
    await house.group("e1").create()
    await house.redis.delete(house.queues.keys("first").key(f"{run_id}_one_1"), house.queues.keys("first").key("wait"))
    await house.recovery.look(now_ms())
    await house.recovery.look(now_ms())  # the engine has not acknowledged workflow.started yet: the job's end could still be coming
    assert await house.waiting("first") == []
    await house.turn()
    await house.recovery.look(now_ms())
    assert await house.waiting("first") == [f"{run_id}_one_2"]
    await house.ended(run_id, "one", {"value": "late"}, n=1)
    await house.turn()
    assert (await house.status(run_id))["one"] == "running"


async def test_a_job_that_ran_and_was_removed_by_retention_is_not_dispatched_again(house: House) -> None:
    run_id = await house.start()
    await house.turn()
    await house.redis.delete(house.queues.keys("first").key(f"{run_id}_one_1"), house.queues.keys("first").key("wait"))
    await house.ended(run_id, "one", {"value": 1})
    await house.recovery.look(now_ms())
    await house.recovery.look(now_ms())
    await house.turn()
    await house.recovery.look(now_ms())
    assert await house.waiting("first") == []
    assert (await house.status(run_id))["two"] == "running"


async def test_a_job_that_ends_while_recovery_looks_is_not_taken_for_lost(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the log is noted after the job was seen to be gone: its event is then known to lie before it."""
    run_id = await house.start()
    await house.turn()
    original = house.recovery._unreported

    async def unreported() -> AsyncIterator[tuple[Run, str]]:
        monkeypatch.setattr(house.recovery, "_unreported", original)
        await house.redis.delete(house.queues.keys("first").key(f"{run_id}_one_1"), house.queues.keys("first").key("wait"))
        await house.ended(run_id, "one", {"value": 1})
        async for found in original():
            yield found

    monkeypatch.setattr(house.recovery, "_unreported", unreported)
    await house.recovery.look(now_ms())
    await house.recovery.look(now_ms())
    assert await house.waiting("first") == []
    await house.turn()
    assert (await house.status(run_id))["two"] == "running"


async def test_what_cannot_be_recovered_holds_up_nothing_else(house: House, valkey: Valkey) -> None:
    odd, orphan, lost, old = [await house.start() for _ in range(4)]
    await house.runs.cancel(old, by="me")
    keys = house.queues.keys("first")
    # What a foreign worker in Python writes of `float("nan")`.
    await house.redis.hset(keys.key(f"{odd}_one_1"), mapping={"returnvalue": "NaN", "finishedOn": now_ms(), "processedOn": now_ms(), "atm": 1})
    await house.redis.delete(keys.key(f"{orphan}_one_1"), keys.key(f"{lost}_one_1"), keys.key("wait"))
    state = await house.redis.hget(house.keys.run(orphan), "state")
    await house.redis.hset(house.keys.run(orphan), "state", state.replace(house.definitions.current["chain"].digest, "gone"))
    await house.turn()
    for _ in range(2):
        await house.recovery.look(now_ms() + CONFIG.retention.runs + HOUR)
    run = await house.runs.get(odd)
    assert run
    assert (run.status, run.steps["one"].error) == (RunStatus.FAILED, "its result is not JSON: 'NaN'")
    assert await house.waiting("first") == [f"{lost}_one_2"]
    assert await house.runs.get(old) is None


async def test_a_job_finished_by_a_foreign_worker_moves_its_run(house: House) -> None:
    run_id = await house.start()
    key = house.queues.keys("first").key(f"{run_id}_one_1")
    await house.redis.hset(key, mapping={"returnvalue": '{"value":7}', "finishedOn": now_ms(), "processedOn": now_ms(), "atm": 1})
    await house.turn()
    await house.recovery.look(now_ms())
    await house.recovery.look(now_ms())
    assert await house.waiting("second") == [f"{run_id}_two_1"]


async def test_runs_past_their_retention_are_forgotten_and_running_ones_kept(house: House) -> None:
    old, running = await house.start(), await house.start()
    await house.runs.cancel(old, by="me")
    await house.recovery.look(now_ms() + CONFIG.retention.runs + HOUR)
    assert await house.runs.get(old) is None
    assert await house.runs.get(running) is not None
    assert [run["runId"] for run in (await house.runs.list()).items] == [running]


async def test_retention_keeps_up_and_is_not_held_up_by_runs_that_still_run(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "PAGE", 2)
    running = [await house.start() for _ in range(3)]
    for _ in range(7):
        await house.runs.cancel(await house.start(), by="me")
    await house.recovery.look(now_ms() + CONFIG.retention.runs + HOUR)
    assert sorted(run["runId"] for run in (await house.runs.list()).items) == sorted(running)


async def test_a_steps_retry_goes_over_its_queues_settings(valkey: Valkey, redis: Redis) -> None:
    own = {"queue": "first", "job": "do", "retry": {"attempts": 7, "backoff": {"type": "fixed", "delay": "3s"}}}
    workflows = {"w": {"steps": {"own": own, "plain": {"queue": "first", "job": "do"}}}}
    queue = {"processors": {"do": "x:y"}, "attempts": 4, "backoff": {"type": "exponential", "delay": "9s"}, "keep": {"completed": 1, "failed": 2}}
    house = House(valkey.socket_url, Config(queues={"first": queue}, workflows=workflows))
    run_id = (await house.runs.start("w", {}, user_id="u")).run_id
    jobs = {step: f"{run_id}_{step}_1" for step in ("own", "plain")}
    opts = {step: orjson.loads(await redis.hget(f"bull:first:{job_id}", "opts")) for step, job_id in jobs.items()}
    assert (opts["own"]["attempts"], opts["own"]["backoff"]) == (7, {"type": "fixed", "delay": 3000})
    assert (opts["plain"]["attempts"], opts["plain"]["backoff"]) == (4, {"type": "exponential", "delay": 9000})
    assert {(one["removeOnComplete"]["count"], one["removeOnFail"]["count"]) for one in opts.values()} == {(1, 2)}
    await house.redis.aclose()


async def test_the_log_is_kept_as_long_as_it_should_be(house: House) -> None:
    await house.start()
    await house.turn()
    await house.recovery.look(now_ms() + CONFIG.retention.events - HOUR)
    assert len(await house.told("workflow.started")) == 1
    await house.recovery.look(now_ms() + CONFIG.retention.events + 1)
    assert await house.redis.xlen(house.keys.log) == 0
    await house.start()
    await house.recovery.look(now_ms() + CONFIG.retention.events + 1)
    assert (len(await house.told("workflow.started")), house.recovery.held_by) == (1, "engine")


async def test_an_entry_that_always_raises_fails_its_run_with_the_reason(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, healthy = await house.start(), await house.start()

    def broken(definition: Any, run: Any, outcome: Any, now: int) -> Any:
        if isinstance(outcome, engine_module.JobEnded) and run.id == run_id:
            raise RuntimeError("a bug")
        return original(definition, run, outcome, now)

    from pipeline.workflows import machine

    original = machine.advance
    monkeypatch.setattr(machine, "advance", broken)
    await house.ended(run_id, "one", {"value": 1})
    await house.ended(healthy, "one", {"value": 1})
    group = house.group("e1")
    group.CLAIM_AFTER_MS = 0
    await group.create()
    for _ in range(engine_module.RAISES):
        group._claimed_at = float("-inf")
        await Engine(group, house.transitions).handle(await group.read(count=100, block_ms=10))
    run = await house.runs.get(run_id)
    assert run
    assert run.status == RunStatus.FAILED
    assert "the engine failed 5 times on job.completed of step 'one': a bug" in str(run.error)
    assert (await house.status(healthy))["two"] == "running"


async def test_runs_under_way_go_on_in_a_full_store(house: House) -> None:
    """Otherwise nothing could be acknowledged, so nothing trimmed, so the store would stay full."""
    run_id = await house.start()
    await house.turn()
    event = await house.ended(run_id, "one", {"value": 1})
    await house.redis.config_set("maxmemory", 1)
    try:
        await house.engine("restarted").handle(await house.group("restarted").read(count=100, block_ms=10))
        assert await house.status(run_id) == {"run": "running", "one": "completed", "two": "running", "three": "pending"}
        assert await house.log.acknowledged("engine", event.cursor)
    finally:
        await house.redis.config_set("maxmemory", 0)


async def test_lists_are_paged_newest_first_and_filtered(house: House) -> None:
    ids = [await house.start() for _ in range(7)]
    await house.runs.cancel(ids[3], by="me")
    seen: list[str] = []
    cursor = None
    while True:
        page = await house.runs.list(limit=3, cursor=cursor)
        seen += [run["runId"] for run in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == sorted(ids, reverse=True)
    assert [run["runId"] for run in (await house.runs.list(status="cancelled")).items] == [ids[3]]
    assert len((await house.runs.list(user_id="u1", status="running", limit=100)).items) == 6
    assert (await house.runs.list(user_id="nobody")).items == []
    with pytest.raises(InvalidInput):
        await house.runs.list(cursor="yesterday")


async def test_what_cannot_start_is_refused(house: House, redis: Redis, valkey: Valkey) -> None:
    with pytest.raises(InvalidInput) as refused:
        await house.runs.start("chain", {"document": 1}, user_id="u")
    assert "documentId" in str(refused.value.faults[0])
    with pytest.raises(NotFound, match="known: chain"):
        await house.runs.start("chian", {}, user_id="u")
    with pytest.raises(NotFound):
        await house.runs.cancel("run_none", by="me")
    claim, answer = Claim(key="hookline:idempotency:k", fingerprint="f"), Answer(status=202, headers={}, body="{}")
    await house.start(claim=claim, answer=answer)
    used = (await redis.info("memory"))["used_memory"]
    full = House(valkey.socket_url)  # how full the store is, is asked for once a second
    await redis.config_set("maxmemory", int(used * 1.2))
    try:
        with pytest.raises(Unavailable, match="full"):
            await full.start()
        replayed = await full.runs.start("chain", {"documentId": "d1"}, user_id="u1", claim=claim, answer=answer)
        assert replayed.replay
    finally:
        await full.redis.aclose()
        await redis.config_set("maxmemory", 0)


async def test_a_running_steps_progress_is_shown(house: House) -> None:
    run_id = await house.start()
    shown = await house.runs.view(run_id)
    assert shown
    assert shown["steps"]["one"]["status"] == "pending"
    keys = house.queues.keys("first")

    await take(house.redis, keys)
    await house.redis.hset(keys.key(f"{run_id}_one_1"), "progress", "40")
    shown = await house.runs.view(run_id)
    assert shown
    assert {name: shown["steps"]["one"][name] for name in ("status", "progress", "attempts")} == {"status": "running", "progress": 40, "attempts": 1}
