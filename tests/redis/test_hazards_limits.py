"""Hazards of what limits a queue: its limiter, its global concurrency, a pause; none is exceeded, and none costs more than it says."""

import asyncio
from itertools import pairwise
from statistics import median

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
    ran = 0
    done = asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        nonlocal ran
        ran += 1
        if ran == jobs:
            done.set()

    own = {"limiter": {"max": most, "duration": f"{duration}ms"}} if where != "meta" else {}
    async with opened(valkey, **own) as one, opened(valkey, **own) as two:
        if not own:
            await BullQueue(QUEUE, {"connection": redis}).setGlobalRateLimit(most, duration)
        for _ in range(jobs):
            await one.add()
        async with one.working(run), two.working(run):
            await asyncio.wait_for(done.wait(), 20)
        told = await redis.xrange(one.keys.key("events"))
    # By the store's own clock, which is the limiter's: a caller's is read earlier, on a busy machine by much.
    started = [int(at.partition("-")[0]) for at, fields in told if fields["event"] == "active"]
    assert len(started) == jobs
    # BullMQ counts from a window's first job; what comes after its end begins the next.
    windows: list[list[int]] = []
    for at in started:
        if not windows or at - windows[-1][0] >= duration:
            windows.append([])
        windows[-1].append(at)
    apart = [later[0] - former[0] for former, later in pairwise(windows)]
    print(f"windows of {[len(window) for window in windows]}, {apart} ms apart")
    assert max(len(window) for window in windows) == most
    assert median(apart) < duration * 1.3


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
        await asyncio.wait_for(started.wait(), 3)
