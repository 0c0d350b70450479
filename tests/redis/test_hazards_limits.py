"""Hazards of what limits a queue: its limiter, its global concurrency, a pause; none is exceeded, and none costs more than it says."""

import asyncio
import time

import pytest
from bullmq import Queue as BullQueue
from redis.asyncio import Redis

from pipeline.jobs.model import Context, Job
from tests.support.bench import QUEUE, Bench, opened
from tests.support.valkey import Valkey


@pytest.mark.parametrize("where", ["queues.<queue>.limiter", "meta"])
async def test_the_limiter_is_never_exceeded_and_its_full_rate_is_reached(valkey: Valkey, redis: Redis, where: str) -> None:
    """The stock worker waits 5 s after each hit: 2 jobs per 5 s where 20 were allowed."""
    most, duration, jobs = 5, 250, 40
    started: list[int] = []
    done = asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        started.append(int(await redis.hget(f"bull:{QUEUE}:{job.id}", "processedOn")))
        if len(started) == jobs:
            done.set()

    own = {"limiter": {"max": most, "duration": f"{duration}ms"}} if where != "meta" else {}
    async with opened(valkey, **own) as one, opened(valkey, **own) as two:
        if not own:
            await BullQueue(QUEUE, {"connection": redis}).setGlobalRateLimit(most, duration)
        for _ in range(jobs):
            await one.add()
        began = time.monotonic()
        async with one.working(run), two.working(run):
            await asyncio.wait_for(done.wait(), 20)
        took = time.monotonic() - began
    started.sort()
    # BullMQ counts from a window's first job; what comes after its end begins the next.
    windows: list[list[int]] = []
    for at in started:
        if not windows or at - windows[-1][0] >= duration - 3:  # ours is the clock of the caller, a moment before the store's
            windows.append([])
        windows[-1].append(at)
    ideal = (jobs / most - 1) * duration / 1000
    print(f"{jobs} jobs in {took:.2f} s (ideal {ideal:.2f}); windows of {[len(window) for window in windows]}")
    assert max(len(window) for window in windows) == most
    assert took < ideal * 1.3 + 0.2


@pytest.mark.parametrize("fails", [False, True], ids=["completed", "failed"])
async def test_a_global_concurrency_is_honoured_by_two_workers_and_fully_used(valkey: Valkey, redis: Redis, fails: bool) -> None:
    jobs, allowed = 30, 3
    running = most = ended = 0
    done = asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        ended += 1
        if ended == jobs:
            done.set()
        if fails:
            raise RuntimeError("no luck")

    async with opened(valkey, attempts=1) as one, opened(valkey, attempts=1) as two:
        await BullQueue(QUEUE, {"connection": redis}).setGlobalConcurrency(allowed)
        for _ in range(jobs):
            await one.add()
        async with one.working(run), two.working(run):
            await asyncio.wait_for(done.wait(), 4)
    assert most == allowed


async def test_a_paused_queue_gives_no_job_and_a_resumed_one_at_once(bench: Bench) -> None:
    started = asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        started.set()

    queue = BullQueue(QUEUE, {"connection": bench.redis})
    async with bench.working(run) as worker:
        await bench.add()
        await asyncio.wait_for(started.wait(), 5)
        await queue.pause()
        started.clear()
        asked = worker._trades
        await bench.add()
        await bench.redis.zadd(bench.keys.key("marker"), {"0": 0})
        async with asyncio.timeout(5):
            while worker._trades == asked or worker._flights:  # it has asked, and has its answer
                await bench.redis.ping()
        assert not started.is_set()
        await queue.resume()
        await asyncio.wait_for(started.wait(), 1)
