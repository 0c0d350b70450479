"""The worker of one queue on a real store: what becomes of jobs, locks, and of the worker itself."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from bullmq import Queue as BullQueue
from redis.asyncio import Redis

from pipeline.config import Config
from pipeline.config.queues import Backoff, Queue
from pipeline.errors import PermanentFailure
from pipeline.jobs import calls, stalled
from pipeline.jobs.model import Context, Job, Origin
from pipeline.store.scripts import Script, stock
from tests.support.bench import QUEUE, Bench, config
from tests.support.events import count, events_until
from tests.support.jobs import take
from tests.support.valkey import Valkey


async def test_jobs_are_run_and_told_of(bench: Bench) -> None:
    async def double(job: Job, context: Context) -> Any:
        return job.data * 2

    async with bench.working(double):
        for number in range(30):
            await bench.add(number)
        events = await events_until(bench.log, count("job.completed", 30))
    assert sorted(event.data["result"] for event in events) == [number * 2 for number in range(30)]
    assert len({event.id for event in events}) == 30
    assert await bench.queues.counts(QUEUE) == {
        "waiting": 0, "paused": 0, "active": 0, "completed": 30, "failed": 0, "delayed": 0, "prioritized": 0,
    }  # fmt: skip


async def test_a_failure_is_tried_again_and_told_once_with_the_attempts(bench: Bench) -> None:
    seen: list[int] = []

    async def fail(job: Job, context: Context) -> None:
        seen.append(job.attempt)
        raise RuntimeError("no luck")

    async with bench.working(fail):
        job_id = await bench.add()
        (event,) = await events_until(bench.log, count("job.failed", 1))
    assert seen == [1, 2, 3]
    assert (event.data["attempts"], event.data["error"]) == (3, "no luck")
    status = await bench.queues.job(QUEUE, job_id)
    assert status
    assert (status.state, status.failed_reason, status.attempts_made) == ("failed", "no luck", 3)
    assert len(orjson.loads(await bench.redis.hget(bench.keys.key(job_id), "stacktrace"))) == 3


async def test_progress_of_each_attempt_is_told(bench: Bench) -> None:
    async def fail_halfway(job: Job, context: Context) -> None:
        await context.progress(50)
        raise RuntimeError("no luck")

    origin = Origin(run="run_1", workflow="w", step="s", n=1)
    async with bench.working(fail_halfway):
        await Script(stock("addStandardJob"))(bench.redis, *bench.queues.add_call(QUEUE, "do", None, job_id="j", origin=origin))
        told = await events_until(bench.log, count("job.failed", 1))
    assert [event.data["progress"] for event in told if event.type == "job.progress"] == [50, 50, 50]
    # Receivers deduplicate on the id, and so does the fan-out.
    assert len({event.id for event in told}) == 4


async def test_the_last_completed_and_failed_jobs_are_kept_and_no_more(valkey: Valkey, redis: Redis) -> None:
    bench = Bench(valkey.socket_url, config(attempts=1, concurrency=1, keep={"completed": 3, "failed": 2}))

    async def odd_ones_fail(job: Job, context: Context) -> None:
        await asyncio.sleep(0.002)  # BullMQ keeps the last by millisecond, and by the text of their ids within one
        if job.data % 2:
            raise RuntimeError("odd")

    async with bench.working(odd_ones_fail):
        ids = [await bench.add(number) for number in range(10)]
        await events_until(bench.log, lambda told: len(told) == 10)
    assert await redis.zrange(bench.keys.key("completed"), 0, -1) == [ids[4], ids[6], ids[8]]
    assert await redis.zrange(bench.keys.key("failed"), 0, -1) == [ids[7], ids[9]]
    left = [job_id for job_id in ids if await redis.exists(bench.keys.key(job_id))]
    assert left == [ids[4], ids[6], ids[7], ids[8], ids[9]]
    await bench.blocking.aclose()
    await bench.redis.aclose()


async def test_a_missing_key_is_named_as_what_it_is(bench: Bench) -> None:
    async def fail(job: Job, context: Context) -> None:
        raise KeyError("documentId")

    async with bench.working(fail):
        await bench.add()
        (event,) = await events_until(bench.log, count("job.failed", 1))
    assert event.data["error"] == "KeyError: 'documentId'"


async def test_a_permanent_failure_is_not_tried_again(bench: Bench) -> None:
    async def fail(job: Job, context: Context) -> None:
        raise PermanentFailure("the file is not a PDF")

    async with bench.working(fail):
        await bench.add()
        (event,) = await events_until(bench.log, count("job.failed", 1))
    assert (event.data["attempts"], event.data["error"]) == (1, "the file is not a PDF")


@pytest.mark.parametrize("result", [float("nan"), object(), "x" * 70_000], ids=["NaN", "object", "too large"])
async def test_a_result_that_cannot_be_kept_fails_once(bench: Bench, result: Any) -> None:
    calls_made = 0

    async def give(job: Job, context: Context) -> Any:
        nonlocal calls_made
        calls_made += 1
        return result

    async with bench.working(give):
        await bench.add()
        (event,) = await events_until(bench.log, count("job.failed", 1))
    assert calls_made == 1
    assert "result" in event.data["error"]


async def test_a_job_nobody_can_do_fails_naming_what_is_known(bench: Bench) -> None:
    async with bench.working(lambda job, context: None):
        await bench.add(name="typo")
        (event,) = await events_until(bench.log, count("job.failed", 1))
    assert event.data["error"] == "no processor for job 'typo' on queue 'work' (known: do); add it to queues.work.processors"


async def test_a_deferred_failure_is_not_run(bench: Bench) -> None:
    ran = False

    async def run(job: Job, context: Context) -> None:
        nonlocal ran
        ran = True

    job_id = await bench.add()
    await bench.redis.hset(bench.keys.key(job_id), "defa", "job stalled more than allowable limit")
    async with bench.working(run):
        (event,) = await events_until(bench.log, count("job.failed", 1))
    assert event.data["error"] == "job stalled more than allowable limit"
    assert not ran


async def test_data_that_is_not_json_fails_clearly(bench: Bench) -> None:
    job_id = await bench.add()
    await bench.redis.hset(bench.keys.key(job_id), "data", "{oops")
    async with bench.working(lambda job, context: None):
        (event,) = await events_until(bench.log, count("job.failed", 1))
    assert "not JSON" in event.data["error"]


async def test_a_plain_def_runs_in_a_thread_and_reports_progress(bench: Bench) -> None:
    def run(job: Job, context: Any) -> str:
        context.progress(40)
        return context.idempotency_key

    async with bench.working(run, kind="thread"):
        job_id = await bench.add()
        events = await events_until(bench.log, count("job.completed", 1))
    assert [(event.type, event.data.get("progress")) for event in events] == [("job.progress", 40), ("job.completed", None)]
    status = await bench.queues.job(QUEUE, job_id)
    assert status
    assert status.progress == 40
    assert status.result.startswith("bull:work:1:")


async def test_stop_lets_running_jobs_end_and_strands_none(bench: Bench) -> None:
    started, release = asyncio.Event(), asyncio.Event()
    runs: list[str] = []

    async def run(job: Job, context: Context) -> None:
        runs.append(job.id)
        if len(runs) == 4:
            started.set()
        await release.wait()

    worker = bench.worker(run)
    task = asyncio.create_task(worker.run())
    for _ in range(50):
        await bench.add()
    await started.wait()
    stopping = asyncio.create_task(worker.stop(20))
    release.set()
    await stopping
    await task
    assert await bench.left_active() == []
    assert len(runs) == len(set(runs)) == await bench.redis.zcard(bench.keys.key("completed"))
    assert await bench.redis.llen(bench.keys.key("wait")) == 50 - len(runs)


async def test_a_job_longer_than_the_deadline_is_handed_back_uncounted(bench: Bench) -> None:
    started = asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        started.set()
        await asyncio.Event().wait()

    worker = bench.worker(run)
    task = asyncio.create_task(worker.run())
    job_id = await bench.add()
    await started.wait()
    await worker.stop(0.05)
    await task
    assert await bench.left_active() == []
    assert await bench.redis.lrange(bench.keys.key("wait"), 0, -1) == [job_id]
    assert await bench.redis.hget(bench.keys.key(job_id), "atm") is None
    assert await bench.log.after("", limit=10) == []


async def test_locks_are_renewed_for_as_long_as_a_job_runs_even_while_stopping(bench: Bench) -> None:
    """The stock worker stops renewing in close(): the job then runs a second time elsewhere (reference: hazard 3)."""
    started, release = asyncio.Event(), asyncio.Event()
    runs = 0

    async def run(job: Job, context: Context) -> None:
        nonlocal runs
        runs += 1
        started.set()
        await release.wait()

    worker = bench.worker(run, lock_ms=1000)
    task = asyncio.create_task(worker.run())
    job_id = await bench.add()
    await started.wait()
    stopping = asyncio.create_task(worker.stop(20))
    lock = bench.keys.key(f"{job_id}:lock")
    renewals, last = 0, await bench.redis.pttl(lock)
    async with asyncio.timeout(10):
        while renewals < 3:  # three renewals outlast the first lock
            left = await bench.redis.pttl(lock)
            assert left > 0, "the lock ran out"
            renewals += left > last
            last = left
    release.set()
    await stopping
    await task
    assert runs == 1
    assert await bench.redis.zcard(bench.keys.key("completed")) == 1


async def test_a_job_whose_run_was_cancelled_is_told_at_the_next_renewal(bench: Bench) -> None:
    started = asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        started.set()
        await asyncio.Event().wait()

    async with bench.working(run, lock_ms=300):
        job_id = await bench.add()
        await started.wait()
        await bench.redis.hset(bench.keys.key(job_id), "defa", "the run was cancelled")
        (event,) = await events_until(bench.log, count("job.failed", 1))
    assert event.data["error"] == "the run was cancelled"


async def test_a_job_taken_by_another_worker_is_dropped_without_an_event(bench: Bench) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with bench.working(run, lock_ms=300):
        job_id = await bench.add()
        await started.wait()
        await bench.redis.set(bench.keys.key(f"{job_id}:lock"), "another")
        await stopped.wait()
    assert await bench.log.after("", limit=10) == []
    assert await bench.redis.get(bench.keys.key(f"{job_id}:lock")) == "another"


async def test_a_stalled_job_is_put_back_and_one_that_always_stalls_fails(bench: Bench) -> None:
    job_id = await bench.add()
    for crash in range(3):
        await take(bench.redis, bench.keys, f"dead-{crash}")
        await bench.redis.delete(bench.keys.key(f"{job_id}:lock"))
        back: list[str] = []
        while not back:
            await bench.redis.delete(bench.keys.key("stalled-check"))
            back = await stalled.recover(bench.redis, bench.keys, max_stalled=2)
        assert back == [job_id]
    async with bench.working(lambda job, context: None):
        (event,) = await events_until(bench.log, count("job.failed", 1))
    assert event.data["error"] == "job stalled more than allowable limit"


async def test_a_delayed_job_is_on_time(bench: Bench) -> None:
    async def late(job: Job, context: Context) -> int:
        return calls.now_ms() - job.data

    async with bench.working(late):
        for number in range(1, 4):
            due = calls.now_ms() + 300
            _, args = calls.add_standard(bench.keys, name="do", data=due, opts={"attempts": 1, "delay": 300})
            delayed = [bench.keys.key(name) for name in ("marker", "meta", "id", "delayed", "completed", "events")]
            await Script(stock("addDelayedJob"))(bench.redis, delayed, args)
            told = await events_until(bench.log, count("job.completed", number))
    waited = [event.data["result"] for event in told]
    assert min(waited) >= 0
    # A machine that others use may hold one up.
    assert sorted(waited)[1] < 150


@pytest.mark.parametrize("deferred", [False, True], ids=["run", "failed before it is run"])
async def test_a_job_of_a_scheduler_brings_the_next_until_the_limit(bench: Bench, deferred: bool) -> None:
    queue = BullQueue(QUEUE, {"connection": bench.redis})
    await queue.upsertJobScheduler("often", {"every": 100, "limit": 3}, "do", {"n": 7})
    if deferred:
        (job_id,) = await bench.redis.lrange(bench.keys.key("wait"), 0, -1) or await bench.redis.zrange(bench.keys.key("delayed"), 0, -1)
        await bench.redis.hset(bench.keys.key(job_id), "defa", "the run was cancelled")

    async def which(job: Job, context: Context) -> Any:
        return [job.data, job.opts["repeat"]["count"]]

    async with bench.working(which):
        told = await events_until(bench.log, lambda events: len(events) == 3)
    results = [event.data.get("result") for event in told]
    assert results == [None if deferred else [{"n": 7}, 1], [{"n": 7}, 2], [{"n": 7}, 3]]
    assert await bench.redis.zcard(bench.keys.key("delayed")) == 0


async def test_an_outcome_outlives_an_outage_of_the_store(tmp_path: Path) -> None:
    """The store dies while a job runs and its lock runs out meanwhile: the job ends once, with one event, without a second run."""
    with Valkey(tmp_path / "store", appendfsync="always") as server:
        bench = Bench(server.socket_url, config())
        started, release = asyncio.Event(), asyncio.Event()
        runs = 0

        async def run(job: Job, context: Context) -> str:
            nonlocal runs
            runs += 1
            started.set()
            await release.wait()
            return "done"

        async with bench.working(run, lock_ms=300):
            await bench.add()
            await started.wait()
            server.kill()
            release.set()
            server.start()
            events = await events_until(bench.log, count("job.completed", 1))
            assert [event.data["result"] for event in events] == ["done"]
        assert runs == 1
        assert await bench.left_active() == []
        await bench.blocking.aclose()
        await bench.redis.aclose()


def test_the_shipped_backoffs_are_the_original_systems() -> None:
    shipped = Config().queues
    assert {name: (queue.attempts, queue.backoff) for name, queue in shipped.items()} == {
        "document-processing": (3, Backoff(type="exponential", delay="2s")),
        "notifications": (5, Backoff(type="exponential", delay="1s")),
        "compliance-analysis": (3, Backoff(type="exponential", delay="5s")),
    }
    assert {(queue.keep.completed, queue.keep.failed) for queue in shipped.values()} == {(100, 50)}
    assert Queue().attempts == 3
