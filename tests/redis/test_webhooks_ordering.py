"""Order by key: of the deliveries of one key one is attempted at a time, in the order of the log, whatever fails, dies or is sent again."""

import asyncio
import contextlib
from collections import defaultdict

import pytest
from aiohttp import web
from redis.asyncio import Redis

from tests.redis.test_webhooks_service import hooks_of, settled
from tests.support.hooks import Hooks
from tests.support.mailboxes import claim, consistent, settle
from tests.support.receiver import Answer, Receiver, receiving
from webhooks import fanout
from webhooks.backoff import Verdict
from webhooks.mailbox import LEASE_MS, Claim
from webhooks.model import delivery_id

KEY = "data.documentId"


async def ordered(redis: Redis, *keys: str | None, **endpoint: object) -> tuple[Hooks, str]:
    """An endpoint that keeps the order of documents, and one event for each of these."""
    hooks = Hooks(redis)
    made = await hooks.endpoint(**({"ordering": KEY, "concurrency": 50} | endpoint))
    for n, key in enumerate(keys):
        await hooks.event(n=n, **({"documentId": key} if key else {}))
    await hooks.spread()
    return hooks, made


def numbers(claims: list[Claim]) -> list[int]:
    return sorted(int(one.body.split(b'"n":')[1].split(b"}")[0].split(b",")[0]) for one in claims)


async def test_one_of_a_key_at_a_time_and_the_others_beside_it(redis: Redis) -> None:
    hooks, _ = await ordered(redis, "a", "a", "b", None, "a", "b", None)
    first = await claim(hooks)
    assert numbers(first) == [0, 2, 3, 6]
    await consistent(hooks)
    (a,) = [one for one in first if numbers([one]) == [0]]
    await settle(hooks, a)
    assert numbers(await claim(hooks)) == [1]
    await consistent(hooks)
    for one in first[1:]:
        await settle(hooks, one)
    await consistent(hooks)


async def test_a_retry_holds_up_its_own_key_only_and_an_exhausted_one_nobody(redis: Redis) -> None:
    hooks, _ = await ordered(redis, "a", "a", "b", "b")
    a, b = sorted(await claim(hooks), key=lambda one: numbers([one]))
    await settle(hooks, a, Verdict.RETRY, due=hooks.clock.now + 1000)
    await settle(hooks, b)
    assert numbers(await claim(hooks)) == [3]
    hooks.clock.forward(1000)
    (again,) = await claim(hooks)
    assert again.id == a.id
    await settle(hooks, again, Verdict.EXHAUSTED)
    assert (await hooks.webhooks.deliveries.get(a.id)).status == "exhausted", "recorded"
    assert numbers(await claim(hooks)) == [1], "and the rest goes on"
    await consistent(hooks)


async def test_the_first_delay_counts_from_the_event(redis: Redis) -> None:
    hooks, _ = await ordered(redis, "a", "a", schedule=["10s"])
    hooks.clock.forward(12_000)
    (first,) = await claim(hooks)
    await settle(hooks, first)
    assert numbers(await claim(hooks)) == [1], "its own delay is over, too"


async def test_what_was_lost_is_sent_again_before_the_next(redis: Redis) -> None:
    hooks, _ = await ordered(redis, "a", "a")
    (lost,) = await claim(hooks)
    hooks.clock.forward(LEASE_MS)
    (again,) = await claim(hooks)
    assert again.id == lost.id
    assert await settle(hooks, lost) == "stale"
    assert numbers(await claim(hooks)) == [1], "a stale success counts"
    await settle(hooks, again)
    assert await claim(hooks) == []
    await consistent(hooks)


async def test_handing_back_keeps_the_turn(redis: Redis) -> None:
    hooks, _ = await ordered(redis, "a", "a")
    (one,) = await claim(hooks)
    await settle(hooks, one, None)  # type: ignore[arg-type]
    assert numbers(await claim(hooks)) == [0]
    await consistent(hooks)


async def test_a_repeated_settle_lets_one_go_on_and_not_two(redis: Redis) -> None:
    hooks, _ = await ordered(redis, "a", "a", "a")
    (one,) = await claim(hooks)
    assert [await settle(hooks, one), await settle(hooks, one)] == ["ok", "repeated"]
    assert numbers(await claim(hooks)) == [1]
    await consistent(hooks)


async def test_a_replay_stands_at_its_old_place(redis: Redis) -> None:
    hooks, endpoint = await ordered(redis, *["a"] * 5)
    first = []
    for _ in range(2):
        (one,) = await claim(hooks)
        await settle(hooks, one)
        first.append(one)
    (under_way,) = await claim(hooks)
    for one in reversed(first):
        await hooks.webhooks.replay.one(one.id)
    assert await claim(hooks) == [], "not beside the one that has its turn"
    await consistent(hooks)
    order = []
    await settle(hooks, under_way)
    while taken := await claim(hooks):
        order += numbers(taken)
        await settle(hooks, taken[0])
    assert order == [0, 1, 3, 4]
    await hooks.webhooks.replay.one(delivery_id(first[0].event, endpoint))
    assert numbers(await claim(hooks)) == [0], "at once where nobody waits"
    await consistent(hooks)


