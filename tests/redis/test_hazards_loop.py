"""Hazards of the worker's loop: what it fetches late, too fast, too slowly or in the wrong order."""

import asyncio
import contextlib
import random
import time
from typing import Any

import pytest
from bullmq import Queue as BullQueue
from redis.asyncio import Redis

from pipeline.jobs import calls
from pipeline.jobs.calls import now_ms
from pipeline.jobs.model import Context, Job
from pipeline.store.scripts import Script, stock
from tests.support.bench import QUEUE, Bench, config, opened
from tests.support.events import count, events_until
from tests.support.valkey import Valkey

ADD_DELAYED = Script(stock("addDelayedJob"))


async def nothing(job: Job, context: Context) -> Any:
    return None


async def add_delayed(bench: Bench, data: Any, delay: int, **opts: Any) -> None:
    now = now_ms()
    _, args = calls.add_standard(bench.keys, name="do", data=data, opts={"delay": delay, **opts}, now=now)
    await ADD_DELAYED(bench.redis, bench.keys.keys("marker", "meta", "id", "delayed", "completed", "events"), args)


async def until(bench: Bench, event: str, number: int = 1) -> None:
    """Wait for so many of BullMQ's own events."""
    after, seen = "0", 0
    async with asyncio.timeout(20):
        while seen < number:
            for _, entries in await bench.blocking.xread({bench.keys.key("events"): after}, block=1000):
                after = entries[-1][0]
                seen += sum(fields["event"] == event for _, fields in entries)


async def test_idle_pickup_stays_fast_across_the_end_of_every_wait(valkey: Valkey, redis: Redis) -> None:
    """redis-py's socket timeout of 5 s races the wait for a marker; the loser sleeps for up to 20 s (the stock worker: 4 s seen).

    A timeout that the store's URL asks for would do the same.
    """
    began = time.monotonic()
    late: list[float] = []

    async def probe(number: int) -> None:
        bench = Bench(valkey.socket_url + ("?socket_timeout=1" if number % 2 else ""), config())
        bench.keys = calls.QueueKeys("bull", f"idle-{number}")
        started = asyncio.Event()

        async def run(job: Job, context: Context) -> None:
            late.append(time.monotonic() - added)
            started.set()

        async with bench.working(run):
            # Idle for as long as the test is about: around the end of a wait of 5 s.
            await asyncio.sleep(4.6 + number * 0.08 - (time.monotonic() - began))
            keys, args = calls.add_standard(bench.keys, name="do", data=None, opts={})
            added = time.monotonic()
            await Script(stock("addStandardJob"))(redis, keys, args)
            await asyncio.wait_for(started.wait(), 30)
        await bench.blocking.aclose()
        await bench.redis.aclose()

    await asyncio.gather(*(probe(number) for number in range(16)))
    late.sort()
    print(f"idle pickup, ms: median {late[8] * 1000:.1f}, most {late[-1] * 1000:.1f} of {len(late)}")
    assert late[8] < 0.05
    # One that is forgotten waits for seconds; one alone can be late by what else the machine does.
    assert late[-1] < 2


