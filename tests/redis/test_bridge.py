"""Jobs of external queues on a real store: each end told once and taken in once, however it is noticed and whoever dies meanwhile."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline.config import Config
from pipeline.jobs import bridge as bridge_module
from pipeline.jobs.calls import now_ms
from pipeline.store.event import event_id
from pipeline.store.idempotency import Answer, Claim
from tests.redis.test_engine import HOUR, House
from tests.support.events import count, events_until
from tests.support.foreign import Foreign
from tests.support.service import ROOT
from tests.support.valkey import Valkey

QUEUES = {
    "theirs": {"processors": {"do": "external"}, "keep": {"completed": 3, "failed": 2}},
    "ours": {"processors": {"do": "x:y"}},
}
STEPS = {"one": {"queue": "theirs", "timeout": "10m", "with": {"documentId": "${{ input.documentId }}"}}, "two": {"needs": ["one"], "queue": "ours"}}
CONFIG = Config(queues=QUEUES, workflows={"chain": {"version": 1, "triggers": [{"queue": "theirs"}], "steps": STEPS}})
SEEN: dict[str, Any] = {"told": 1, "moved": 1, "dispatched": True, "left": 0, "acknowledged": True}


@pytest.fixture
async def house(valkey: Valkey, redis: Redis) -> AsyncIterator[House]:
    made = House(valkey.socket_url, CONFIG)
    await made.bridge.open()
    yield made
    await made.redis.aclose()


@pytest.fixture
def foreign(house: House) -> Foreign:
    return Foreign(house.redis, "theirs")


@contextlib.asynccontextmanager
async def following(house: House) -> AsyncIterator[None]:
    task = asyncio.create_task(house.bridge.follow())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def look(house: House) -> None:
    """What the bridge finds, and what the engine makes of it."""
    await house.bridge.look(now_ms())
    await house.turn()


def hash_of(house: House, job_id: str) -> str:
    return house.queues.keys("theirs").key(job_id)


@pytest.mark.parametrize("way", ["stream", "look"])
def test_killed_at_any_of_its_commands_each_end_is_told_once_and_moves_its_run_once(valkey: Valkey, way: str) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "tests.support.cutoff", valkey.socket_url, way], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert child.returncode == 0, child.stderr
    windows = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
    assert len(windows) > {"stream": 5, "look": 12}[way]
    assert [window["killed"] for window in windows] == [True] * (len(windows) - 1) + [False]
    assert [window for window in windows if not SEEN.items() <= window.items()] == []


async def test_a_job_that_a_foreign_worker_ends_is_told_within_moments(house: House, foreign: Foreign) -> None:
    run_id = await house.start()
    waits: list[float] = []
    async with following(house):
        for number in range(1, 21):
            await house.queues.add("theirs", "do", {"number": number})
            job_id = await foreign.take()
            began = time.monotonic()
            await foreign.end(job_id, json.dumps({"value": number}))
            await events_until(house.log, count("job.completed", number))
            waits.append(time.monotonic() - began)
    assert sorted(waits)[10] < 0.1
    (first, *_) = await house.told("job.completed")
    assert first.id == event_id("job.completed", run_id, "one", 1)
    assert (first.data["job"], first.data["jobId"], first.data["runId"], first.data["step"]) == ("do", f"{run_id}_one_1", run_id, "one")
    assert (first.data["result"], first.data["attempts"], first.data["documentId"], first.data["userId"]) == ({"value": 1}, 1, "d1", "u1")
    await house.turn()
    assert await house.waiting("ours") == [f"{run_id}_two_1"]
    assert not await house.redis.exists(hash_of(house, f"{run_id}_one_1"))
    assert await house.redis.zcard(house.queues.keys("theirs").key("completed")) == 3


async def _stream_deleted(house: House) -> None:
    await house.redis.delete(house.queues.keys("theirs").key("events"))


async def _stream_trimmed(house: House) -> None:
    await house.redis.xtrim(house.queues.keys("theirs").key("events"), maxlen=1, approximate=False)


async def _position_ahead(house: House) -> None:
    await house.redis.hset(house.keys.bridge("theirs"), "stream", f"{now_ms() + HOUR}-0")


@pytest.mark.parametrize("damage", [_stream_deleted, _stream_trimmed, _position_ahead])
async def test_what_the_stream_does_not_tell_is_found_in_the_hashes(
    house: House, foreign: Foreign, valkey: Valkey, damage: Callable[[House], Any]
) -> None:
    runs = [await house.start() for _ in range(3)]
    for _ in runs:
        await foreign.do('{"value":1}')
    await damage(house)
    another = House(valkey.socket_url, CONFIG)
    async with following(another):
        await look(another)
        await look(house)
    assert len(await house.told("job.completed")) == 3
    assert sorted(await house.waiting("ours")) == sorted(f"{run_id}_two_1" for run_id in runs)
    assert await house.redis.zcard(house.queues.keys("theirs").key("completed")) == 0
    await another.redis.aclose()


async def test_any_number_of_bridges_tell_once(house: House, foreign: Foreign, valkey: Valkey) -> None:
    others = [House(valkey.socket_url, CONFIG) for _ in range(4)]
    async with contextlib.AsyncExitStack() as stack:
        for other in others:
            await stack.enter_async_context(following(other))
        for number in range(50):
            await house.queues.add("theirs", "do", number)
        for _ in range(50):
            await foreign.do()
            await asyncio.gather(*(other.bridge.look(now_ms()) for other in others))
    assert sorted(int(event.data["jobId"]) for event in await house.told("job.completed")) == list(range(1, 51))
    for other in others:
        await other.redis.aclose()


async def test_a_failure_is_told_when_no_attempt_is_left(house: House, foreign: Foreign) -> None:
    run_id = await house.start()
    job_id = await foreign.take()
    # As Node's retry leaves it: waiting again, with the reason of the attempt that failed.
    await house.redis.hset(hash_of(house, job_id), mapping={"failedReason": "first", "atm": 1})
    await look(house)
    assert await house.told("job.failed") == []
    await foreign.end(job_id, error="no luck")
    await look(house)
    (event,) = await house.told("job.failed")
    assert (event.data["error"], event.data["attempts"]) == ("no luck", 2)
    assert await house.status(run_id) == {"run": "failed", "one": "failed", "two": "blocked"}
    await house.runs.retry(run_id, by="me")
    await foreign.do('{"value":2}')
    await look(house)
    assert await house.status(run_id) == {"run": "running", "one": "completed", "two": "running"}
    assert await house.redis.keys("bull:theirs:run_*") == []


@pytest.mark.parametrize(
    ("result", "says"),
    [("NaN", "its result is not JSON: 'NaN'"), (json.dumps("x" * 70_000), "its result has 70,002 bytes of JSON; the limit is 65,536 (64 KiB)")],
)
async def test_a_result_that_our_own_worker_would_refuse_fails_the_step(house: House, foreign: Foreign, result: str, says: str) -> None:
    run_id = await house.start()
    await foreign.do(result)
    await look(house)
    run = await house.runs.get(run_id)
    assert run
    assert str(run.steps["one"].error).startswith(says)
    assert len(await house.told("job.failed")) == 1


async def test_a_cancelled_or_timed_out_steps_job_is_removed_and_a_late_end_is_ignored(house: House, foreign: Foreign) -> None:
    active = [await house.start(), await house.start()]
    jobs = [await foreign.take() for _ in active]
    waiting = [await house.start(), await house.start()]
    for run_id in (active[0], waiting[0]):
        await house.runs.cancel(run_id, by="me")
    await house.timers.fire(now_ms() + 600_001)
    assert await house.waiting("theirs") == []
    assert await house.redis.hget(hash_of(house, jobs[0]), "defa") == "cancelled by me"
    before = {run_id: await house.status(run_id) for run_id in (*active, *waiting)}
    assert [status["one"] for status in before.values()] == ["cancelled", "failed", "cancelled", "failed"]
    for job_id in jobs:
        await foreign.end(job_id, '{"value":1}')
    await look(house)
    assert {run_id: await house.status(run_id) for run_id in before} == before
    assert await house.waiting("ours") == []
    # Ignored, and gone all the same.
    assert await house.redis.keys("bull:theirs:run_*") == []
    assert await house.log.acknowledged("engine", await house.log.last())


async def test_a_step_whose_job_its_worker_removed_is_dispatched_again(house: House, foreign: Foreign) -> None:
    run_id = await house.start()
    await house.turn()
    await foreign.do(keep=True)
    assert not await house.redis.exists(hash_of(house, f"{run_id}_one_1"))
    for _ in range(2):
        await house.recovery.look(now_ms())
    assert await house.waiting("theirs") == [f"{run_id}_one_2"]


async def test_a_runs_job_is_found_whatever_time_its_worker_believes_in(house: House, foreign: Foreign) -> None:
    past, future = await house.start(), await house.start()
    await foreign.do(at=now_ms() - 24 * HOUR)
    await foreign.do(at=now_ms() + 24 * HOUR)
    await house.recovery.look(now_ms())
    await house.turn()
    assert sorted(await house.waiting("ours")) == sorted([f"{past}_two_1", f"{future}_two_1"])
    # A job that belongs to no run is found by its time; a clock that is ahead does not hide it.
    ids = [(await house.queues.add("theirs", "do", number)).job_id for number in range(2)]
    await foreign.do(at=now_ms() + HOUR)
    await look(house)
    await foreign.do()
    await look(house)
    assert [event.data["jobId"] for event in await house.told("job.completed")][2:] == ids


async def test_told_though_its_event_was_lost_a_run_is_moved_by_recovery(house: House, foreign: Foreign) -> None:
    """A store that lost the tail of its log: the mark says told, the run waits."""
    run_id = await house.start()
    await house.bridge.look(now_ms())
    await foreign.do('{"value":1}')
    await house.bridge.look(now_ms())
    (event,) = await house.told("job.completed")
    await house.redis.xdel(house.keys.log, event.cursor)
    await house.turn()
    for _ in range(2):
        await house.recovery.look(now_ms())
    assert await house.waiting("ours") == [f"{run_id}_two_1"]
    assert not await house.redis.exists(hash_of(house, f"{run_id}_one_1"))


async def test_more_ends_of_one_millisecond_than_a_page_holds(house: House, foreign: Foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "PAGE", 3)
    now = now_ms()
    runs = [await house.start() for _ in range(20)]
    for number in range(20):
        await foreign.do(at=now + (0 if number < 10 else number))
    await look(house)
    assert len(await house.told("job.completed")) == len(runs)


async def test_jobs_of_no_run_are_kept_as_the_queue_says_and_those_of_others_as_they_say(house: House, foreign: Foreign) -> None:
    await house.redis.hset("bull:theirs:theirs-1", mapping={"name": "do", "data": "{}", "opts": "{}", "timestamp": now_ms()})
    await house.redis.lpush("bull:theirs:wait", "theirs-1")
    await foreign.do()
    ids = [(await house.queues.add("theirs", "do", number)).job_id for number in range(6)]
    # While nobody looks, nothing of ours is removed, whatever the ends of other jobs take with them is theirs.
    for _ in ids:
        await foreign.do(keep=json.loads(await house.redis.hget(hash_of(house, ids[0]), "opts"))["removeOnComplete"])
    assert await house.redis.zcard("bull:theirs:completed") == 7
    await look(house)
    assert {event.data["jobId"] for event in await house.told("job.completed")} == {*ids, "theirs-1"}
    assert sorted(await house.redis.zrange("bull:theirs:completed", 0, -1)) == sorted([*ids[3:], "theirs-1"])
    await look(house)
    assert len(await house.told("job.completed")) == 7
    status = await house.queues.job("theirs", ids[-1])
    assert status
    assert (status.state, status.result) == ("completed", None)


async def test_a_kept_job_that_was_put_back_is_not_removed(house: House, foreign: Foreign) -> None:
    """Bull Board's retry of a job that has failed."""
    ids = [(await house.queues.add("theirs", "do", number)).job_id for number in range(3)]
    await foreign.do(error="no luck")
    await look(house)
    await house.redis.zrem("bull:theirs:failed", ids[0])
    await house.redis.hdel(hash_of(house, ids[0]), "finishedOn", "failedReason")
    for _ in range(2):
        await foreign.do(error="no luck")
    await look(house)
    assert await house.redis.exists(hash_of(house, ids[0]))


