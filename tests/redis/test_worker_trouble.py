"""The worker in trouble on a real store: poisoned jobs, a full store, an outage, a lock that ran out."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline.jobs import stalled
from pipeline.jobs.model import Context, Job
from pipeline.store import connection
from pipeline.store.client import Client
from tests.support.bench import Bench, config
from tests.support.events import count, events_until
from tests.support.jobs import take
from tests.support.valkey import Valkey


@pytest.mark.parametrize("opts", ["[]", '{"attempts":"many"}', '{"attempts":3,"hookline":{"run":"r"}}'])
async def test_a_job_whose_options_make_no_sense_fails_once_and_clearly(bench: Bench, opts: str) -> None:
    job_id = await bench.add()
    await bench.redis.hset(bench.keys.key(job_id), "opts", opts)
    async with bench.working(lambda job, context: None):
        (event,) = await events_until(bench.log, count("job.failed", 1), seconds=5)
    assert "options" in event.data["error"]


async def test_a_processor_that_cancels_itself_has_failed_an_attempt(bench: Bench) -> None:
    """Handed back uncounted, the job would be run again at once and for ever."""
    runs = 0

    async def run(job: Job, context: Context) -> None:
        nonlocal runs
        runs += 1
        raise asyncio.CancelledError

    async with bench.working(run):
        await bench.add()
        (event,) = await events_until(bench.log, count("job.failed", 1), seconds=5)
    assert runs == 3
    assert "cancelled" in event.data["error"]


async def test_a_reason_that_is_no_text_or_too_long_is_still_told(bench: Bench) -> None:
    async def fail(job: Job, context: Context) -> None:
        raise RuntimeError("no file \udcff" + "x" * 1_000_000)

    async with bench.working(fail):
        await bench.add()
        (event,) = await events_until(bench.log, count("job.failed", 1), seconds=5)
    assert event.data["error"].startswith("no file ?")
    assert len(event.data["error"]) < 5000


async def test_one_job_in_two_slots_of_one_worker_ends_once(bench: Bench) -> None:
    """A lock that ran out (a blocked loop, an outage) lets the worker fetch again what one of its slots still runs."""
    started: list[asyncio.Event] = [asyncio.Event(), asyncio.Event()]
    release, told = asyncio.Event(), asyncio.Event()
    runs = 0

    async def run(job: Job, context: Context) -> str:
        nonlocal runs
        runs += 1
        if runs == 1:
            started[0].set()
            try:
                await asyncio.Event().wait()
            finally:
                told.set()
        started[1].set()
        await release.wait()
        return "second"

    async with bench.working(run, lock_ms=1000):
        job_id = await bench.add()
        await started[0].wait()
        async with bench.redis.pipeline(transaction=True) as pipe:
            pipe.delete(bench.keys.key(f"{job_id}:lock"))
            pipe.lrem(bench.keys.key("active"), 0, job_id)
            pipe.lpush(bench.keys.key("wait"), job_id)
            pipe.zadd(bench.keys.key("marker"), {"0": 0})
            await pipe.execute()
        await started[1].wait()
        await asyncio.wait_for(told.wait(), 5)
        lock = bench.keys.key(f"{job_id}:lock")
        renewals, last = 0, await bench.redis.pttl(lock)
        async with asyncio.timeout(5):
            while renewals < 3:
                left = await bench.redis.pttl(lock)
                assert left > 0, "the second run lost its lock with the first"
                renewals += left > last
                last = left
        release.set()
        events = await events_until(bench.log, count("job.completed", 1), seconds=5)
    assert [event.data["result"] for event in events] == ["second"]
    assert runs == 2


async def test_a_job_that_comes_while_the_worker_is_told_to_stop_is_run_and_not_stranded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    async def run(job: Job, context: Context) -> None:
        ran.append(job.id)

    worker = bench.worker(run)
    exchange = worker._exchange
    locked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(*what: Any) -> Any:
        traded = await exchange(*what)
        if traded.jobs:
            locked.set()
            await answer.wait()
        return traded

    monkeypatch.setattr(worker, "_exchange", slowly)
    job_id = await bench.add()
    task = asyncio.create_task(worker.run())
    await locked.wait()
    stopping = asyncio.create_task(worker.stop(5))
    assert worker._markers._watcher
    await asyncio.wait([worker._markers._watcher])
    answer.set()
    await stopping
    await task
    assert ran == [job_id]
    assert await bench.left_active() == []


async def test_no_job_is_fetched_from_a_nearly_full_store_not_even_by_a_busy_worker(bench: Bench, redis: Redis) -> None:
    ran: list[str] = []
    full = asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        ran.append(job.id)
        if len(ran) != 5:
            await full.wait()
        else:
            await redis.config_set("maxmemory", int((await redis.info("memory"))["used_memory"] * 1.1))
            bench_worker._memory._asked = float("-inf")  # as if a second had passed
            full.set()

    for _ in range(30):
        await bench.add()
    bench_worker = bench.worker(run)
    task = asyncio.create_task(bench_worker.run())
    try:
        await full.wait()
        async with asyncio.timeout(10):
            while bench_worker._slots.busy or bench_worker._flights:
                await bench.redis.ping()
        await bench_worker.stop(5)
        await task
        assert len(ran) < 30
        assert await bench.redis.llen(bench.keys.key("wait")) == 30 - len(ran)
        assert await bench.left_active() == []
    finally:
        await redis.config_set("maxmemory", 0)


async def test_locks_are_renewed_also_while_the_store_is_full(bench: Bench, redis: Redis) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        started.set()
        await release.wait()

    async with bench.working(run, lock_ms=1000):
        job_id = await bench.add()
        await started.wait()
        await redis.config_set("maxmemory", 1)
        try:
            lock = bench.keys.key(f"{job_id}:lock")
            renewals, last = 0, await bench.redis.pttl(lock)
            async with asyncio.timeout(10):
                while renewals < 3:
                    left = await bench.redis.pttl(lock)
                    assert left > 0, "the lock ran out"
                    renewals += left > last
                    last = left
        finally:
            await redis.config_set("maxmemory", 0)
        release.set()
        await events_until(bench.log, count("job.completed", 1), seconds=5)


async def test_a_job_ends_in_a_full_store(bench: Bench, redis: Redis) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        started.set()
        await release.wait()

    async with bench.working(run):
        await bench.add()
        await started.wait()
        await redis.config_set("maxmemory", 1)
        try:
            release.set()
            await events_until(bench.log, count("job.completed", 1), seconds=5)
        finally:
            await redis.config_set("maxmemory", 0)


async def test_progress_that_cannot_be_reported_fails_no_attempt(tmp_path: Path) -> None:
    with Valkey(tmp_path / "store", appendfsync="always") as server:
        bench = Bench(server.socket_url, config())
        started, release = asyncio.Event(), asyncio.Event()
        attempts: list[int] = []

        async def run(job: Job, context: Context) -> str:
            attempts.append(job.attempt)
            started.set()
            await release.wait()
            await context.progress(50)
            back.set()
            return "done"

        back = asyncio.Event()
        async with bench.working(run):
            await bench.add()
            await started.wait()
            server.kill()
            release.set()
            waiting = asyncio.create_task(back.wait())
            await asyncio.wait([waiting], timeout=5)
            server.start()
            events = await events_until(bench.log, count("job.completed", 1), seconds=10)
        assert [event.data["attempts"] for event in events if event.type == "job.completed"] == [1]
        assert attempts == [1]
        await bench.blocking.aclose()
        await bench.redis.aclose()


async def test_the_first_check_after_an_outage_only_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The locks ran out because nobody could renew them: the workers, which are alive, take them again first."""
    failed, checked = asyncio.Event(), asyncio.Event()
    recover = stalled.recover

    async def watched(*arguments: Any, **options: Any) -> list[str]:
        found = await recover(*arguments, **options)
        checked.set()
        return found

    async def ping() -> None:
        try:
            await Client.ping(bench.redis)
        except connection.STORE_ERRORS:
            failed.set()
            raise

    monkeypatch.setattr(stalled, "recover", watched)
    with Valkey(tmp_path / "store", appendfsync="always") as server:
        bench = Bench(server.socket_url, config())
        job_id = await bench.add()
        await take(bench.redis, bench.keys, lock_ms=1)
        await bench.redis.sadd(bench.keys.key("stalled"), job_id)
        server.kill()
        monkeypatch.setattr(bench.redis, "ping", ping)
        checking = asyncio.create_task(stalled.run(bench.redis, bench.keys, interval_ms=200))
        await asyncio.wait_for(failed.wait(), 20)
        server.start()
        await asyncio.wait_for(checked.wait(), 10)
        checking.cancel()
        assert await bench.left_active() == [job_id]
        assert await bench.redis.smembers(bench.keys.key("stalled")) == {job_id}
        await bench.blocking.aclose()
        await bench.redis.aclose()
