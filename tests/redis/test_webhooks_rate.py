"""An endpoint's rate: in no stretch of time more attempts begin than it says, but for a burst of a tenth of a second's worth."""

from typing import Any

import pytest
from redis.asyncio import Redis

from tests.redis.test_webhooks_service import hooks_of, settled
from tests.support.hooks import Hooks
from tests.support.mailboxes import claim, consistent, failed_once, filled, settle
from tests.support.receiver import receiving
from webhooks.model import delivery_id


async def begun(hooks: Hooks, ms: int, step: int = 1) -> list[int]:
    """At which ms attempts begin when a dispatcher claims and settles all the time."""
    at = []
    start = hooks.clock.now
    while hooks.clock.now - start < ms:
        for one in await claim(hooks):
            at.append(hooks.clock.now - start)
            await settle(hooks, one)
        hooks.clock.forward(step)
    return at


def most_within(times: list[Any], window: float) -> int:
    return max(sum(first <= other < first + window for other in times) for first in times)


@pytest.mark.parametrize(
    ("rate", "first", "burst", "window"),
    [
        ("10/1s", [0, 100, 200, 300], 1, 1000),
        ("50/1s", [0, 0, 0, 0, 0, 20, 40, 60], 5, 1000),
        ("3/1s", [0, 334, 668, 1002], 1, 1000),
        ("7/1s", [0, 143, 286, 429], 1, 1000),
    ],
)
async def test_the_pace(redis: Redis, rate: str, first: list[int], burst: int, window: int) -> None:
    hooks, _ = await filled(redis, 120, concurrency=200, rate=rate)
    at = await begun(hooks, 1500)
    assert at[: len(first)] == first
    count = int(rate.split("/")[0])
    assert most_within(at, window) <= count + burst
    assert len(at) >= 1.5 * count, "nor is any of it left unused"
    await consistent(hooks)


async def test_it_stands_in_the_index_at_the_time_of_the_next(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 3, rate="1/1m")
    assert len(await claim(hooks)) == 1
    assert await redis.zscore(hooks.keys.due, endpoint) == hooks.clock.now + 60_000
    hooks.clock.forward(59_999)
    assert await claim(hooks) == []
    hooks.clock.forward(1)
    assert len(await claim(hooks)) == 1


async def test_what_was_not_used_is_not_saved_up(redis: Redis) -> None:
    hooks, _ = await filled(redis, 30, concurrency=30, rate="50/1s")
    hooks.clock.forward(3_600_000)
    assert len(await claim(hooks)) == 5


async def test_retries_and_several_processes_share_it(redis: Redis) -> None:
    hooks, _ = await filled(redis, 10, concurrency=50)
    other = Hooks(redis, hooks.clock)
    await failed_once(hooks, hooks.clock.now)
    endpoint = (await hooks.webhooks.endpoints.list()).items[0].id
    await hooks.webhooks.endpoints.patch(endpoint, {"rate": "50/1s"})
    for n in range(10, 20):
        await hooks.event(n=n)
    await hooks.spread()
    taken = await claim(hooks) + await claim(other)
    assert [one.retry for one in taken] == [False, False, False, False, True]
    hooks.clock.forward(20)
    assert len(await claim(other)) == 1
    assert await claim(hooks) == []


async def test_without_a_rate_again_all_goes_at_once(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 10, rate="1/1d")
    assert len(await claim(hooks)) == 1
    await hooks.webhooks.endpoints.patch(endpoint, {"rate": None})
    assert len(await claim(hooks)) == 9


async def test_a_receiver_sees_the_rate(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as paced, receiving() as quick:
        endpoints = [await hooks.endpoint(paced.url, rate="100/1s", concurrency=50), await hooks.endpoint(quick.url)]
        events = [await hooks.event(n=n) for n in range(110)]
        async with hooks.running():
            await settled(hooks, {delivery_id(event, endpoint): "delivered" for event in events for endpoint in endpoints})
    times = [received.at for received in paced.received]
    assert len(times) == 110
    # The pace itself is above: how long a request is on its way differs, and by much on a busy machine. At once, it would be a tenth of this.
    assert max(times) - min(times) >= 0.8
    assert max(received.at for received in quick.received) < max(times), "nobody else is held up"