async def test_paused_nothing_is_lost_and_deleted_all_end_as_skipped(redis: Redis) -> None:
    hooks, endpoint = await ordered(redis, *["a"] * 4)
    (one,) = await claim(hooks)
    await hooks.webhooks.endpoints.pause(endpoint)
    await settle(hooks, one)
    assert await claim(hooks) == []
    await consistent(hooks)
    await hooks.webhooks.endpoints.enable(endpoint)
    (one,) = await claim(hooks)
    await hooks.webhooks.endpoints.delete(endpoint)
    await hooks.webhooks.endpoints.bury()
    await settle(hooks, one, Verdict.RETRY, due=hooks.clock.now)
    await hooks.webhooks.endpoints.bury()
    assert sorted((await hooks.statuses()).values()) == ["delivered", "skipped", "skipped", "skipped"]
    assert await redis.keys(hooks.keys.line("*", "*")) == []
    assert await redis.smembers(hooks.keys.orphans) == set()


async def test_keys_of_any_kind(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.endpoint(ordering="data.key", concurrency=50)
    keys: list[object] = [1, "1", 1, {"a": 1, "b": 2}, {"b": 2, "a": 1}, [1], "x" * 1000, None, None, True]
    for n, key in enumerate(keys):
        await hooks.event(n=n, key=key)
    await hooks.spread()
    assert numbers(await claim(hooks)) == [0, 1, 3, 5, 6, 7, 8, 9]


# --- several that fan out -------------------------------------------------------------------------------------------


async def two_readers(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> tuple[Hooks, Hooks, str, str]:
    """The first has read earlier entries and not done them, and then come later ones, which the second will read."""
    first, second = Hooks(redis), Hooks(redis, consumer="d")
    second.clock = first.clock
    in_order = await first.endpoint(ordering=KEY, concurrency=50)
    any_order = await first.endpoint(concurrency=50)
    await first.group.create()
    for n in range(3):
        await first.event(n=n, documentId="a")
    assert len(await first.group.read(count=100, block_ms=1)) == 3
    for n in range(3, 6):
        await first.event(n=n, documentId="a")
    monkeypatch.setattr(fanout, "WAIT_SECONDS", 0)
    return first, second, in_order, any_order


async def test_later_entries_wait_for_earlier_ones_in_others_hands(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, in_order, any_order = await two_readers(redis, monkeypatch)
    assert await second.fanout.step() == 3, "what stands in no line does not wait"
    assert await redis.zcard(second.keys.mailbox(any_order)) == 3
    assert await redis.zcard(second.keys.mailbox(in_order)) == 0
    for n in range(6, 300):
        await first.event(n=n, documentId="a")
    for _ in range(5):
        assert await second.fanout.step() == 0
    assert (await redis.xpending("t:log", "webhooks"))["pending"] == 6, "nor is more and more read meanwhile"
    # The first goes on with what it has.
    events = await first.log.after("", limit=3)
    first.fanout._kept = list(events)
    assert await first.fanout.step() == 6
    assert await second.fanout.step() == 3
    await second.spread()
    order: list[int] = []
    while taken := [one for one in await claim(second) if one.endpoint == in_order]:
        order += numbers(taken)
        await settle(second, taken[0])
    assert order == list(range(300))
    await consistent(second)


async def test_what_a_dead_one_left_is_taken_back_and_done_first(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    _, second, in_order, any_order = await two_readers(redis, monkeypatch)
    assert await second.fanout.step() == 3
    assert await second.fanout.step() == 0
    monkeypatch.setattr(second.group, "CLAIM_AFTER_MS", 0)
    second.group._claimed_at = float("-inf")
    assert await second.fanout.step() == 9
    assert (await redis.xpending("t:log", "webhooks"))["pending"] == 0
    order: list[int] = []
    while taken := [one for one in await claim(second) if one.endpoint == in_order]:
        order += numbers(taken)
        await settle(second, taken[0])
    assert order == list(range(6))
    assert set(await second.statuses()) >= {delivery_id(event.id, any_order) for event in await second.log.after("", limit=10)}
    await consistent(second)


async def test_two_that_fan_out_all_the_time_keep_the_order(redis: Redis) -> None:
    hooks = [Hooks(redis, consumer=consumer) for consumer in "abc"]
    endpoint = await hooks[0].endpoint(ordering=KEY, concurrency=50)
    await hooks[0].group.create()

    async def publish() -> None:
        for n in range(400):
            await hooks[0].event(n=n, documentId=str(n % 7))

    async def spread(one: Hooks) -> None:
        while sum([await redis.zcard(key) async for key in redis.scan_iter(one.keys.line("*", "*"))]) < 400:
            await one.fanout.step(block_ms=5)

    async with asyncio.timeout(30):
        await asyncio.gather(publish(), *map(spread, hooks))
    order = defaultdict(list)
    while taken := await claim(hooks[0]):
        for one in taken:
            n = numbers([one])[0]
            order[n % 7].append(n)
            await settle(hooks[0], one)
    assert dict(order) == {key: list(range(key, 400, 7)) for key in range(7)}
    assert endpoint
    await consistent(hooks[0])


async def test_a_store_that_goes_away_at_a_commit_leaves_the_entries_in_hand(redis: Redis) -> None:
    hooks, _ = await ordered(redis)
    for n in range(3):
        await hooks.event(n=n, documentId="a")
    script = hooks.fanout._script

    async def fails(keys: list[str], arguments: list[object]) -> object:
        raise ConnectionError("away")

    hooks.fanout._script = fails  # type: ignore[assignment]
    with contextlib.suppress(ConnectionError):
        while True:
            await hooks.fanout.step()
    hooks.fanout._script = script
    assert await hooks.fanout.step() == 3, "nobody had to take them back first"


async def test_an_emptied_store_ends_the_waiting(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    _, second, _, _ = await two_readers(redis, monkeypatch)
    await second.fanout.step()
    assert await second.fanout.step() == 0
    await redis.flushall()
    second.group._claimed_at = float("-inf")
    assert await second.fanout.step() == 0
    endpoint = await second.endpoint(ordering=KEY)
    event = await second.event(n=1, documentId="a")
    await second.spread()
    assert await second.statuses() == {delivery_id(event, endpoint): "pending"}


# --- at work --------------------------------------------------------------------------------------------------------


def inverted(receiver: Receiver) -> list[tuple[str, int, int]]:
    """Where the receiver saw one of a key for the first time although it had seen a later one; or an earlier one that it did not know yet."""
    highest: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    wrong = []
    for received in receiver.received:
        data = received.event["data"]
        key, n = data["documentId"], data["n"]
        if (key, n) not in seen:
            if n < highest.get(key, -1):
                wrong.append((key, n, highest[key]))
            seen.add((key, n))
        highest[key] = max(highest.get(key, -1), n)
    return wrong


async def test_the_receiver_sees_each_key_in_order_whatever_fails(redis: Redis) -> None:
    processes = [hooks_of(redis, schedule=(0, *[1] * 29)), hooks_of(redis, consumer="d", schedule=(0, *[1] * 29))]
    first = processes[0]
    async with receiving() as receiver:
        count = 0

        async def moody(request: web.Request) -> web.StreamResponse:
            nonlocal count
            count += 1
            # Every third attempt fails, the others take more or less long.
            await asyncio.sleep((count * 7 % 5) / 1000)
            return web.Response(status=400 if count % 3 == 0 else 200)

        receiver.default = moody
        endpoint = await first.endpoint(receiver.url, ordering=KEY, concurrency=20)
        async with processes[0].running(), processes[1].running():
            events = [await first.event(n=n, documentId=f"doc-{n % 5}") for n in range(150)]
            await settled(first, {delivery_id(event, endpoint): "delivered" for event in events}, seconds=60)
    assert len(receiver.received) > 150
    assert inverted(receiver) == []
    await consistent(first)


async def test_the_order_outlives_killed_dispatchers(redis: Redis) -> None:
    """Of those that are killed nothing is settled; what they had under way is sent again when its lease is over."""
    first = hooks_of(redis)
    async with receiving() as receiver:
        endpoint = await first.endpoint(receiver.url, ordering=KEY, concurrency=20)
        events = [await first.event(n=n, documentId=f"doc-{n % 3}") for n in range(30)]
        await first.spread()
        for _ in range(4):
            doomed = hooks_of(redis, drain=0)
            doomed.clock.ahead = first.clock.ahead  # type: ignore[attr-defined]
            receiver.answer(*[Answer()] * 4, *[receiver.hang] * 3)
            before = len(receiver.received)
            running = asyncio.create_task(doomed.webhooks.run_dispatcher(asyncio.Event()))
            while len(receiver.received) < before + 7:
                await receiver.next()
            # As by kill -9: neither drained nor handed back.
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            first.clock.forward(LEASE_MS)
        async with first.running():
            await settled(first, {delivery_id(event, endpoint): "delivered" for event in events}, seconds=30)
        receiver.let_go.set()
    assert inverted(receiver) == []
    await consistent(first)
