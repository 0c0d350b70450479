"""Many events to several endpoints while what sends is killed and the store dies: none is lost, and few are told twice."""

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from tests.faults.counting import counting
from tests.faults.hookline import Hookline
from tests.support import soak

EVENTS, ENDPOINTS = soak.size(2_000, 100_000), soak.size(5, 20)
SENDER_KILLS, STORE_KILLS = soak.size(3, 10), soak.size(1, 2)
CONCURRENCY = 10
TOGETHER = 100
LONGEST = soak.size(120, 3600)
WHOLE_AGAIN = 5.0
"""Seconds from when what was killed is ready to the next delivery. From its start on is told, too, but most of that is this machine's load."""


@pytest.mark.soak
@pytest.mark.timeout(soak.size(300, 7200))
async def test_events_to_endpoints_under_kills(tmp_path: Path) -> None:
    seed = int(os.environ.get("HOOKLINE_SEED") or random.randrange(1 << 32))
    print(f"HOOKLINE_SEED={seed}")
    dice = random.Random(seed)
    seen = [f"seed {seed}; {EVENTS:,} events × {ENDPOINTS} endpoints"]
    total = EVENTS * ENDPOINTS
    async with Hookline(tmp_path) as server, counting(ENDPOINTS) as receiver:
        for url in receiver.urls:
            await server.create_endpoint(url, ["load.tick"], concurrency=CONCURRENCY)
        events: list[str] = []
        publishing = asyncio.create_task(publish(server, events))
        kinds = ["sender"] * SENDER_KILLS + ["store"] * STORE_KILLS
        dice.shuffle(kinds)
        slowest = 0.0
        for number, kind in enumerate(kinds, 1):
            # Spread over the work, so that there is some at each.
            await receiver.until(total * number // (len(kinds) + 1), LONGEST)
            before = receiver.first
            assert before < total, "all was delivered before the kill"
            await server.kill("sender" if kind == "sender" else "store")
            started = time.time()
            await server.start()
            ready = time.time()
            took = await receiver.next_one(ready)
            slowest = max(slowest, took)
            again = f"deliveries again {took + ready - started:.2f} s from the start, {took:.2f} s from when it was ready"
            seen.append(f"kill {number} ({kind}): {before:,} of {total:,} delivered; {again}")
        await publishing
        assert len(set(events)) == EVENTS
        began = time.monotonic()
        await receiver.until(total, LONGEST)
        seen.append(f"drained {time.monotonic() - began:.0f} s after the last event was accepted")
        due = {event.encode() for event in events}
        assert all(counts.keys() == due for counts in receiver.counts)
        twice = receiver.requests - receiver.first
    assert slowest < WHOLE_AGAIN, f"{slowest:.1f} s"
    assert twice <= len(kinds) * ENDPOINTS * CONCURRENCY, f"{twice} were told twice"
    seen.append(f"none of {total:,} lost, {twice} told twice; whole again within {slowest:.1f} s of each restart")
    soak.report("Events to endpoints, what sends killed -9 and the store too", seen)


async def publish(server: Hookline, events: list[str]) -> None:
    """Under an idempotency key, so that an answer lost with the store does not double anything."""
    for first in range(0, EVENTS, TOGETHER):
        batch = [("load.tick", {"n": n}) for n in range(first, min(first + TOGETHER, EVENTS))]
        while True:
            try:
                events += await server.publish(batch, key=f"batch-{first}")
                break
            except Exception as error:
                print(f"publishing again: {type(error).__name__}: {error}")
                await asyncio.sleep(0.1)
