"""Dispatchers that fall silent: what they hold is attempted again at once, and what the living hold is left to them."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from redis.asyncio import Redis

from pipeline.store.connection import connect
from tests.support.hooks import Hooks
from tests.support.mailboxes import claim, consistent, filled, settle
from tests.support.speaking import speaking
from tests.support.valkey import Valkey
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

    async def claim(self, limit: int = 100) -> set[str]:
        return {one.id for one in (await self.mailbox.claim(limit, self._hooks.clock.now)).claims}

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


# --- of one machine -------------------------------------------------------------------------------------------------


def claiming(hooks: Hooks, store: Valkey, limit: int) -> contextlib.AbstractAsyncContextManager[tuple[asyncio.subprocess.Process, str]]:
    """A process whose dispatcher holds so many deliveries, and its id."""
    return speaking(sys.executable, "-m", "tests.support.claimer", store.socket_url, str(hooks.clock.now), str(limit))


async def test_who_starts_takes_back_at_once_what_a_killed_process_held(redis: Redis, valkey: Valkey) -> None:
    hooks, _ = await filled(redis, 5, concurrency=5)
    async with claiming(hooks, valkey, 4) as (process, _):
        second = Dispatcher(hooks)
        assert await second.presence.beat() == 0
        hooks.clock.forward(1)
        assert len(await second.claim()) == 1
        process.kill()
        await process.wait()
    # Its last word still counts for those on other machines.
    assert len(await redis.keys(hooks.keys.alive("*"))) == 2
    third = Dispatcher(hooks)
    assert await third.presence.beat() == 4
    assert len(await third.claim()) == 4
    assert await third.presence.beat() == 0, "what the second holds is left to it"


async def test_what_a_killed_process_asked_for_last_may_come_late(redis: Redis, valkey: Valkey) -> None:
    hooks, _ = await filled(redis, 5, concurrency=5)
    async with claiming(hooks, valkey, 2) as (process, id):
        process.kill()
        await process.wait()
    second = Dispatcher(hooks)
    assert await second.presence.beat() == 2
    late = await Mailbox(redis, hooks.keys, dispatcher=id).claim(3, hooks.clock.now)
    assert len(late.claims) == 3
    assert await second.presence.beat() == 3
    await redis.delete(hooks.keys.alive(id))
    assert await second.presence.beat() == 0
    assert await redis.smembers(hooks.keys.dispatchers) == {second.presence.id}


async def test_a_process_that_stands_still_is_waited_for(redis: Redis, valkey: Valkey) -> None:
    hooks, _ = await filled(redis, 5, concurrency=5)
    async with claiming(hooks, valkey, 5) as (process, id):
        process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED)
        second = Dispatcher(hooks)
        await second.steady()
        assert await second.presence.beat() == 0, "it spoke within its time"
        # From then on it is as with another machine's: it may have been taken for dead.
        await redis.delete(hooks.keys.alive(id))
        third = Dispatcher(hooks)
        await third.steady()
        assert await third.presence.beat() == 5


async def test_a_store_that_was_away_makes_nobody_dead(tmp_path: Path) -> None:
    with Valkey(tmp_path, appendfsync="always") as valkey:
        redis = connect(valkey.socket_url)
        hooks, _ = await filled(redis, 5, concurrency=5)
        async with claiming(hooks, valkey, 5) as (process, id):
            valkey.kill()
            await asyncio.to_thread(valkey.start)
            await redis.delete(hooks.keys.alive(id))  # as after a longer time
            second = Dispatcher(hooks)
            await second.steady()
            assert await claim(hooks) == []
            process.kill()
            await process.wait()
            third = Dispatcher(hooks)
            assert await third.presence.beat() == 5
        await redis.aclose()
