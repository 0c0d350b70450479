"""Whether a great backlog slows a worker: its rate while so many jobs wait, against its rate while 1,000 do; ours, and Node's."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
from redis.asyncio import Redis

from benchmarks import jobs
from benchmarks.measure import Meter, Round, quotients
from benchmarks.report import ROUND_COLUMNS, Ratio, Section, cells, table
from benchmarks.size import Size, alternating, say
from benchmarks.worker import KEYS, SIDES, working
from tests.support.valkey import Valkey

FEW = 1_000
CONCURRENCY = 50
PAUSE = 0.002
"""Seconds between two looks at the queue."""
NOTES = """One worker process at concurrency {concurrency}. Each backlog has a store and a worker of its own, which are up all the time and take
turns; whose turn it is has its queue filled up again to the same length every few milliseconds, by the same script. Jobs keep 100. RSS is the
worker's. Node's ratio shows what a store as large costs anybody."""


class Backlog:
    """A queue in which so many jobs wait, with a worker that works only during its turns."""

    def __init__(self, redis: Any, processes: list[psutil.Process], waiting: int) -> None:
        self.redis = redis
        self.waiting = waiting
        self._processes = processes
        self.least = waiting
        """Jobs that were seen waiting."""

    async def turn(self, seconds: float) -> Round:
        """What the worker did in so long, after a fourth of it that does not count."""
        await jobs.resume(self.redis, KEYS)
        await self._work(seconds / 4)
        meter = Meter(self.redis, self._processes)
        await meter.begin()
        found = await meter.end(await self._work(seconds))
        await jobs.pause(self.redis, KEYS)
        return found

    async def finish(self, *, seconds: float) -> None:
        """Let the worker do all that is left. Raises TimeoutError, or RuntimeError if a job failed."""
        await jobs.resume(self.redis, KEYS)
        await jobs.until_done(self.redis, KEYS, seconds=seconds)

    async def _work(self, seconds: float) -> int:
        """Keeps so many jobs waiting; returns how many were taken."""
        until = time.perf_counter() + seconds
        taken = 0
        while time.perf_counter() < until:
            left = int(await self.redis.llen(KEYS.key("wait")))
            taken += self.waiting - left
            self.least = min(self.least, left)
            await jobs.fill(self.redis, KEYS, self.waiting - left, "keep 100")
            await asyncio.sleep(PAUSE)
        return taken


@contextlib.asynccontextmanager
async def backlog(waiting: int, *, side: str = SIDES[0]) -> AsyncIterator[Backlog]:
    """One that has its first turn still to come."""
    with tempfile.TemporaryDirectory(prefix="hookline-backlog-") as folder, Valkey(Path(folder)) as store:
        redis = Redis.from_url(store.url, decode_responses=True, socket_timeout=None)
        try:
            await jobs.pause(redis, KEYS)
            await jobs.fill(redis, KEYS, waiting, "keep 100")
            async with working(side, store, CONCURRENCY) as processes:
                yield Backlog(redis, processes, waiting)
        finally:
            await redis.aclose()


async def run(store: Valkey, redis: Any, size: Size) -> Section:
    """Uses stores of its own."""
    found: dict[tuple[str, int], list[Round]] = {}
    least: dict[tuple[str, int], int] = {}
    for side in SIDES:
        async with backlog(FEW, side=side) as few, backlog(size.waiting, side=side) as many:
            for number in range(size.rounds):
                for one in alternating((few, many), number):
                    seen = await one.turn(size.seconds)
                    found.setdefault((side, one.waiting), []).append(seen)
                    least[side, one.waiting] = one.least
                    say(f"waiting, round {number + 1}: {side} {one.waiting:,}: {seen.rate:,.0f}/s, RSS {seen.rss:.0f} MiB, never below {one.least:,}")
    ratio = {side: quotients(found[side, size.waiting], found[side, FEW]) for side in SIDES}
    lines = table("jobs waiting", "jobs/s", *ROUND_COLUMNS, "never below", "to 1,000 waiting")
    for (side, waiting), rounds in found.items():
        shown = f"{ratio[side].median:.2f}×" if waiting != FEW else ""
        lines.append(f"| {side}, {waiting:,} | {cells(rounds)} | {least[side, waiting]:,} | {shown} |")
    what = f"no-op jobs/s with {size.waiting:,} waiting"
    return Section(
        title=f"{size.waiting:,} jobs waiting",
        notes=NOTES.format(concurrency=CONCURRENCY),
        table=lines,
        ratios=[Ratio(work=what, against=f"itself with {FEW:,}", found=ratio[SIDES[0]], bound=0.8, aim=0.95)],
    )
