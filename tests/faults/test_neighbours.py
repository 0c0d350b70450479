"""One endpoint that hangs for 15 s at each request, among 99 healthy ones: what it costs these."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from itertools import chain
from pathlib import Path
from statistics import quantiles

import pytest

from tests.faults.hookline import Hookline
from tests.faults.receivers import Receiver, receiving
from tests.support import soak

HEALTHY = 99
EVENTS_A_SECOND = 5
"""To 100 endpoints each: 500 deliveries/s."""
SECONDS = soak.size(3, 10)
ROUNDS = soak.size(3, 6)
BUSY = 3
"""The ratio on a machine that other tests share, where one pause of theirs is the p99 of its round: some round must be without. What a neighbour
held up would be seconds late in each. At full size the rounds of a side are one sample, in which one pause is not yet the p99."""


@pytest.mark.soak
@pytest.mark.timeout(soak.size(120, 600))
async def test_a_hanging_endpoint_does_not_slow_down_the_others(tmp_path: Path) -> None:
    async with Hookline(tmp_path) as server, AsyncExitStack() as stack:
        healthy = [await stack.enter_async_context(receiving()) for _ in range(HEALTHY)]
        hanging = await stack.enter_async_context(receiving())
        for receiver in healthy:
            await server.create_endpoint(receiver.url, ["load.tick"])
        neighbour = await server.create_endpoint(hanging.url, ["load.tick"], timeout=15)
        await run(server, healthy, 1.0)  # warm
        without, beside = list[list[float]](), list[list[float]]()
        for _ in range(ROUNDS):
            hanging.free.set()
            without.append(await run(server, healthy, SECONDS))
            hanging.free.clear()
            beside.append(await run(server, healthy, SECONDS))
            if not soak.FULL and least(without, beside) <= BUSY:
                break
        assert hanging.requests
        assert hanging.under_way > 0, "it did not hang"
        assert await server.status(neighbour.id) == "enabled"
    fast, slow = (percentiles(chain.from_iterable(rounds)) for rounds in (without, beside))
    ratio = slow[1] / fast[1] if soak.FULL else least(without, beside)
    seen = [
        f"{HEALTHY} healthy endpoints, {EVENTS_A_SECOND * 100} deliveries/s, {len(without)} rounds of {SECONDS} s each, by turns",
        f"without: p50 {fast[0]:.1f} ms, p99 {fast[1]:.1f} ms",
        f"beside one that hangs: p50 {slow[0]:.1f} ms, p99 {slow[1]:.1f} ms; p99 {ratio:.2f}×",
    ]
    assert ratio <= (1.2 if soak.FULL else BUSY), seen
    soak.report("A hanging endpoint among healthy ones", seen)


def percentiles(times: Iterable[float]) -> tuple[float, float]:
    """p50 and p99."""
    cuts = quantiles(times, n=100)
    return cuts[49], cuts[98]


def least(without: list[list[float]], beside: list[list[float]]) -> float:
    """The p99 of a round beside one that hangs, to that of the one before it; the best of all rounds."""
    return min(percentiles(slow)[1] / percentiles(fast)[1] for slow, fast in zip(beside, without, strict=True))


async def run(server: Hookline, healthy: list[Receiver], seconds: float) -> list[float]:
    """ms from the call that published to the receiver, of each delivery."""
    for receiver in healthy:
        receiver.requests.clear()
    sent: dict[str, float] = {}
    began = time.time()
    count = round(seconds * EVENTS_A_SECOND)
    for number in range(count):
        await asyncio.sleep(max(began + number / EVENTS_A_SECOND - time.time(), 0))  # the rate is the load
        at = time.time()
        (event,) = await server.publish([("load.tick", {"n": number})])
        sent[event] = at
    for receiver in healthy:
        await receiver.count(count)
    times = [(request.at - sent[request.id]) * 1000 for receiver in healthy for request in receiver.requests if request.id in sent]
    assert len(times) == count * HEALTHY
    return times
