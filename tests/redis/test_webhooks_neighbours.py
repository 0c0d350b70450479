"""Bad neighbours: what hangs or fails costs its own slots, and nobody else's time."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from tests.redis.test_webhooks_service import FAST, hooks_of
from tests.support.hooks import Hooks
from tests.support.receiver import Receiver, receiving
from tests.support.soak import FULL, report, size
from webhooks.backoff import Verdict
from webhooks.dispatcher import Dispatcher
from webhooks.guard import Guard
from webhooks.mailbox import Settlement
from webhooks.sender import Sender


async def test_retries_that_hang_leave_half_of_a_process_to_what_is_fresh(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as slow, receiving() as quick:
        slow.default = slow.hang
        await hooks.endpoint(slow.url, types=["a"], concurrency=100)
        await hooks.endpoint(quick.url, types=["b"])
        for n in range(100):
            await hooks.event("a", n=n)
        await hooks.spread()
        failed = (await hooks.mailbox.claim(100, hooks.clock())).claims
        outcomes = [Settlement(claim=one, verdict=Verdict.RETRY, attempt={"at": 1}, due=hooks.clock()) for one in failed]
        await hooks.mailbox.settle(outcomes, hooks.clock())
        async with Sender(Guard(["127.0.0.0/8"])) as sender:
            dispatcher = Dispatcher(
                hooks.mailbox, hooks.directory, hooks.webhooks.endpoints, sender, hooks.webhooks._outbox, FAST, hooks.clock, capacity=20
            )
            stop = asyncio.Event()
            running = asyncio.create_task(dispatcher.run(stop, drain=5))
            for _ in range(10):
                await slow.next()
            for n in range(200, 240):
                await hooks.event("b", n=n)
            await hooks.spread()
            for _ in range(40):
                await quick.next()
            assert slow.under_way == slow.most_at_once == 10
            slow.let_go.set()
            # There is room again, and the rest goes on.
            for _ in range(90):
                await slow.next()
            stop.set()
            await running


HEALTHY = size(20, 99)
PER_SECOND = size(100, 500)
SECONDS = size(3, 60)


async def latencies(redis: Redis, hooks: Hooks, healthy: Receiver, hanging: Receiver | None) -> list[float]:
    """ms from the event to its arrival, of the healthy endpoints, while events come at an even pace to all in turn."""
    await redis.flushall()
    for n in range(HEALTHY):
        await hooks.endpoint(f"{healthy.url}/{n}", types=[f"to.{n}"])
    if hanging:
        await hooks.endpoint(hanging.url, types=[f"to.{HEALTHY}"])
    sent: dict[str, float] = {}
    count, endpoints = PER_SECOND * SECONDS, HEALTHY + bool(hanging)
    async with hooks.running():
        begun = time.monotonic()
        for n in range(count):
            # An even pace is what is asked for.
            await asyncio.sleep(max(begun + n / PER_SECOND - time.monotonic(), 0))
            at = time.monotonic()
            sent[await hooks.event(f"to.{n % endpoints}", n=n)] = at
        wanted = sum(n % endpoints < HEALTHY for n in range(count))
        async with asyncio.timeout(30):
            while len(healthy.received) < wanted:
                await healthy.next(30)
        if hanging:
            hanging.let_go.set()
    found = [(received.at - sent[received.id]) * 1000 for received in healthy.received if received.id in sent]
    healthy.received.clear()
    return sorted(found)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_an_endpoint_that_hangs_does_not_slow_the_healthy_ones(redis: Redis) -> None:
    found: dict[bool, list[float]] = {False: [], True: []}
    for round in range(2):
        for hangs in (False, True) if round == 0 else (True, False):
            async with receiving() as healthy, receiving() as hanging:
                hanging.default = hanging.hang
                found[hangs] += await latencies(redis, hooks_of(redis), healthy, hanging if hangs else None)
    p99 = {hangs: sorted(ms)[int(len(ms) * 0.99)] for hangs, ms in found.items()}
    report(
        "An endpoint that hangs",
        [
            f"{PER_SECOND} deliveries/s to {HEALTHY} healthy endpoints, p99 from event to arrival: {p99[False]:.1f} ms",
            f"the same beside one that hangs 15 s per request: {p99[True]:.1f} ms",
        ],
    )
    # A short run of a busy machine is a smoke test.
    assert p99[True] <= (p99[False] * 1.2 if FULL else p99[False] * 3 + 100)