@pytest.mark.parametrize("concurrency", [10, 200], ids=["no slot left", "slots left"])
async def test_a_marker_taken_while_answers_are_on_their_way_is_not_forgotten(
    valkey: Valkey, redis: Redis, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    """A job comes just after the store has said that there is none: the marker must outlive that answer."""
    both, gate, started, answer = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    held: asyncio.Queue[None] = asyncio.Queue()

    async def run(job: Job, context: Context) -> None:
        if job.data == "first":
            # Or the second one could come with the answer to its end, which is held back.
            await both.wait()
        if job.data == "second":
            both.set()
            await gate.wait()
        if job.data == "last":
            started.set()

    async with opened(valkey, concurrency=concurrency) as bench, bench.working(run) as worker:
        exchange = worker._exchange

        async def slowly(ends: Any, want: int) -> Any:
            traded = await exchange(ends, want)
            if ends:
                held.put_nowait(None)
                await answer.wait()
            return traded

        monkeypatch.setattr(worker, "_exchange", slowly)
        try:
            for data in ("first", "second"):
                await bench.add(data)
            await asyncio.wait_for(held.get(), 5)
            with contextlib.suppress(TimeoutError):  # without a slot it does not come to rest
                async with asyncio.timeout(0.5):
                    while not worker._markers.dry or worker._flights > 1 or await redis.exists(bench.keys.key("marker")):
                        await redis.ping()
            gate.set()
            await asyncio.wait_for(held.get(), 5)
            await bench.add("last")
            with contextlib.suppress(TimeoutError):  # without a slot it stays
                async with asyncio.timeout(0.5):
                    while await redis.exists(bench.keys.key("marker")):
                        await redis.ping()
        finally:
            answer.set()
        await asyncio.wait_for(started.wait(), 4)


async def test_a_marker_taken_by_a_full_worker_is_passed_on(valkey: Valkey, redis: Redis) -> None:
    """Whoever fetches leaves a marker for the others; taken by one without room, it would leave the next job to wait for a timer (5 s)."""
    both, release = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    async def run(job: Job, context: Context) -> None:
        ran.append(job.id)
        if len(ran) == 2:
            both.set()
        await release.wait()

    async def waiting(workers: int) -> None:
        async with asyncio.timeout(5):
            while (await redis.info("clients"))["blocked_clients"] < workers:
                pass

    async with opened(valkey, concurrency=1) as one, opened(valkey, concurrency=1) as two, one.working(run) as first:
        await waiting(1)
        async with two.working(run):
            await waiting(2)
            # Two jobs of which no marker tells, as when the first in line has asked by itself just then.
            async with redis.pipeline(transaction=True) as pipe:
                for _ in range(2):
                    keys, args = calls.add_standard(one.keys, name="do", data=None, opts={})
                    pipe.eval(stock("addStandardJob"), len(keys), *keys, *args)
                pipe.delete(one.keys.key("marker"))
                await pipe.execute()
            first._markers._open()
            await asyncio.wait_for(both.wait(), 4)
            release.set()


async def test_delays_and_backoffs_are_on_time(bench: Bench) -> None:
    """The stock worker rounds its waits up to whole seconds: 225 ms late as a rule, 932 ms at worst."""
    least: list[int] = []
    figures = []
    for _ in range(4):  # what the machine held up in one round it does not in another: of each job, the least
        late = [*await lateness_of_delays(bench, 120), *await lateness_of_backoffs(bench, 60)]
        assert min(late) >= 0, "early"
        least = [min(pair) for pair in zip(least or late, late, strict=True)]
        p99 = sorted(least)[int(len(least) * 0.99)]
        figures.append(f"median {sorted(late)[len(late) // 2]}, most {max(late)} of {len(late)}; p99 {p99} by now")
        print(f"ms late: {figures[-1]}")
        if p99 < 50:
            return
    pytest.fail(f"late: {figures}")


async def lateness_of_delays(bench: Bench, jobs: int) -> list[int]:
    """Of each, in the order in which they were added."""
    late: dict[int, int] = {}
    done = asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        number, due = job.data
        late[number] = now_ms() - due
        if len(late) == jobs:
            done.set()

    dice = random.Random(1)
    async with bench.working(run):
        for number in range(jobs):
            delay = dice.randrange(100, 2500)
            await add_delayed(bench, [number, now_ms() + delay], delay)
        await asyncio.wait_for(done.wait(), 20)
    return [late[number] for number in range(jobs)]


async def lateness_of_backoffs(bench: Bench, jobs: int) -> list[int]:
    """From when BullMQ's script says that the job is due (the `delayed` event) to the second attempt; in the order in which they were added."""
    begun: dict[str, int] = {}
    done = asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        if job.attempt == 1:
            raise RuntimeError("once more")
        begun[job.id] = now_ms()
        if len(begun) == jobs:
            done.set()

    await bench.redis.delete(bench.keys.key("events"))
    async with bench.working(run):
        for number in range(jobs):
            opts = {"attempts": 2, "backoff": {"type": "fixed", "delay": 50 + 15 * number}}
            await Script(stock("addStandardJob"))(bench.redis, *calls.add_standard(bench.keys, name="do", data=None, opts=opts))
        await asyncio.wait_for(done.wait(), 20)
    told = [fields for _, fields in await bench.redis.xrange(bench.keys.key("events")) if fields["event"] == "delayed"]
    due = {fields["jobId"]: int(fields["delay"]) for fields in told}
    assert len(told) == len(due) == jobs
    return [begun[job_id] - due[job_id] for job_id in sorted(due, key=int)]


async def test_plain_jobs_come_first_then_priorities_lowest_number_first_and_lifo_before_fifo(valkey: Valkey, redis: Redis) -> None:
    ran: list[str] = []

    async def run(job: Job, context: Context) -> None:
        ran.append(job.data)

    async with opened(valkey, concurrency=1) as bench:
        queue = BullQueue(QUEUE, {"connection": redis})
        for data, opts in [
            ("p3", {"priority": 3}), ("p1 a", {"priority": 1}), ("plain a", {}), ("p2", {"priority": 2}), ("plain b", {}),
            ("p1 b", {"priority": 1}), ("late p1", {"priority": 1, "delay": 1}), ("late", {"delay": 1}), ("lifo", {"lifo": True}),
        ]:  # fmt: skip
            await queue.add("do", data, opts)
        async with bench.working(run):
            await events_until(bench.log, count("job.completed", 9))
    # What was delayed and is due queues up behind what waits.
    assert ran == ["lifo", "plain a", "plain b", "late", "p1 a", "p1 b", "late p1", "p2", "p3"]


async def test_a_priority_or_a_delay_does_not_hold_up_other_jobs(bench: Bench) -> None:
    """Prioritised, delayed and plain jobs in any mix, all started when they are due."""
    dice = random.Random(7)
    late: list[int] = []
    done = asyncio.Event()

    async def run(job: Job, context: Context) -> None:
        late.append(now_ms() - job.data)
        if len(late) == 150:
            done.set()

    queue = BullQueue(QUEUE, {"connection": bench.redis})
    async with bench.working(run):
        for _ in range(150):
            delay = dice.choice([0, 0, dice.randrange(1, 800)])
            opts = {"delay": delay} if delay else {}
            if dice.random() < 0.5:
                opts["priority"] = dice.randrange(1, 10)
            await queue.add("do", now_ms() + delay, opts)
        await asyncio.wait_for(done.wait(), 10)
    late.sort()
    print(f"ms late: median {late[75]}, most {late[-1]}")
    assert late[75] < 500
    assert late[-1] < 2500
