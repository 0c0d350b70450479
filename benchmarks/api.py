"""Accepted `POST /api/jobs/document-processing` per second, ours against NestJS on Fastify with @nestjs/bullmq."""

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks import hookline, jobs, opponents
from benchmarks.measure import Meter, Round, Spread, quotients
from benchmarks.report import ROUND_COLUMNS, Bar, Ratio, Section, cells, table
from benchmarks.size import Size, alternating, say
from tests.support.service import JWT_SECRET, ROOT, token
from tests.support.valkey import Valkey

OURS, NEST = SIDES = ("Hookline", "NestJS on Fastify")
CONNECTIONS = 64
WAIT = "bull:document-processing:wait"
PATH = "/api/jobs/document-processing"
WARMUP_SECONDS = 3.0
"""Until Node has compiled what is hot."""
NOTES = """{generator}, {connections} connections, the same body and the same HS256 JWT of a user on both sides. Both verify the token,
refuse another user's `userId`, check the same rules of the five fields, add the job with the same options and answer 201 with the same JSON
and a `Location`. One process each: `hookline serve --role api` as it is shipped (a log line for each request, the jobs of a call to the
store are remembered for 60 s); NestJS with `NODE_ENV=production`, without logs (`@nestjs/jwt`, with a key object, which spares it most of its time;
`ValidationPipe` with class-validator). Any answer but 201 fails the benchmark. No workflow has the queue as its trigger."""


@contextlib.asynccontextmanager
async def serving(side: str, store: Valkey) -> AsyncIterator[tuple[str, list[psutil.Process]]]:
    if side == OURS:
        async with hookline.serving(store, "api") as service:
            yield service.url, hookline.processes(service)
        return
    settings = {"host": "127.0.0.1", "port": store.port, "secret": JWT_SECRET, "options": jobs.options("keep 100")}
    async with opponents.running(opponents.NEST, "dist/main.js", settings) as (process, url):
        yield url, [process]


def generator() -> str:
    return "wrk -t1" if shutil.which("wrk") else "A load generator of ours (`benchmarks/load.py`; wrk is not installed)"


async def posted(url: str, seconds: float) -> dict[str, Any]:
    """`{requests, errors, seconds, p50, p99}` (ms) of posting as fast as it goes."""
    body, authorization = json.dumps(jobs.DATA), f"Bearer {token('user-1', 'user')}"
    if not shutil.which("wrk"):
        command = [sys.executable, "-m", "benchmarks.load", url + PATH, body, authorization, str(CONNECTIONS), str(seconds)]
        return await _answer(command)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(
            f"wrk.method, wrk.body = 'POST', [[{body}]]\n"
            f"wrk.headers['Content-Type'], wrk.headers['Authorization'] = 'application/json', '{authorization}'\n"
            "function done(summary, latency)\n"
            "  local e = summary.errors\n"
            """  io.write(string.format('\\n{"requests": %d, "errors": %d, "seconds": %f, "p50": %f, "p99": %f}\\n', summary.requests,\n"""
            "    e.status + e.connect + e.read + e.write + e.timeout, summary.duration / 1e6, latency:percentile(50) / 1e3,"
            " latency:percentile(99) / 1e3))\nend\n"
        )
        # It knows whole seconds alone.
        duration = f"-d{max(round(seconds), 1)}s"
        return await _answer(["wrk", "-t1", "--timeout", "30s", f"-c{CONNECTIONS}", duration, "-s", str(script), url + PATH])


async def _answer(command: list[str]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed: {out.decode()}")
    found: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
    return found


async def measured(side: str, store: Valkey, redis: Any, seconds: float) -> tuple[Round, dict[str, Any]]:
    await redis.flushall()
    async with serving(side, store) as (url, processes):
        await posted(url, min(seconds, WARMUP_SECONDS))
        before = await redis.llen(WAIT)
        meter = Meter(redis, processes)
        await meter.begin()
        said = await posted(url, seconds)
        added = int(await redis.llen(WAIT)) - before
        found = await meter.end(said["requests"], seconds=said["seconds"])
    # Requests that were under way at its end are not counted by the generator.
    if said["errors"] or not said["requests"] <= added <= said["requests"] + 2 * CONNECTIONS:
        raise RuntimeError(f"{side}: {said}, jobs added: {added}")
    return found, said


async def run(store: Valkey, redis: Any, size: Size) -> Section:
    rounds: dict[str, list[Round]] = {side: [] for side in SIDES}
    latencies: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(size.rounds):
        for side in alternating(SIDES, number):
            found, said = await measured(side, store, redis, size.seconds)
            rounds[side].append(found)
            latencies[side].append(said)
            say(f"API, round {number + 1}: {side}: {found.rate:,.0f}/s, CPU {found.cpu:.0f} µs, p99 {said['p99']:.1f} ms")
    lines = table("", "accepted/s", *ROUND_COLUMNS, "p50 ms", "p99 ms")
    for side in SIDES:
        p50, p99 = (Spread.of(said[what] for said in latencies[side]).median for what in ("p50", "p99"))
        lines.append(f"| {side} | {cells(rounds[side])} | {p50:.1f} | {p99:.1f} |")
    rate = quotients(rounds[OURS], rounds[NEST])
    middle = [Spread.of(one.rate for one in rounds[side]).median for side in SIDES]
    return Section(
        title="Accepted POST /api/jobs",
        notes=NOTES.format(generator=generator(), connections=CONNECTIONS),
        table=lines,
        ratios=[Ratio(work="accepted `POST /api/jobs` per second", against="NestJS (Fastify) + @nestjs/bullmq", found=rate, bound=1.5, aim=2.5)],
        bars=[Bar(label="POST /api/jobs (NestJS, Fastify)", ours=middle[0], theirs=middle[1], unit="/s")],
    )
