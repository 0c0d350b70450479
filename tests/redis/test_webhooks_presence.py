"""Dispatchers that fall silent: what they hold is attempted again at once, and what the living hold is left to them."""

from redis.asyncio import Redis

from tests.support.hooks import Hooks
from tests.support.mailboxes import claim, consistent, filled, settle
from webhooks.backoff import Verdict
from webhooks.mailbox import Mailbox
from webhooks.presence import STEADY, Presence


class Dispatcher:
    def __init__(self, hooks: Hooks) -> None:
        self.presence = Presence(hooks.redis, hooks.keys, hooks.clock)
        self.mailbox = Mailbox(hooks.redis, hooks.keys, dispatcher=self.presence.id)
        self._hooks = hooks

    async def dies(self) -> None:
        """As the store sees it when its time is over."""
        assert await self._hooks.redis.delete(self._hooks.keys.alive(self.presence.id)) == 1

    async def steady(self) -> None:
        for _ in range(STEADY - 1):
            assert await self.presence.beat() == 0


async def test_what_the_dead_held_is_claimed_by_the_living_at_once(redis: Redis) -> None:
    hooks, _ = await filled(redis, 5, concurrency=5)
    first, second = Dispatcher(hooks), Dispatcher(hooks)
    await first.presence.beat()
    held = (await first.mailbox.claim(100, hooks.clock.now)).claims
    await second.steady()
    await settle(hooks, held[0])
    await first.dies()
    # That is not noticed in the moment of the claim.
    hooks.clock.forward(2_000)
    assert (await second.mailbox.claim(100, hooks.clock.now)).claims == []
    assert await second.presence.beat() == 4
    again = (await second.mailbox.claim(100, hooks.clock.now)).claims
    assert {one.id for one in again} == {one.id for one in held[1:]}
    assert {one.tried for one in again} == {0}, "the loss does not count against the schedule"
    assert await settle(hooks, held[1], Verdict.RETRY, due=hooks.clock.now) == "stale"
    for one in again:
        assert await settle(hooks, one) == "ok"
    await consistent(hooks)
    assert await redis.smembers(hooks.keys.dispatchers) == {second.presence.id}


async def test_what_the_living_hold_is_left_to_them(redis: Redis) -> None:
    hooks, _ = await filled(redis, 3)
    first, second = Dispatcher(hooks), Dispatcher(hooks)
    await first.presence.beat()
    held = (await first.mailbox.claim(100, hooks.clock.now)).claims
    await second.steady()
    assert await second.presence.beat() == 0
    assert await claim(hooks) == []
    assert [await settle(hooks, one) for one in held] == ["ok"] * 3


async def test_after_an_outage_everybody_is_heard_first(redis: Redis) -> None:
    hooks, _ = await filled(redis, 3)
    first, second = Dispatcher(hooks), Dispatcher(hooks)
    await first.presence.beat()
    await first.mailbox.claim(100, hooks.clock.now)
    await second.steady()
    await first.dies()
    # The store was away for the second, too.
    second.presence._steady = 0
    await second.steady()
    await first.presence.beat()
    assert await second.presence.beat() == 0


async def test_who_leaves_waits_for_nobody_and_a_long_list_is_worked_through(redis: Redis) -> None:
    hooks, _ = await filled(redis, 250, concurrency=250)
    first, second = Dispatcher(hooks), Dispatcher(hooks)
    await first.presence.beat()
    for _ in range(250):
        (_,) = (await first.mailbox.claim(1, hooks.clock.now)).claims
        hooks.clock.forward(1)
    await second.steady()
    await first.presence.leave()
    # Of claims whose leases end alike one is counted twice.
    assert await second.presence.beat() >= 250
    assert await redis.exists(hooks.keys.held(first.presence.id)) == 0
    back = []
    while more := (await second.mailbox.claim(100, hooks.clock.now)).claims:
        back += more
    assert len({one.id for one in back}) == 250
