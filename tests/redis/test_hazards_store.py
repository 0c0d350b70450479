"""Hazards of the store: lost replies, errors in scripts, a store that stands still. None makes a job fail, run twice or lie in `active`."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from pipeline.jobs import calls
from pipeline.jobs.closing import FINISH
from pipeline.jobs.model import Context, Job
from pipeline.jobs.trade import TRADE
from pipeline.store import connection
from pipeline.store.scripts import Script, stock
from tests.support.bench import Bench, config
from tests.support.events import count, events_until
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey


@pytest.mark.parametrize("known", [True, False], ids=["EVALSHA", "EVAL"])
async def test_a_reply_lost_at_the_fetch_brings_the_same_jobs_again_at_once(valkey: Valkey, bench: Bench, known: bool) -> None:
    """Repeated blindly, the call would lock other jobs with the same tokens, and leave the first ones to be found stalled (10 s and more)."""
    started: Counter[str] = Counter()
    all_started, release = asyncio.Event(), asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        started[job.id] += 1
        if len(started) == 10:
            all_started.set()
        await release.wait()

    await bench.redis.script_load(TRADE.source) if known else await bench.redis.script_flush()
    ids = [await bench.add() for _ in range(25)]
    async with Proxy(valkey.port) as proxy:
        far = Bench(proxy.url, config(concurrency=10))
        proxy.swallow = TRADE.sha.encode() if known else b"End several jobs and fetch as many"
        async with far.working(run):
            async with asyncio.timeout(5):
                while not await bench.left_active():
                    await bench.redis.ping()
            proxy.drop()
            proxy.replies.set()
            assert not proxy.swallow
            await asyncio.wait_for(all_started.wait(), 5)
            assert await bench.redis.llen(bench.keys.key("active")) == 10
            locks = await bench.redis.mget([bench.keys.key(f"{job_id}:lock") for job_id in started])
            assert None not in locks
            assert len(set(locks)) == 10, "two jobs share a token"
            release.set()
            await events_until(bench.log, count("job.completed", 25))
        await far.redis.aclose()
        await far.blocking.aclose()
    assert started == dict.fromkeys(ids, 1)
    assert await bench.left_active() == []


async def test_a_reply_lost_at_any_exchange_repeats_no_job_and_tells_of_each_end_once(valkey: Valkey, bench: Bench) -> None:
    """Again and again the connections break while a whole queue is worked off."""
    ran: Counter[str] = Counter()
    jobs = 120

    async def run(job: Job, context: Context) -> None:
        ran[job.id] += 1

    await bench.redis.script_load(TRADE.source)
    ids = [await bench.add() for _ in range(jobs)]
    async with Proxy(valkey.port) as proxy:
        far = Bench(proxy.url, config(concurrency=10))
        broken = 0

        async def breaks() -> None:
            nonlocal broken
            for _ in range(6):
                done = len(ran)
                proxy.swallow = TRADE.sha.encode()
                async with asyncio.timeout(5):
                    while proxy.replies.is_set() and len(ran) < jobs:
                        await bench.redis.ping()
                if proxy.replies.is_set():
                    return
                # The store has run what was sent.
                await bench.redis.ping()
                proxy.drop()
                proxy.replies.set()
                broken += 1
                async with asyncio.timeout(5):
                    while len(ran) == done and done < jobs:
                        await bench.redis.ping()

        breaking = asyncio.create_task(breaks())
        async with far.working(run):
            told = await events_until(bench.log, count("job.completed", jobs))
            await breaking
        await far.redis.aclose()
        await far.blocking.aclose()
    assert broken >= 3
    assert ran == dict.fromkeys(ids, 1)
    assert len(told) == len({event.id for event in told}) == jobs
    assert await bench.left_active() == []


async def _spoil(redis: Redis, key: str) -> Callable[[], Awaitable[None]]:
    """Make a key of the queue one of another type; returns what mends it."""
    moved = f"{key}:moved"
    try:
        had = await redis.rename(key, moved)
    except ResponseError:
        had = False
    await redis.set(key, "not what it should be")

    async def mend() -> None:
        # In one command: a queue without `active` has lost its jobs.
        await (redis.rename(moved, key) if had else redis.delete(key))

    return mend


@pytest.mark.parametrize("key", ["meta", "active", "stalled", "completed", "prioritized", "delayed", "events", "marker", "log"])
@pytest.mark.parametrize("way", ["exchange", "alone"])
async def test_an_error_in_the_finish_script_is_retried_and_is_no_failure_and_no_second_run(bench: Bench, key: str, way: str) -> None:
    """The stock worker makes a failure of it, and runs the job again."""
    started, release = asyncio.Event(), asyncio.Event()
    ran = 0

    async def run(job: Job, context: Context) -> str:
        nonlocal ran
        ran += 1
        started.set()
        await release.wait()
        return "done"

    async with bench.working(run, lock_ms=600):
        job_id = await bench.add()
        if way == "alone":  # as a job that others wait for
            await bench.redis.hset(bench.keys.key(job_id), "deid", "d")
        await asyncio.wait_for(started.wait(), 5)
        full_key = "hookline:log" if key == "log" else bench.keys.key(key)
        mend = await _spoil(bench.redis, full_key)
        asked = await scripts_run(bench.redis)
        release.set()
        async with asyncio.timeout(5):
            while await scripts_run(bench.redis) < asked + 2:  # it was tried
                await bench.redis.ping()
        await mend()
        (event,) = await events_until(bench.log, count("job.completed", 1), seconds=8)
    assert event.data["result"] == "done"
    assert ran == 1
    assert await bench.left_active() == []
    assert await bench.redis.llen(bench.keys.key("wait")) == 0
    assert await bench.redis.zcard(bench.keys.key("failed")) == 0


async def scripts_run(redis: Redis) -> int:
    stats = await redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


async def test_a_primary_that_becomes_a_replica_for_a_while_costs_no_job(tmp_path: Path) -> None:
    """-READONLY at the finish, as in a failover."""
    started, release = asyncio.Event(), asyncio.Event()
    ran: Counter[str] = Counter()

    async def run(job: Job, context: Context) -> None:
        ran[job.id] += 1
        if len(ran) == 10:
            started.set()
        await release.wait()

    with Valkey(tmp_path / "store") as server:
        bench = Bench(server.socket_url, config(concurrency=10))
        direct = connection.connect(server.socket_url)
        ids = [await bench.add() for _ in range(20)]
        async with bench.working(run, lock_ms=600):
            await asyncio.wait_for(started.wait(), 5)
            await direct.execute_command("REPLICAOF", "127.0.0.1", "1")
            asked = await scripts_run(direct)
            release.set()
            async with asyncio.timeout(5):
                while await scripts_run(direct) < asked + 3:
                    await direct.ping()
            assert await direct.xlen("hookline:log") == 0
            await direct.execute_command("REPLICAOF", "NO", "ONE")
            await events_until(bench.log, count("job.completed", 20))
        assert ran == dict.fromkeys(ids, 1)
        assert await bench.left_active() == []
        for client in (direct, bench.redis, bench.blocking):
            await client.aclose()


async def test_a_script_that_fails_is_not_the_jobs_failure_even_for_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the store answers, several times over: the outcome is kept."""
    refusals = iter([ResponseError("HOOKLINE made up")] * 3)

    async def refuse(*args: Any) -> Any:
        for error in refusals:
            raise error
        return await real(*args)

    real = FINISH.__class__.__call__
    monkeypatch.setattr(FINISH.__class__, "__call__", lambda self, *args: refuse(self, *args) if self is FINISH else real(self, *args))
    ran = 0

    async def run(job: Job, context: Context) -> None:
        nonlocal ran
        ran += 1

    async with bench.working(run):
        job_id = await bench.add()
        await bench.redis.hset(bench.keys.key(job_id), "deid", "d")
        await events_until(bench.log, count("job.completed", 1))
    assert ran == 1


