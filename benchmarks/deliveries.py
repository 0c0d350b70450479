"""Deliveries per second of one process, signed and recorded, against a bare aiohttp client that signs; and how soon a step's end is heard of."""

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import orjson

from benchmarks import hookline, jobs
from benchmarks.measure import Meter, Round, Spread, quotients
from benchmarks.report import ROUND_COLUMNS, Bar, Ratio, Section, cells, table
from benchmarks.size import Size, alternating, say
from pipeline.store.event import Event, event_id
from pipeline.store.keys import Keys as StoreKeys
from pipeline.store.log import Log
from tests.support.service import ROOT
from tests.support.valkey import Valkey
from webhooks import Webhooks
from webhooks.keys import Keys
from webhooks.signing import generate_secret

OURS, BARE = SIDES = ("Hookline", "bare aiohttp client")
ENDPOINT = "bench"
CONCURRENCY = 64
BODY = 1024
"""Bytes of an event as it is sent."""
PART = 500
"""Events that are appended at once."""
ENCRYPTION_KEY = b"k" * 32
SECRET = generate_secret()
PER_SECOND = 100
"""Runs, where latency is measured."""
STORE = StoreKeys()
HOOKS = Keys(STORE.webhooks)
NOTES = """Bodies of {body} bytes, {concurrency} at once, one uvloop sink in a process of its own for both sides. Hookline is `hookline serve --role
webhooks` as it is shipped: the deliveries are in the store already; each is claimed under a lease, signed, sent, and settled with a record of
the attempt. The other side is one process with aiohttp's client in its fastest settings on uvloop, which signs (HMAC-SHA256) and posts, and
neither reads nor records anything. Rounds are interleaved; deliveries/s, median [least–most] of {rounds}. CPU of ours is the supervisor's,
too. With {pending:,} more pending: as many wait in the same mailbox, and are still there at the end."""
LATENCY = """From the moment a step's job ended (`finishedAt`, taken by its worker before the store is told) to the event's arrival at the sink, while
{per_second} runs/s of three steps are started; a whole `hookline serve` (API, engine, webhooks, one worker process) on the same store. The first
comes straight from the log, the second by way of the engine. The first second is left out."""
TIMED = ("job.completed", "workflow.step.completed")