async def test_a_queues_own_job_becomes_the_first_step_of_a_run(house: House, foreign: Foreign) -> None:
    claim = Claim(key="hookline:idempotency:k", fingerprint="f")
    answer = Answer(status=202, headers={}, body='{"runId":"@run@"}')
    run = await house.runs.start("chain", {"documentId": "d"}, user_id="u", trigger="theirs", claim=claim, answer=answer)
    assert await foreign.do('{"value":1}') == "1"
    await look(house)
    assert (await house.status(run.run_id))["two"] == "running"
    assert not await house.redis.exists(hash_of(house, "1"))


async def test_what_ended_before_the_queue_was_external_is_not_told_again(valkey: Valkey, redis: Redis) -> None:
    own = House(valkey.socket_url, Config(queues=QUEUES | {"theirs": {"processors": {"do": "x:y"}}}, workflows=CONFIG.workflows))
    house = House(valkey.socket_url, CONFIG)
    foreign = Foreign(redis, "theirs")
    for number in range(3):
        # External, then our own, then external again: only its present time as one counts.
        for side in (own, house):
            await side.bridge.open()
        await own.queues.add("theirs", "do", number)
        await foreign.do(at=now_ms() - 2)
        await own.bridge.open()
        await house.bridge.open()
        await look(house)
    assert await house.told("job.completed") == []
    await house.redis.aclose()
    await own.redis.aclose()


