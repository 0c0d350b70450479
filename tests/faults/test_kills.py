"""Many events to several endpoints while what sends is killed and the store dies: none is lost, and few are told twice."""

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.faults.hookline import Hookline
from tests.faults.receivers import Receiver, receiving
from tests.support import soak

EVENTS, ENDPOINTS = soak.size(2_000, 100_000), soak.size(5, 20)
SENDER_KILLS, STORE_KILLS = soak.size(3, 10), soak.size(1, 2)
CONCURRENCY = 10
TOGETHER = 100
WHOLE_AGAIN = 5.0
"""Seconds from a restart to the next delivery."""


@pytest.mark.soak
@pytest.mark.timeout(soak.size(300, 7200))
async def test_events_to_endpoints_under_kills(tmp_path: Path) -> None:
    seed = int(os.environ.get("HOOKLINE_SEED") or random.randrange(1 << 32))
    print(f"HOOKLINE_SEED={seed}")
    dice = random.Random(seed)
    seen = [f"seed {seed}; {EVENTS:,} events × {ENDPOINTS} endpoints"]
    async with Hookline(tmp_path) as server, AsyncExitStack() as stack:
        receivers = [await stack.enter_async_context(receiving()) for _ in range(ENDPOINTS)]
        for receiver in receivers:
            await server.create_endpoint(receiver.url, ["load.tick"], concurrency=CONCURRENCY)
        events: list[str] = []
        publishing = asyncio.create_task(publish(server, events))
        kinds = ["sender"] * SENDER_KILLS + ["store"] * STORE_KILLS
        dice.shuffle(kinds)
        slowest, total = 0.0, EVENTS * ENDPOINTS
        for number, kind in enumerate(kinds, 1):
            # Spread over the work, so that there is some at each.
            await arrived(receivers, total * number // (len(kinds) + 1))
            before = sum(len(receiver.requests) for receiver in receivers)
            assert before < total, "all was delivered before the kill"
            await server.kill("sender" if kind == "sender" else "store")
            under_way = sum(receiver.under_way for receiver in receivers)
            await server.start()
            restarted = time.time()
            took = await next_one(receivers, restarted)
            slowest = max(slowest, took)
            seen.append(f"kill {number} ({kind}): {before:,} of {total:,} delivered, {under_way} requests open; deliveries again after {took:.1f} s")
        await publishing
        due = set(events)
        assert len(due) == EVENTS
        began = time.monotonic()
        for receiver in receivers:
            await receiver.until(lambda requests: due <= {request.id for request in requests}, soak.size(120, 3600))
        seen.append(f"drained {time.monotonic() - began:.0f} s after the last event was accepted")
        again = sum(count - 1 for receiver in receivers for count in Counter(request.id for request in receiver.requests).values())
    assert slowest < WHOLE_AGAIN, f"{slowest:.1f} s"
    assert again <= len(kinds) * ENDPOINTS * CONCURRENCY, f"{again} were told twice"
    seen.append(f"none of {total:,} lost, {again} told twice; whole again within {slowest:.1f} s of each restart")
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


async def arrived(receivers: list[Receiver], count: int) -> None:
    async with asyncio.timeout(soak.size(120, 3600)):
        while sum(len(receiver.requests) for receiver in receivers) < count:
            await more(receivers)


async def next_one(receivers: list[Receiver], since: float) -> float:
    """Seconds from `since` to the first request after it."""
    async with asyncio.timeout(30):
        while True:
            latest = max((receiver.requests[-1].at for receiver in receivers if receiver.requests), default=0.0)
            if latest >= since:
                return latest - since
            await more(receivers)


async def more(receivers: list[Receiver]) -> None:
    """Wait for the next request to any of them."""
    waiting = [asyncio.ensure_future(receiver.more()) for receiver in receivers]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()
