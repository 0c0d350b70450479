"""Whether a great backlog slows a worker of ours: its rate while so many jobs wait, against its rate while 1,000 do."""

import asyncio
import time
from typing import Any

from benchmarks import hookline, jobs
from benchmarks.measure import Meter, Round, quotients
from benchmarks.report import ROUND_COLUMNS, Ratio, Section, cells, table
from benchmarks.size import Size, alternating, say
from pipeline.jobs.calls import QueueKeys
from tests.support.valkey import Valkey

KEYS = QueueKeys("bull", hookline.QUEUE)
FEW = 1_000
CONCURRENCY = 50
PAUSE = 0.002
"""Seconds between two looks at the queue."""
NOTES = """One worker process at concurrency {concurrency}; the queue is filled up again to the same length every few milliseconds, by the
same script in both cases. Jobs keep 100. RSS is the worker's."""


async def measured(store: Valkey, redis: Any, waiting: int, seconds: float) -> tuple[Round, int]:
    """The round, and the least number of jobs that was seen waiting."""
    await redis.flushall()
    await jobs.pause(redis, KEYS)
    await jobs.fill(redis, KEYS, waiting, "keep 100")
    async with hookline.serving(store, "worker", concurrency=CONCURRENCY) as service:
        await jobs.resume(redis, KEYS)
        await _fed(redis, waiting, seconds / 4)
        meter = Meter(redis, hookline.processes(service))
        await meter.begin()
        done, least = await _fed(redis, waiting, seconds)
        return await meter.end(done), least


async def _fed(redis: Any, waiting: int, seconds: float) -> tuple[int, int]:
    """Keeps so many jobs waiting; returns how many were taken, and the least that were there."""
    until = time.perf_counter() + seconds
    taken, least = 0, waiting
    while time.perf_counter() < until:
        found = int(await redis.llen(KEYS.key("wait")))
        taken += waiting - found
        least = min(least, found)
        await jobs.fill(redis, KEYS, waiting - found, "keep 100")
        await asyncio.sleep(PAUSE)
    return taken, least


async def run(store: Valkey, redis: Any, size: Size) -> Section:
    rounds: dict[int, list[Round]] = {FEW: [], size.waiting: []}
    least: dict[int, int] = {}
    for number in range(size.rounds):
        for waiting in alternating(tuple(rounds), number):
            one, seen = await measured(store, redis, waiting, size.seconds)
            rounds[waiting].append(one)
            least[waiting] = min(seen, least.get(waiting, waiting))
            say(f"waiting, round {number + 1}: {waiting:,}: {one.rate:,.0f}/s, RSS {one.rss:.0f} MiB, never below {seen:,}")
    lines = table("jobs waiting", "jobs/s", *ROUND_COLUMNS, "never below")
    lines += [f"| {waiting:,} | {cells(found)} | {least[waiting]:,} |" for waiting, found in rounds.items()]
    what = f"no-op jobs/s with {size.waiting:,} waiting"
    found = quotients(rounds[size.waiting], rounds[FEW])
    return Section(
        title=f"{size.waiting:,} jobs waiting",
        notes=NOTES.format(concurrency=CONCURRENCY),
        table=lines,
        ratios=[Ratio(work=what, against=f"itself with {FEW:,}", found=found, bound=0.8, aim=0.95)],
    )
