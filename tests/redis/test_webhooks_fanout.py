"""The fan-out: one delivery for each event and endpoint that wants it, however often an entry is read."""

import asyncio
import contextlib

import pytest
from redis.asyncio import Redis

from tests.support.hooks import Hooks
from webhooks import fanout
from webhooks.model import delivery_id


async def again(hooks: Hooks) -> None:
    """Let the group read everything again, as after a crash before any acknowledgement was saved."""
    await hooks.redis.xgroup_setid("t:log", "webhooks", "0")


async def test_who_wants_it_gets_it_once(redis: Redis) -> None:
    hooks = Hooks(redis)
    jobs, everything, progress = await hooks.endpoint(types=["job.*"]), await hooks.endpoint(), await hooks.endpoint(types=["job.progress"])
    completed, moved = await hooks.event("job.completed", runId="run_1"), await hooks.event("job.progress")
    await hooks.event("workflow.completed")
    assert await hooks.spread() == 4
    one = await hooks.webhooks.deliveries.get(delivery_id(completed, jobs))
    assert (one.event, one.endpoint, one.type, one.run, one.status, one.due) == (
        completed,
        jobs,
        "job.completed",
        "run_1",
        "pending",
        hooks.clock.now,
    )
    assert (
        await hooks.webhooks.deliveries.body(completed)
        == b'{"type":"job.completed","timestamp":"2026-01-01T00:00:00.000Z","data":{"n":1,"runId":"run_1"}}'
    )
    assert set(await redis.zrange(hooks.keys.mailbox(progress), 0, -1)) == {moved + delivery_id(moved, progress)}
    assert await redis.zcard(hooks.keys.mailbox(everything)) == 2
    assert (await redis.xpending("t:log", "webhooks"))["pending"] == 0
    await again(hooks)
    assert await hooks.spread() == 0


