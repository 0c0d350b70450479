"""No-op jobs per second of one worker process, ours and Node's, at several concurrencies; what they cost worker and store."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import psutil

from benchmarks import hookline, jobs, opponents
from benchmarks.measure import Meter, Round, Spread, quotients
from benchmarks.report import ROUND_COLUMNS, Bar, Ratio, Section, cells, table
from benchmarks.size import Size, alternating, say
from pipeline.jobs.calls import QueueKeys
from pipeline.store.keys import Keys
from tests.support.valkey import Valkey

KEYS = QueueKeys("bull", hookline.QUEUE)
SIDES = ("Hookline", "Node BullMQ")
USUAL = "appendonly no"
"""The store's setting unless a benchmark says otherwise."""
NOTES = """Jobs are added to a paused queue, which is then resumed; counted is from then until none is left, in a worker process that has
done {warmup:,} such jobs before. Both sides obey the same jobs: `removed` is `removeOnComplete: true`, `keep 100` is `{{count: 100}}`. Ours
appends an event to the log for each job, in the script that ends it, and writes a log line for each, as it is shipped; Node's worker does
neither. CPU of ours is the supervisor's, too. Rounds are interleaved; rates are jobs/s, median [least–most] of {rounds}."""


@contextlib.asynccontextmanager
async def working(side: str, store: Valkey, concurrency: int) -> AsyncIterator[list[psutil.Process]]:
    """One worker process that is up."""
    if side == "Hookline":
        async with hookline.serving(store, "worker", concurrency=concurrency) as service:
            yield hookline.processes(service)
    else:
        settings = {"host": "127.0.0.1", "port": store.port, "queue": hookline.QUEUE, "concurrency": concurrency}
        async with opponents.running(opponents.BULLMQ, "worker.js", settings) as (process, _):
            yield [process]


async def measured(side: str, store: Valkey, redis: Any, concurrency: int, keep: str, count: int, warmup: int) -> Round:
    await redis.flushall()
    async with working(side, store, concurrency) as processes:
        await jobs.fill(redis, KEYS, warmup, keep)
        await jobs.until_done(redis, KEYS)
        await jobs.pause(redis, KEYS)
        await jobs.fill(redis, KEYS, count, keep)
        meter = Meter(redis, processes)
        await meter.begin()
        await jobs.resume(redis, KEYS)
        await jobs.until_done(redis, KEYS)
        found = await meter.end(count)
    events = await redis.xlen(Keys().log)
    if side == "Hookline" and events < count + warmup:
        raise RuntimeError(f"{count + warmup} jobs were done but {events} events appended")
    return found


async def run(store: Valkey, redis: Any, size: Size, *, where: str) -> Section:
    """`where` says which settings the store has."""
    rounds: dict[tuple[int, str, str], list[Round]] = {}
    for number in range(size.rounds):
        for concurrency in size.concurrencies:
            for keep in size.keeps:
                for side in alternating(SIDES, number):
                    count = size.jobs // 8 if concurrency == 1 else size.jobs
                    found = await measured(side, store, redis, concurrency, keep, count, size.warmup)
                    rounds.setdefault((concurrency, keep, side), []).append(found)
                    say(f"worker, {where}, round {number + 1}: {side} c{concurrency} {keep}: {found.rate:,.0f}/s, CPU {found.cpu:.0f} µs")
    lines = table("concurrency, jobs when done", *SIDES[:1], *ROUND_COLUMNS, *SIDES[1:], *ROUND_COLUMNS, "rate", "CPU")
    ratios, bars = [], []
    apart = "" if where == USUAL else f", {where}"
    for concurrency in size.concurrencies:
        for keep in size.keeps:
            ours, theirs = (rounds[concurrency, keep, side] for side in SIDES)
            rate, cpu = quotients(ours, theirs), quotients(ours, theirs, "cpu")
            lines.append(f"| {concurrency}, {keep} | {cells(ours)} | {cells(theirs)} | {rate.median:.2f}× | {cpu.median:.2f}× |")
            what = f"concurrency {concurrency}, {keep}, {where}"
            if concurrency >= 50:
                ratios.append(Ratio(work=f"no-op jobs/s, {what}", against="Node BullMQ worker", found=rate, bound=1.2, aim=3))
                ratios.append(Ratio(work=f"worker CPU per job, {what}", against="Node BullMQ worker", found=cpu, bound=0.4, aim=0.15, at_most=True))
            middle = [Spread.of(one.rate for one in side).median for side in (ours, theirs)]
            bars.append(Bar(label=f"no-op jobs, c{concurrency}, {keep}{apart}", ours=middle[0], theirs=middle[1], unit="/s"))
    return Section(
        title=f"No-op jobs, one worker process; store: {where}",
        notes=NOTES.format(warmup=size.warmup, rounds=size.rounds),
        table=lines,
        ratios=ratios,
        bars=bars,
    )