@contextlib.asynccontextmanager
async def sink(*arguments: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """A sink's URL; what it saw is in the dictionary afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.sink", *arguments, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    found: dict[str, Any] = {}
    try:
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}/hook", found
    finally:
        process.stdin.close()
        found |= json.loads(await process.stdout.readline() or "{}")
        await process.wait()


def settings(url: str, types: list[str]) -> dict[str, Any]:
    """What config.yaml says of webhooks."""
    endpoint = {"id": ENDPOINT, "url": url, "types": types, "secret": SECRET, "concurrency": CONCURRENCY}
    return {"webhooks": {"allow_networks": ["127.0.0.0/8"], "endpoints": [endpoint]}}


def environment() -> dict[str, str]:
    return {"HOOKLINE_ENCRYPTION_KEYS": base64.b64encode(ENCRYPTION_KEY).decode()}


def event(number: int) -> Event:
    """One of BODY bytes."""
    bare = Event(id=event_id("bench.done", number), type="bench.done", timestamp=1_767_225_600_000, data={"n": number, "text": ""})
    room = BODY - len(orjson.dumps(bare.document()))
    return Event(id=bare.id, type=bare.type, timestamp=bare.timestamp, data={"n": number, "text": "x" * room})


async def fill(redis: Any, first: int, count: int) -> None:
    """Append events, and wait until each has become a delivery."""
    log = Log(redis, STORE.log)
    for start in range(first, first + count, PART):
        await log.append([event(number) for number in range(start, min(start + PART, first + count))])
    await jobs.until(lambda: _unread(redis), seconds=600)


async def _unread(redis: Any) -> int:
    """Events that have not become deliveries."""
    groups = {group["name"]: group for group in await redis.xinfo_groups(STORE.log)}
    if not (group := groups.get("webhooks")):
        return int(await redis.xlen(STORE.log))
    return int(group["lag"] or 0) + int(group["pending"])


async def _pending(redis: Any) -> int:
    return int(await redis.zcard(HOOKS.deliveries("status", "pending")))


async def ours(store: Valkey, redis: Any, url: str, count: int, warmup: int, pending: int = 0) -> Round:
    await redis.flushall()
    hooks = Webhooks(redis=redis, prefix=STORE.webhooks, encryption_keys=[ENCRYPTION_KEY])
    async with hookline.serving(store, "webhooks", more=settings(url, ["bench.done"]), environment=environment()) as service:
        await fill(redis, 0, warmup)
        await jobs.until(lambda: _pending(redis))
        await hooks.endpoints.pause(ENDPOINT)
        await fill(redis, warmup, count + pending)
        meter = Meter(redis, hookline.processes(service))
        await meter.begin()
        await hooks.endpoints.enable(ENDPOINT)
        await jobs.until(lambda: _over(redis, pending))
        left = await _pending(redis)
        found = await meter.end(count + pending - left)
    if pending and left < pending * 0.8:
        raise RuntimeError(f"{left:,} of {pending:,} were still pending at the end")
    return found


async def _over(redis: Any, pending: int) -> int:
    return await _pending(redis) - pending


async def bare(redis: Any, url: str, count: int, warmup: int) -> Round:
    body = orjson.dumps(event(0).document()).decode()
    asked = {"url": url, "body": body, "concurrency": CONCURRENCY, "count": count, "warmup": warmup}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bareclient", json.dumps(asked), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("benchmarks.bareclient failed")
    said = json.loads(out)
    return Round(rate=count / said["seconds"], cpu=said["cpu"] / count * 1e6, store=0.0, rss=said["rss"] / 2**20)


async def latency(store: Valkey, redis: Any, seconds: float) -> dict[str, Any]:
    """Event type → `{count, p50, p99}` (ms)."""
    await redis.flushall()
    async with (
        sink(str(3 * PER_SECOND)) as (url, found),
        hookline.serving(store, "all", concurrency=10, more=settings(url, list(TIMED)), environment=environment()),
    ):
        await hookline.produced({"url": store.url, "how": "paced", "count": round(PER_SECOND * seconds), "warmup": PER_SECOND})
        runs = round(PER_SECOND * seconds) + PER_SECOND
        await jobs.until(lambda: _undone(redis, runs))
        await jobs.until(lambda: _unread(redis))
        await jobs.until(lambda: _pending(redis))
    if any(found[type]["count"] != 3 * (runs - PER_SECOND) for type in TIMED):
        raise RuntimeError(f"{runs} runs of three steps, but {found}")
    return found


async def _undone(redis: Any, runs: int) -> int:
    return runs - int(await redis.zcard(STORE.runs("status", "completed")))


async def run(store: Valkey, redis: Any, size: Size) -> Section:
    great = f"Hookline, {size.pending:,} more pending"
    sides = (*SIDES, great)
    rounds: dict[str, list[Round]] = {side: [] for side in sides}
    heard = []
    for number in range(size.rounds):
        for side in alternating(sides, number):
            async with sink() as (url, _):
                if side == BARE:
                    found = await bare(redis, url, size.deliveries, size.warmup)
                else:
                    found = await ours(store, redis, url, size.deliveries, size.warmup, size.pending if side == great else 0)
            rounds[side].append(found)
            say(f"deliveries, round {number + 1}: {side}: {found.rate:,.0f}/s, CPU {found.cpu:.0f} µs, store {found.store:.0f} µs")
        heard.append(await latency(store, redis, size.seconds))
        say(f"deliveries, round {number + 1}: step finished → received: {heard[-1]}")
    lines = table("", "deliveries/s", *ROUND_COLUMNS)
    lines += [f"| {side} | {cells(found)} |" for side, found in rounds.items()]
    lines += ["", LATENCY.format(per_second=PER_SECOND), "", *table("step finished → received: p99 must be below 50 ms, aim 10", "p50 ms", "p99 ms")]
    for type in TIMED:
        p50, p99 = (Spread.of(one[type][what] for one in heard) for what in ("p50", "p99"))
        lines.append(f"| `{type}` | {p50.shown(1)} | {p99.shown(1)} |")
    rate = quotients(rounds[OURS], rounds[BARE])
    middle = [Spread.of(one.rate for one in rounds[side]).median for side in SIDES]
    work = "deliveries/s, 1 KiB, signed and recorded"
    backlog = quotients(rounds[great], rounds[OURS])
    return Section(
        title="Deliveries",
        notes=NOTES.format(body=BODY, concurrency=CONCURRENCY, rounds=size.rounds, pending=size.pending),
        table=lines,
        ratios=[
            Ratio(work=work, against="bare aiohttp client + HMAC, no store", found=rate, bound=0.6, aim=1.3),
            Ratio(work=f"deliveries/s with {size.pending:,} more pending", against="itself without", found=backlog, bound=0.8, aim=0.95),
        ],
        bars=[Bar(label="deliveries (bare aiohttp client)", ours=middle[0], theirs=middle[1], unit="/s")],
    )