async def test_read_twice_after_it_was_delivered_there_is_no_second(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.endpoint()
    await hooks.event()
    await hooks.spread()
    (claim,) = (await hooks.mailbox.claim(10, hooks.clock.now)).claims
    await redis.hset(hooks.keys.delivery(claim.id), "status", "delivered")
    await again(hooks)
    assert await hooks.spread() == 0
    assert (await hooks.mailbox.claim(10, hooks.clock.now)).claims == []


async def test_what_nobody_wants_is_acknowledged_and_stored_nowhere(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.endpoint(types=["other"])
    for n in range(300):
        await hooks.event(n=n)
    assert await hooks.spread() == 0
    assert await redis.keys(hooks.keys.body("*")) == []


@pytest.mark.parametrize("type", ["delivery.exhausted", "endpoint.disabled"])
async def test_events_about_an_endpoint_do_not_go_to_it(redis: Redis, type: str) -> None:
    hooks = Hooks(redis)
    concerned, other = await hooks.endpoint(), await hooks.endpoint()
    await hooks.event(type, endpoint=concerned)
    await hooks.event("job.completed", endpoint=concerned)
    await hooks.spread()
    assert await redis.zcard(hooks.keys.mailbox(concerned)) == 1
    assert await redis.zcard(hooks.keys.mailbox(other)) == 2


async def test_paused_fills_and_disabled_skips(redis: Redis) -> None:
    hooks = Hooks(redis)
    paused, disabled = await hooks.endpoint(), await hooks.endpoint()
    await hooks.webhooks.endpoints.pause(paused)
    await redis.hset(hooks.keys.endpoint(disabled), "status", "disabled")
    event = await hooks.event()
    assert await hooks.spread() == 2
    assert (await hooks.webhooks.deliveries.get(delivery_id(event, paused))).status == "pending"
    skipped = await hooks.webhooks.deliveries.get(delivery_id(event, disabled))
    assert (skipped.status, skipped.reason) == ("skipped", "endpoint-disabled")
    assert (await hooks.mailbox.claim(10, hooks.clock.now)).claims == []
    await hooks.webhooks.endpoints.enable(paused)
    assert [claim.endpoint for claim in (await hooks.mailbox.claim(10, hooks.clock.now)).claims] == [paused]


async def test_what_a_filter_is_not_true_of_is_recorded_as_skipped_with_the_reason(redis: Redis) -> None:
    hooks = Hooks(redis)
    low, wrong = await hooks.endpoint(filter="event.data.score < 50"), await hooks.endpoint(filter="event.data.name < 50")
    paused, disabled = await hooks.endpoint(filter="event.data.score < 50"), await hooks.endpoint(filter="event.data.score < 50")
    await hooks.webhooks.endpoints.pause(paused)
    await redis.hset(hooks.keys.endpoint(disabled), "status", "disabled")
    passing, other = await hooks.event(n=1, score=42, name="x"), await hooks.event(n=2, score=86)
    assert await hooks.spread() == 8

    async def found(event: str, endpoint: str) -> tuple[str, str | None]:
        delivery = await hooks.webhooks.deliveries.get(delivery_id(event, endpoint))
        return delivery.status, delivery.reason

    assert [await found(passing, endpoint) for endpoint in (low, paused, disabled)] == [
        ("pending", None),
        ("pending", None),
        ("skipped", "endpoint-disabled"),
    ]
    assert {await found(other, endpoint) for endpoint in (low, wrong, paused, disabled)} == {("skipped", "filtered")}
    status, reason = await found(passing, wrong)
    assert (status, reason and reason[:43]) == ("skipped", "filter failed: an operator or a function do")
    assert {claim.id for claim in (await hooks.mailbox.claim(10, hooks.clock.now)).claims} == {delivery_id(passing, low)}
    await again(hooks)
    assert await hooks.spread() == 0
    assert {int(await redis.get(hooks.keys.refs(event)) or 0) for event in (passing, other)} == {4}


async def test_what_was_skipped_can_be_replayed_and_is_not_asked_again(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(filter="event.data.score < 50")
    event = await hooks.event(score=86)
    await hooks.spread()
    await hooks.webhooks.replay.one(delivery_id(event, endpoint))
    (claim,) = (await hooks.mailbox.claim(10, hooks.clock.now)).claims
    assert (claim.id, b'"score":86' in claim.body) == (delivery_id(event, endpoint), True)


async def test_a_changed_filter_decides_from_the_next_event_on(redis: Redis) -> None:
    hooks, elsewhere = Hooks(redis), Hooks(redis, consumer="d")
    endpoint = await hooks.endpoint(filter="event.data.n == 1")
    first = await hooks.event(n=1)
    await hooks.spread()
    await elsewhere.webhooks.endpoints.patch(endpoint, {"filter": "event.data.n == 3"})
    second, third = await hooks.event(n=2), await hooks.event(n=3)
    await hooks.spread()
    assert await hooks.statuses() == {
        delivery_id(first, endpoint): "pending", delivery_id(second, endpoint): "skipped", delivery_id(third, endpoint): "pending",
    }  # fmt: skip


async def test_the_filters_of_many_endpoints_let_others_go_between(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = Hooks(redis)
    monkeypatch.setattr(fanout, "PER_SCRIPT", 5)
    for n in range(23):
        await hooks.endpoint(filter=f"event.data.n >= 0 && {n} % 2 == 0")
    asked: list[int] = []
    script = hooks.fanout._script

    async def counting(keys: list[str], arguments: list[object]) -> object:
        asked.append(sum(key.startswith("event.data") for key in seen))
        return await script(keys, arguments)  # type: ignore[arg-type]

    seen: list[str] = []
    compiled = hooks.fanout._filters._compiled
    hooks.fanout._filters._compiled = lambda text: seen.append(text) or compiled(text)  # type: ignore[assignment, func-returns-value]
    hooks.fanout._script = counting  # type: ignore[assignment]
    await hooks.event()
    await hooks.spread()
    # After the one that found the endpoints changed: no script waits for more than one batch of filters, and one that had begun.
    assert asked[1:] == [6, 11, 16, 21, 23]
    assert sorted((await hooks.statuses()).values()) == ["pending"] * 12 + ["skipped"] * 11


async def test_an_endpoint_made_just_before_the_event_gets_it(redis: Redis) -> None:
    hooks, elsewhere = Hooks(redis), Hooks(redis, consumer="d")
    await hooks.event(n=1)
    await hooks.spread()
    made = await elsewhere.endpoint()
    event = await hooks.event(n=2)
    assert await hooks.spread() == 1
    assert (await hooks.statuses()) == {delivery_id(event, made): "pending"}


async def test_own_schedules_begin_with_their_own_delay(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.endpoint(schedule=["10s", "20s"])
    await hooks.event()
    await hooks.spread()
    (delivery,) = (await hooks.webhooks.deliveries.list()).items
    assert delivery.due
    assert hooks.clock.now + 10_000 <= delivery.due <= hooks.clock.now + 12_000
    assert (await hooks.mailbox.claim(10, hooks.clock.now)).next_due == delivery.due


async def test_many_endpoints_go_in_several_scripts_and_a_crash_between_them_loses_nothing(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = Hooks(redis)
    monkeypatch.setattr(fanout, "PER_SCRIPT", 7)
    endpoints = [await hooks.endpoint() for _ in range(20)]
    events = [await hooks.event(n=n) for n in range(3)]
    await hooks.group.create()
    script, calls = hooks.fanout._script, 0

    async def dies(keys: list[str], arguments: list[object]) -> object:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise asyncio.CancelledError
        return await script(keys, arguments)  # type: ignore[arg-type]

    hooks.fanout._script = dies  # type: ignore[assignment]
    with contextlib.suppress(asyncio.CancelledError):
        await hooks.spread()
    assert calls == 6
    assert 0 < len(await hooks.statuses()) < 60
    assert (await redis.xpending("t:log", "webhooks"))["pending"] == 2, "the first event was complete"
    survivor = Hooks(redis, consumer="d")
    monkeypatch.setattr(survivor.group, "CLAIM_AFTER_MS", 0)
    await survivor.spread()
    assert set(await hooks.statuses()) == {delivery_id(event, endpoint) for event in events for endpoint in endpoints}
    assert {int(await redis.get(hooks.keys.refs(event)) or 0) for event in events} == {20}


async def test_a_repeated_script_creates_nothing_more(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.endpoint()
    event = await hooks.event()
    script = hooks.fanout._script

    async def twice(keys: list[str], arguments: list[object]) -> object:
        await script(keys, arguments)  # type: ignore[arg-type]
        return await script(keys, arguments)  # type: ignore[arg-type]

    hooks.fanout._script = twice  # type: ignore[assignment]
    await hooks.spread()
    assert len(await hooks.statuses()) == 1
    assert await redis.get(hooks.keys.refs(event)) == "1"


async def test_an_endpoint_deleted_meanwhile_gets_nothing(redis: Redis) -> None:
    hooks = Hooks(redis)
    kept, deleted = await hooks.endpoint(), await hooks.endpoint()
    await hooks.directory.refresh()
    await redis.delete(hooks.keys.endpoint(deleted))
    event = await hooks.event()
    assert await hooks.spread() == 1
    assert set(await hooks.statuses()) == {delivery_id(event, kept)}


async def test_without_endpoints_the_log_is_stepped_over_in_one_go_and_the_first_gets_what_comes_then(redis: Redis) -> None:
    hooks, other = Hooks(redis), Hooks(redis, consumer="other")
    await hooks.group.create()
    held = await hooks.event(n=0)
    assert len(await other.group.read(count=1, block_ms=1)) == 1
    for n in range(1, 1 + 2 * fanout.READ):
        await hooks.event(n=n)
    assert await hooks.fanout.step() == 0
    (group,) = await redis.xinfo_groups("t:log")
    assert (group["lag"], group["pending"]) == (0, 1), "what another has read stays its own"
    first = await hooks.endpoint()
    wanted = await hooks.event(n="wanted")
    assert (await redis.xinfo_groups("t:log"))[0]["lag"] == 1, "the store still knows how far behind the group is"
    assert await hooks.fanout.step() == 1
    assert (await hooks.webhooks.deliveries.get(delivery_id(wanted, first))).status == "pending"
    (group,) = await redis.xinfo_groups("t:log")
    assert (group["lag"], group["pending"]) == (0, 1)
    await redis.xgroup_setid("t:log", "webhooks", "0")
    assert await hooks.fanout.step() == fanout.READ, f"all of them are read again, {held} among them"


async def test_an_endpoint_that_came_meanwhile_keeps_the_log_from_being_stepped_over(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.group.create()
    first = [await hooks.event(n=n) for n in range(3)]
    planned = hooks.fanout._plan(await hooks.group.read(count=1, block_ms=1))
    endpoint = await Hooks(redis).endpoint()
    assert await hooks.fanout._commit(next(planned)) == fanout.CHANGED
    await again(hooks)
    await hooks.directory.refresh()
    assert await hooks.fanout.step() == 3
    assert set(await hooks.statuses()) == {delivery_id(event, endpoint) for event in first}


async def test_a_log_that_is_gone_holds_up_nobody(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.group.create()
    await hooks.event()
    (part,) = hooks.fanout._plan(await hooks.group.read(count=1, block_ms=1))
    await redis.delete("t:log")
    assert await hooks.fanout._commit(part) == 0