async def test_a_store_that_stands_still_longer_than_a_lock_has_no_job_run_twice(tmp_path: Path) -> None:
    """Checks for stalled jobs that were under way find no locks when the store goes on, because nobody could renew them."""
    queues, still = 12, 0.7
    ran: Counter[str] = Counter()
    all_started, release = asyncio.Event(), asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        ran[job.queue] += 1
        if len(ran) == queues:
            all_started.set()
        await release.wait()

    with Valkey(tmp_path / "store") as server:
        benches = []
        for number in range(queues):
            bench = Bench(server.socket_url, config())
            bench.keys = calls.QueueKeys("bull", f"still-{number}")
            benches.append(bench)
        for bench in benches:
            await add_to(bench)
        workers = [bench.worker(run, lock_ms=450, stalled_ms=100) for bench in benches]
        tasks = [asyncio.create_task(worker.run()) for worker in workers]
        await asyncio.wait_for(all_started.wait(), 5)
        assert server._process
        for _ in range(2):
            os.kill(server._process.pid, signal.SIGSTOP)
            await asyncio.sleep(still)  # how long it stands still is what is tested
            os.kill(server._process.pid, signal.SIGCONT)
            checks = [await bench.redis.get(bench.keys.key("stalled-check")) for bench in benches]
            for bench, seen in zip(benches, checks, strict=True):
                async with asyncio.timeout(5):
                    for _ in range(3):  # three more checks
                        while (now := await bench.redis.get(bench.keys.key("stalled-check"))) in (seen, None):
                            await bench.redis.ping()
                        seen = now
        release.set()
        await asyncio.gather(*(worker.stop(5) for worker in workers))
        await asyncio.gather(*tasks)
        stalls = [await bench.redis.hget(bench.keys.key("1"), "stc") for bench in benches]
        for bench in benches:
            await bench.redis.aclose()
            await bench.blocking.aclose()
    assert stalls == [None] * queues
    assert set(ran.values()) == {1}


async def add_to(bench: Bench) -> None:
    await Script(stock("addStandardJob"))(bench.redis, *calls.add_standard(bench.keys, name="do", data=None, opts={}))
