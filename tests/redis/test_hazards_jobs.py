"""Hazards of jobs: poison, results that are not JSON, shared tokens, ids used twice, retention, flows; and of a worker that closes."""

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bullmq import FlowProducer
from bullmq import Queue as BullQueue
from redis.asyncio import Redis

from pipeline.jobs.model import Context, Job
from pipeline.jobs.stalled import MAX_STALLED, TOO_OFTEN
from tests.support.bench import QUEUE, Bench, config
from tests.support.events import count, events_until
from tests.support.valkey import Valkey

ROOT = Path(__file__).parents[2]


# --- closing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [20, 0], ids=["jobs may end", "jobs are handed back"])
@pytest.mark.parametrize("concurrency", [1, 10, 50, 200])
async def test_close_strands_no_job_in_active(valkey: Valkey, redis: Redis, concurrency: int, patience: float) -> None:
    """The stock worker's close() left 2 to 24 jobs in `active` in 21 of 21 trials at concurrency 50."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    for trial in range(5):
        await redis.flushall()
        bench = Bench(valkey.socket_url, config(concurrency=concurrency))
        begun: Counter[str] = Counter()
        ended: set[str] = set()
        reached = asyncio.Event()
        jobs = concurrency * 2 + 10
        # From a worker that has hardly begun to one whose queue has just run dry.
        goal = dice.randrange(1, jobs + 1)

        async def run(job: Job, context: Context, begun: Any = begun, ended: Any = ended, reached: Any = reached, goal: Any = goal) -> None:
            begun[job.id] += 1
            await asyncio.sleep(dice.random() * 0.01)
            ended.add(job.id)
            if len(ended) >= goal:
                reached.set()

        worker = bench.worker(run)
        task = asyncio.create_task(worker.run())
        await asyncio.gather(*(bench.add() for _ in range(jobs)))
        await asyncio.wait_for(reached.wait(), 20)
        await worker.stop(patience)
        await asyncio.wait_for(task, 5)
        where = f"trial {trial}: {jobs} jobs, stopped after {goal}"
        assert await bench.left_active() == [], where
        completed = set(await redis.zrange(bench.keys.key("completed"), 0, -1))
        waiting = await redis.lrange(bench.keys.key("wait"), 0, -1)
        told = [event.data["jobId"] for event in await bench.log.after("", limit=1000)]
        assert sorted(told) == sorted(ended), where
        assert set(begun.values()) == {1}, where
        if patience:
            assert set(begun) == ended, where
        assert len(waiting) == len(set(waiting)) == jobs - len(ended), where
        assert not set(waiting) & completed, where
        assert not await redis.keys(bench.keys.key("*:lock")), where
        await bench.redis.aclose()
        await bench.blocking.aclose()


async def test_closing_the_worker_leaves_its_client_open(bench: Bench) -> None:
    """The stock worker closes the client that it was given."""
    async with bench.working(lambda job, context: None):
        pass
    assert await bench.redis.ping()


# --- locks ---------------------------------------------------------------------------------------------------------------


async def test_two_jobs_never_share_a_token(valkey: Valkey, redis: Redis) -> None:
    """In the stock worker those fetched together do: one of them can end, or lose, the other."""
    bench = Bench(valkey.socket_url, config(concurrency=50))
    tokens: dict[str, str] = {}

    async def run(job: Job, context: Context) -> None:
        tokens[job.id] = await redis.get(bench.keys.key(f"{job.id}:lock"))

    async with bench.working(run), bench.working(run):
        for _ in range(400):
            await bench.add()
        await events_until(bench.log, count("job.completed", 400))
    assert len(tokens) == 400
    assert None not in tokens.values()
    assert len(set(tokens.values())) == 400
    await bench.redis.aclose()
    await bench.blocking.aclose()


# --- poison --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_a_scheduler", [False, True], ids=["plain", "of a scheduler"])
async def test_a_job_that_kills_its_worker_each_time_fails_after_ten_stalls(bench: Bench, valkey: Valkey, of_a_scheduler: bool) -> None:
    """BullMQ's script lets a scheduler's job circle for ever."""
    if of_a_scheduler:
        await BullQueue(QUEUE, {"connection": bench.redis}).upsertJobScheduler("s", {"every": 3_600_000}, "do", "poison")
    else:
        await bench.add("poison")
    await bench.add("harmless")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.poisoned", valkey.socket_url, "2",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()[-2000:]
    (told,) = [json.loads(line) for line in out.decode().splitlines() if line.startswith('{"deaths"')]
    assert told == {"deaths": MAX_STALLED + 1, "exit": 0}
    events = await bench.log.after("", limit=10)
    assert {event.type for event in events} == {"job.failed", "job.completed"}
    (failed,) = [event for event in events if event.type == "job.failed"]
    assert failed.data["error"] == TOO_OFTEN
    assert await bench.left_active() == []


# --- results -------------------------------------------------------------------------------------------------------------


def circular() -> Any:
    ring: list[Any] = []
    ring.append({"ring": ring})
    return ring


WRONG = {
    "NaN": float("nan"), "infinity": {"a": [float("-inf")]}, "set": {1, 2}, "bytes": b"\x00", "circular": circular(), "too large": "x" * 70_000,
    "a key that is no text": {1: 2}, "an object": object(), "text that is no Unicode": "\udcff",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["async", "thread"])
@pytest.mark.parametrize("what", WRONG)
async def test_a_result_that_is_not_json_fails_once_without_running_the_work_again(bench: Bench, what: str, kind: str) -> None:
    """The stock worker makes a failed attempt of it, and does the work again, per attempt."""
    runs = 0

    async def give(job: Job, context: Context) -> Any:
        nonlocal runs
        runs += 1
        return WRONG[what]

    def give_plainly(job: Job, context: Any) -> Any:
        nonlocal runs
        runs += 1
        return WRONG[what]

    async with bench.working(give if kind == "async" else give_plainly, kind=kind):
        await bench.add()
        (event,) = await events_until(bench.log, count("job.failed", 1), seconds=5)
    assert runs == 1
    assert "the processor's result" in event.data["error"]


async def test_a_plain_function_is_run_once_and_its_result_counts(bench: Bench) -> None:
    """The stock worker runs it, and then fails for want of a coroutine, per attempt."""
    runs = 0

    def work(job: Job, context: Any) -> str:
        nonlocal runs
        runs += 1
        return "done"

    async with bench.working(work, kind="thread"):
        await bench.add()
        (event,) = await events_until(bench.log, count("job.completed", 1), seconds=5)
    assert (runs, event.data["result"]) == (1, "done")


# --- ids and retention ---------------------------------------------------------------------------------------------------


async def test_an_id_added_twice_is_one_job_for_as_long_as_it_is_kept(bench: Bench) -> None:
    """As in BullMQ: after its removal the id would run again. Hence our own memory of what was accepted does not depend on retention."""
    ran: list[Any] = []

    async def run(job: Job, context: Context) -> None:
        ran.append(job.data)

    queue = BullQueue(QUEUE, {"connection": bench.redis})
    async with bench.working(run):
        for data in ("first", "second"):
            await queue.add("do", data, {"jobId": "twice"})
        await events_until(bench.log, count("job.completed", 1), seconds=5)
        await queue.add("do", "third", {"jobId": "twice"})
        await queue.add("do", "other", {"jobId": "once"})
        await events_until(bench.log, count("job.completed", 2), seconds=5)
        assert ran == ["first", "other"]
        await bench.redis.delete(bench.keys.key("twice"))
        await queue.add("do", "again", {"jobId": "twice"})
        await events_until(bench.log, count("job.completed", 3), seconds=5)
    assert ran == ["first", "other", "again"]


async def test_ended_jobs_are_not_kept_for_ever_whoever_added_them(valkey: Valkey, redis: Redis) -> None:
    """BullMQ keeps all completed and failed jobs unless each says otherwise."""
    bench = Bench(valkey.socket_url, config(attempts=1, keep={"completed": 5, "failed": 3}))

    async def odd_ones_fail(job: Job, context: Context) -> None:
        if job.data % 2:
            raise RuntimeError("odd")

    queue = BullQueue(QUEUE, {"connection": redis})
    async with bench.working(odd_ones_fail):
        for number in range(40):
            await queue.add("do", number, {})
        await events_until(bench.log, lambda told: len(told) == 40)
    assert (await redis.zcard(bench.keys.key("completed")), await redis.zcard(bench.keys.key("failed"))) == (5, 3)
    hashes = [key for key in await redis.keys(bench.keys.key("*")) if key.rpartition(":")[2].isdigit()]
    assert len(hashes) == 8
    await bench.redis.aclose()
    await bench.blocking.aclose()


# --- flows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True], ids=["children complete", "a child fails its parent"])
async def test_a_flow_of_bullmqs_runs_leaves_first_and_ends_as_its_options_say(bench: Bench, fails: bool) -> None:
    ran: list[str] = []

    async def run(job: Job, context: Context) -> str:
        ran.append(job.data)
        if fails and job.data == "two":
            raise RuntimeError("no luck")
        return job.data

    flows = FlowProducer({"connection": bench.redis})
    children = [{"name": "do", "queueName": QUEUE, "data": data, "opts": {"failParentOnFailure": True}} for data in ("one", "two")]
    async with bench.working(run):
        await flows.add({"name": "do", "queueName": QUEUE, "data": "parent", "children": children})
        told = await events_until(bench.log, lambda events: len(events) == 3, seconds=5)
    if fails:
        assert [event.type for event in told].count("job.failed") == 2
        assert "parent" not in ran
    else:
        assert {event.type for event in told} == {"job.completed"}
        assert ran[-1] == "parent"
    assert await bench.left_active() == []
