"""Jobs added per second by one process, ours and Node's: one after the other, a hundred at once, a thousand at once."""

from typing import Any

from benchmarks import hookline, jobs, opponents
from benchmarks.measure import Round, Spread, quotients, store_cpu
from benchmarks.report import Bar, Section, table
from benchmarks.size import Size, alternating, say
from tests.support.valkey import Valkey

SIDES = ("Hookline", "Node BullMQ")
WAYS = {"one": "one after the other", "hundred": "100 at once", "bulk": "1,000 at once (Node: addBulk)"}
NOTES = """`Queues.add` (what the API calls; each call to the store is remembered for 60 s) against `Queue.add` and, for 1,000 at
once, `Queue.addBulk`; added/s, median [least–most], and the adding process's CPU. No worker runs."""


async def measured(side: str, store: Valkey, redis: Any, how: str, count: int) -> Round:
    await redis.flushall()
    warmup = max(count // 10, 100)
    begun = await store_cpu(redis)
    if side == "Hookline":
        said = await hookline.produced({"url": store.url, "how": how, "count": count, "warmup": warmup})
    else:
        settings = {"host": "127.0.0.1", "port": store.port, "queue": hookline.QUEUE, "options": jobs.options("keep 100")}
        said = await opponents.answer(opponents.BULLMQ, "producer.js", settings | {"how": how, "count": count, "warmup": warmup})
    cost = (await store_cpu(redis) - begun) / (count + warmup)
    found = await redis.llen(f"bull:{hookline.QUEUE}:wait")
    if found != count + warmup:
        raise RuntimeError(f"{found} jobs are there, not {count + warmup}")
    return Round(rate=count / said["seconds"], cpu=said["cpu"] / count * 1e6, store=cost * 1e6, rss=0)


async def run(store: Valkey, redis: Any, size: Size) -> Section:
    rounds: dict[tuple[str, str], list[Round]] = {}
    for number in range(size.rounds):
        for how in WAYS:
            for side in alternating(SIDES, number):
                found = await measured(side, store, redis, how, size.jobs // 8 if how == "one" else size.jobs)
                rounds.setdefault((how, side), []).append(found)
                say(f"enqueue, round {number + 1}: {side} {WAYS[how]}: {found.rate:,.0f}/s, CPU {found.cpu:.0f} µs")
    lines = table("adding", *(column for side in SIDES for column in (f"{side}, added/s", "CPU µs", "store µs")), "rate", "CPU")
    bars = []
    for how, label in WAYS.items():
        ours, theirs = (rounds[how, side] for side in SIDES)
        spreads = [{what: Spread.of(getattr(one, what) for one in side) for what in ("rate", "cpu", "store")} for side in (ours, theirs)]
        each = " | ".join(f"{of['rate'].shown()} | {of['cpu'].median:,.0f} | {of['store'].median:,.0f}" for of in spreads)
        rate, cpu = quotients(ours, theirs).median, quotients(ours, theirs, "cpu").median
        lines.append(f"| {label} | {each} | {rate:.2f}× | {cpu:.2f}× |")
        if how != "one":
            bars.append(Bar(label=f"jobs added, {label.split(' (')[0]}", ours=spreads[0]["rate"].median, theirs=spreads[1]["rate"].median, unit="/s"))
    return Section(title="Adding jobs", notes=NOTES, table=lines, bars=bars)
