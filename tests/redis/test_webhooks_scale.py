"""Many endpoints, many pending deliveries: what a claim costs the store for each delivery."""

import ctypes.util
from pathlib import Path

import pytest
from redis.asyncio import Redis

from pipeline.store.connection import connect
from tests.support.hooks import Hooks
from tests.support.soak import FULL, report, size
from tests.support.valkey import Valkey
from webhooks.mailbox import Claim, released

LIMIT = 100
TURNS = 5
CLAIMS = 50
ALLOCATOR = ctypes.util.find_library("jemalloc")
"""What Valkey's and Redis's own packages and images are built with. The wheel that tests run has the C library's, which by itself is slower the
more there is in the store."""


async def filled(redis: Redis, endpoints: int, each: int) -> Hooks:
    hooks = Hooks(redis)
    for _ in range(endpoints):
        await hooks.endpoint()
    for n in range(each):
        await hooks.event(n=n)
    assert await hooks.spread() == endpoints * each
    return hooks


async def spent(redis: Redis) -> float:
    """µs in scripts so far."""
    stats = await redis.info("commandstats")
    return sum(float(stats[name]["usec"]) for name in ("cmdstat_eval", "cmdstat_evalsha") if name in stats)


async def claim_cost(hooks: Hooks) -> float:
    """µs of the store per claimed delivery; the best of some, for a machine has other things to do."""
    best = float("inf")
    for _ in range(CLAIMS):
        before = await spent(hooks.redis)
        claims: list[Claim] = (await hooks.mailbox.claim(LIMIT, hooks.clock.now)).claims
        best = min(best, (await spent(hooks.redis) - before) / LIMIT)
        assert len(claims) == LIMIT
        # Handed back, so that as many are pending as before.
        await hooks.mailbox.settle([released(one) for one in claims], hooks.clock.now)
        hooks.clock.forward(1)
    return best


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_claim_costs_as_much_among_many_as_among_few(tmp_path: Path) -> None:
    endpoints, each = size(500, 10_000), size(40, 100)
    with Valkey(tmp_path / "few", preload=ALLOCATOR) as one, Valkey(tmp_path / "many", preload=ALLOCATOR) as other:
        stores = [connect(store.socket_url) for store in (one, other)]
        few, many = await filled(stores[0], 10, 100), await filled(stores[1], endpoints, each)
        costs = [(await claim_cost(few), await claim_cost(many)) for _ in range(TURNS)]
        for store in stores:
            await store.aclose()
    least, most = (min(turns) for turns in zip(*costs, strict=True))
    ratio = most / least
    report(
        "Claims among many endpoints",
        [
            f"the store's allocator: {'jemalloc' if ALLOCATOR else 'the C library’s'}",
            f"a claim of {LIMIT} from 10 endpoints with 1,000 pending: {least:.1f} µs of the store per delivery",
            f"from {endpoints:,} endpoints with {endpoints * each:,} pending: {most:.1f} µs ({ratio:.2f} times as much)",
        ],
    )
    # Without the allocator, and with neighbours on the machine, memory is what is measured; work that grew with the number of endpoints or deliveries
    # would be hundreds of times as much.
    assert ratio <= (1.25 if FULL and ALLOCATOR else 4)