async def test_a_job_that_makes_no_sense_holds_up_no_other(house: House, foreign: Foreign) -> None:
    for job_id, fields in {
        "odd": {"finishedOn": "soon", "timestamp": "1"},
        "unreadable": {"finishedOn": now_ms(), "timestamp": 1, "data": "{"},
    }.items():
        await house.redis.hset(hash_of(house, job_id), mapping={"name": "do", **fields})
        await house.redis.zadd("bull:theirs:completed", {job_id: now_ms()})
    await house.redis.zadd("bull:theirs:completed", {"gone": now_ms()})
    run_id = await house.start()
    await foreign.do('{"value":1}')
    await look(house)
    assert sorted(event.data["jobId"] for event in await house.told("job.completed")) == sorted([f"{run_id}_one_1", "unreadable"])


async def test_in_a_full_store_ends_are_told_and_runs_move(house: House, foreign: Foreign) -> None:
    run_id = await house.start()
    await house.group("e1").create()
    await foreign.do(error="no luck")
    await house.redis.config_set("maxmemory", 1)
    try:
        await house.bridge.tell("theirs", [f"{run_id}_one_1"])
        await house.engine().handle(await house.group("e1").read(count=10, block_ms=10))
    finally:
        await house.redis.config_set("maxmemory", 0)
    assert (await house.status(run_id))["run"] == "failed"
    assert not await house.redis.exists(hash_of(house, f"{run_id}_one_1"))
