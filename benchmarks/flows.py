"""Chains of three no-op steps per second: a workflow of ours against a flow of three levels of Node's FlowProducer."""

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

OURS, ONE, TWO = SIDES = ("Hookline", "Node, one process", "Node, two processes")
QUEUES = [QueueKeys("bull", queue) for queue in hookline.STEPS]
CONCURRENCY = 50
KEYS = Keys()
NOTES = f"""Chains are added while the queue of their first job is paused (by `Runs.start`, 200 at once; by `addBulk` of 200 flows); then it
is resumed, and counted is from there until the last chain is complete: for Hookline until its run is `completed`, for Node until no job of
the three queues is left. Concurrency {CONCURRENCY} per queue. Each step passes a value that the next one reads. Hookline is `hookline
serve`: one process for API, engine and webhooks, one worker process; it keeps each run, its timeline and its events, and 100 jobs of each
queue. Node is one process with the three workers, or two of them; its jobs are removed when done. CPU is that of all processes of a side.
The ratio is to the faster of Node's two."""


@contextlib.asynccontextmanager
async def working(side: str, store: Valkey) -> AsyncIterator[list[psutil.Process]]:
    if side == OURS:
        async with hookline.serving(store, "all", concurrency=CONCURRENCY) as service:
            yield hookline.processes(service)
        return
    settings = {"host": "127.0.0.1", "port": store.port, "queues": hookline.STEPS, "concurrency": CONCURRENCY}
    async with contextlib.AsyncExitStack() as stack:
        count = 1 if side == ONE else 2
        yield [(await stack.enter_async_context(opponents.running(opponents.BULLMQ, "flow-worker.js", settings)))[0] for _ in range(count)]


async def add(side: str, store: Valkey, count: int) -> float:
    """Seconds it took."""
    if side == OURS:
        said = await hookline.produced({"url": store.url, "how": "runs", "count": count, "warmup": 0})
    else:
        settings = {"host": "127.0.0.1", "port": store.port, "how": "flows", "count": count, "warmup": 0, "queues": hookline.STEPS}
        said = await opponents.answer(opponents.BULLMQ, "producer.js", settings | {"options": {"removeOnComplete": True}})
    return float(said["seconds"])


async def until_settled(side: str, redis: Any, done: int) -> None:
    """Returns when all chains are complete, `done` in all."""
    if side != OURS:
        await jobs.until_done(redis, *QUEUES)
        return
    await jobs.until(lambda: _unfinished(redis, done))


async def _unfinished(redis: Any, runs: int) -> int:
    return runs - int(await redis.zcard(KEYS.runs("status", "completed")))


async def _unread(redis: Any) -> int:
    """Events that a group of the log has not acknowledged."""
    return sum(int(group["lag"] or 0) + int(group["pending"]) for group in await redis.xinfo_groups(KEYS.log))


async def measured(side: str, store: Valkey, redis: Any, count: int, warmup: int) -> tuple[Round, float]:
    """The round, and chains added per second before it."""
    await redis.flushall()
    async with working(side, store) as processes:
        await add(side, store, warmup)
        await until_settled(side, redis, warmup)
        first = QUEUES[0] if side == OURS else QUEUES[-1]
        await jobs.pause(redis, first)
        added = count / await add(side, store, count)
        if side == OURS:
            # `workflow.started` of each is read by engine and webhooks: that is done before the watch runs.
            await jobs.until(lambda: _unread(redis))
        meter = Meter(redis, processes)
        await meter.begin()
        await jobs.resume(redis, first)
        await until_settled(side, redis, warmup + count)
        return await meter.end(count), added


async def run(store: Valkey, redis: Any, size: Size) -> Section:
    rounds: dict[str, list[Round]] = {side: [] for side in SIDES}
    adding: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(size.rounds):
        for side in alternating(SIDES, number):
            found, added = await measured(side, store, redis, size.chains, max(size.chains // 10, 20))
            rounds[side].append(found)
            adding[side].append(added)
            say(f"chains, round {number + 1}: {side}: {found.rate:,.0f}/s, CPU {found.cpu:.0f} µs; added {added:,.0f}/s")
    lines = table("", "chains/s", *ROUND_COLUMNS, "added/s before")
    lines += [f"| {side} | {cells(rounds[side])} | {Spread.of(adding[side]).shown()} |" for side in SIDES]
    best = max((ONE, TWO), key=lambda side: Spread.of(one.rate for one in rounds[side]).median)
    rate = quotients(rounds[OURS], rounds[best])
    middle = [Spread.of(one.rate for one in rounds[side]).median for side in (OURS, best)]
    return Section(
        title="Chains of three steps",
        notes=NOTES,
        table=lines,
        ratios=[Ratio(work="3-step chained runs/s", against=f"FlowProducer, 3 levels ({best})", found=rate, bound=1.0, aim=2)],
        bars=[Bar(label="3-step chains", ours=middle[0], theirs=middle[1], unit="/s")],
    )
