"""The health of an endpoint: quiet when it is too busy, a breaker with a probe, and its end after days without a success."""

import asyncio
from dataclasses import replace

import orjson
import pytest
from redis.asyncio import Redis

from tests.support.hooks import T0, Hooks
from tests.support.mailboxes import claim, consistent, failed_once, filled, settle
from webhooks.backoff import Off, Receiver, Verdict
from webhooks.health import Breaker
from webhooks.mailbox import LEASE_MS, Claim, Mailbox, Settlement

DAY = 24 * 3_600_000
OPEN_MS = 5_000


async def fail(hooks: Hooks, one: Claim, *, receiver: Receiver = Receiver.FAILED, **more: object) -> None:
    """An attempt that began now fails now, to be tried again at once."""
    attempt = {"at": hooks.clock.now, "status": 500, "lease": one.lease}
    settlement = Settlement(
        claim=one,
        verdict=Verdict.RETRY,
        attempt=attempt,
        due=hooks.clock.now,
        receiver=receiver,
        **({"endpoint_version": 1} | more),  # type: ignore[arg-type]
    )
    assert await hooks.mailbox.settle([settlement], hooks.clock.now) == ["ok"]


async def breaker(hooks: Hooks, endpoint: str) -> Breaker:
    return (await hooks.webhooks.endpoints.get(endpoint)).health.breaker(hooks.clock.now)


async def opened(redis: Redis, deliveries: int = 12, **endpoint: object) -> tuple[Hooks, str]:
    """An endpoint of which ten attempts in a row have just failed."""
    hooks, made = await filled(redis, deliveries, **({"concurrency": 10} | endpoint))
    for one in await claim(hooks, 10):
        await fail(hooks, one)
    assert await breaker(hooks, made) is Breaker.OPEN
    return hooks, made


async def outbox(hooks: Hooks) -> list[tuple[str, dict[str, object]]]:
    return [(event["type"], event["data"]) for event in map(orjson.loads, await hooks.redis.lrange(hooks.keys.outbox, 0, -1))]


# --- the breaker ----------------------------------------------------------------------------------------------------


async def test_ten_failures_in_a_row_open_it_and_nine_do_not(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 12, concurrency=20)
    claims = await claim(hooks, 12)
    for one in claims[:9]:
        await fail(hooks, one)
    assert await breaker(hooks, endpoint) is Breaker.CLOSED
    await settle(hooks, claims[9])
    for one in (await claim(hooks))[:9]:
        await fail(hooks, one)
    assert await breaker(hooks, endpoint) is Breaker.CLOSED, "a success begins the count anew"
    await fail(hooks, claims[10])
    shown = (await hooks.webhooks.endpoints.get(endpoint)).document(hooks.clock.now)["health"]
    assert shown == {
        "state": "open",
        "failures": 10,
        "failingSince": "2026-01-01T00:00:00.000Z",
        "lastSuccessAt": "2026-01-01T00:00:00.000Z",
        "openUntil": "2026-01-01T00:00:05.000Z",
        "heldUntil": None,
    }
    assert await claim(hooks) == []
    await consistent(hooks)


async def test_failures_with_a_success_among_them_are_not_in_a_row_in_whatever_batch(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 30, concurrency=30)
    claims = await claim(hooks)
    outcomes = [
        Settlement(claim=one, verdict=Verdict.DELIVERED, attempt={"at": n})
        if n % 5 == 4
        else Settlement(claim=one, verdict=Verdict.RETRY, attempt={"at": n}, due=T0, receiver=Receiver.FAILED, endpoint_version=1)
        for n, one in enumerate(claims)
    ]
    assert await hooks.mailbox.settle(outcomes, hooks.clock.now) == ["ok"] * 30
    assert (await hooks.webhooks.endpoints.get(endpoint)).health.failures == 0, "the last one succeeded"
    await consistent(hooks)
    again = await claim(hooks)
    assert len(again) == 24
    outcomes = [
        Settlement(claim=one, verdict=Verdict.RETRY, attempt={"at": T0 + n}, due=T0, receiver=Receiver.FAILED, endpoint_version=1)
        for n, one in enumerate(again[1:11])
    ]
    await hooks.mailbox.settle([Settlement(claim=again[0], verdict=Verdict.DELIVERED, attempt={"at": T0}), *outcomes], hooks.clock.now)
    assert await breaker(hooks, endpoint) is Breaker.OPEN


async def test_one_that_answers_keeps_it_closed(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 30, concurrency=30)
    for one in await claim(hooks):
        await fail(hooks, one, receiver=Receiver.ANSWERED)
    assert await breaker(hooks, endpoint) is Breaker.CLOSED
    assert (await hooks.webhooks.endpoints.get(endpoint)).health.failing_since == T0, "an answer is no success"


async def test_what_waits_keeps_its_attempts_and_one_probe_at_a_time_finds_out(redis: Redis) -> None:
    hooks, endpoint = await opened(redis, 12)
    hooks.clock.forward(OPEN_MS - 1)
    assert await claim(hooks) == []
    hooks.clock.forward(1)
    assert await breaker(hooks, endpoint) is Breaker.HALF_OPEN
    (probe,) = await claim(hooks)
    assert (probe.retry, probe.attempts) == (False, 0), "a fresh one is asked first"
    hooks.clock.forward(5)
    assert await claim(hooks) == [], "one at a time"
    await settle(hooks, probe)
    assert await breaker(hooks, endpoint) is Breaker.CLOSED
    assert len(await claim(hooks)) == 10
    await consistent(hooks)


async def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_ten_minutes(redis: Redis) -> None:
    hooks, endpoint = await opened(redis, 12)
    lasted = []
    for _ in range(9):
        before = hooks.clock.now
        until = (await hooks.webhooks.endpoints.get(endpoint)).health.open_until
        assert until
        lasted.append((until - before) // 1000)
        hooks.clock.forward(until - before)
        (probe,) = await claim(hooks)
        await fail(hooks, probe)
    assert lasted == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    await consistent(hooks)


async def test_each_probe_is_a_fresh_one_as_long_as_there_is_one(redis: Redis) -> None:
    """A retry may fail for what it is: one in five, as else, would keep a receiver that is well again closed off."""
    hooks, endpoint = await opened(redis, 17)
    probed = []
    for _ in range(8):
        until = (await hooks.webhooks.endpoints.get(endpoint)).health.open_until
        assert until
        hooks.clock.forward(until - hooks.clock.now)
        (probe,) = await claim(hooks)
        probed.append(probe.retry)
        await fail(hooks, probe)
    assert probed == [False] * 7 + [True]


async def test_a_probe_that_is_answered_with_whatever_closes_it(redis: Redis) -> None:
    hooks, endpoint = await opened(redis, 12)
    hooks.clock.forward(OPEN_MS)
    (probe,) = await claim(hooks)
    await fail(hooks, probe, receiver=Receiver.ANSWERED)
    assert await breaker(hooks, endpoint) is Breaker.CLOSED
    assert len(await claim(hooks)) == 10
    await consistent(hooks)


async def test_attempts_that_were_under_way_when_it_opened_do_not_open_it_longer(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 20, concurrency=20, timeout="30s")
    claims = await claim(hooks)
    for one in claims[:15]:
        await fail(hooks, one)
    hooks.clock.forward(OPEN_MS)
    straggler = Settlement(
        claim=claims[15], verdict=Verdict.RETRY, attempt={"at": T0}, due=hooks.clock.now, receiver=Receiver.FAILED, endpoint_version=1
    )
    await hooks.mailbox.settle([straggler], hooks.clock.now)
    assert await breaker(hooks, endpoint) is Breaker.HALF_OPEN
    assert await claim(hooks) == [], "what is still under way takes the probe's place"
    for one in claims[16:]:
        await settle(hooks, one)
    assert await breaker(hooks, endpoint) is Breaker.CLOSED


async def test_a_success_closes_it_before_its_time(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 20, concurrency=11)
    *claims, last = await claim(hooks)
    for one in claims:
        await fail(hooks, one)
    assert await claim(hooks) == []
    await settle(hooks, last)
    assert await breaker(hooks, endpoint) is Breaker.CLOSED
    assert len(await claim(hooks)) == 11


async def test_events_that_come_meanwhile_wait(redis: Redis) -> None:
    hooks, endpoint = await opened(redis, 10)
    await hooks.event(n=99)
    await hooks.spread()
    assert await claim(hooks) == []
    assert await redis.zscore(hooks.keys.due, endpoint) == hooks.clock.now + OPEN_MS, "and cost no look in vain"
    hooks.clock.forward(OPEN_MS)
    assert [one.attempts for one in await claim(hooks)] == [0]


async def test_a_probe_whose_process_died_is_taken_back_and_another_follows(redis: Redis) -> None:
    hooks, _ = await opened(redis, 12)
    hooks.clock.forward(OPEN_MS)
    (lost,) = await claim(hooks)
    hooks.clock.forward(LEASE_MS)
    assert len(await claim(hooks)) == 1
    assert len(await hooks.webhooks.deliveries.attempts(lost.id)) == 1


async def test_a_change_of_the_endpoint_begins_anew(redis: Redis) -> None:
    hooks, endpoint = await opened(redis, 12)
    await hooks.webhooks.endpoints.patch(endpoint, {"url": "http://127.0.0.1:10/"})
    assert (await hooks.webhooks.endpoints.get(endpoint)).health.failing_since is None
    claims = await claim(hooks)
    assert len(claims) == 10
    for one in claims:
        await fail(hooks, one)
    assert await breaker(hooks, endpoint) is Breaker.CLOSED, "what was dialled was the endpoint as it had been"


# --- too busy -------------------------------------------------------------------------------------------------------


async def test_a_refusal_without_a_time_is_left_in_peace_for_longer_and_longer(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 1)
    held = []
    for _ in range(9):
        (one,) = await claim(hooks)
        await fail(hooks, one, refusal=True)
        until = (await hooks.webhooks.endpoints.get(endpoint)).health.held_until
        assert until
        held.append((until - hooks.clock.now) // 1000)
        hooks.clock.forward(until - 1 - hooks.clock.now)
        assert await claim(hooks) == []
        hooks.clock.forward(1)
    assert held == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_refusals_of_one_moment_count_as_one(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 5)
    for one in await claim(hooks):
        await fail(hooks, one, refusal=True)
    assert (await hooks.webhooks.endpoints.get(endpoint)).health.held_until == hooks.clock.now + 1000
    hooks.clock.forward(1000)
    first, again, *_ = await claim(hooks)
    await settle(hooks, first)
    await fail(hooks, again, refusal=True)
    assert (await hooks.webhooks.endpoints.get(endpoint)).health.held_until == hooks.clock.now + 1000, "a success begins anew"


# --- off for good ---------------------------------------------------------------------------------------------------


async def test_what_is_told_of_a_delivery_does_not_go_round(redis: Redis) -> None:
    """The deliveries of events about deliveries and endpoints cause no further ones, but for the one that ends it."""
    hooks, endpoint = await filled(redis, 2)
    first, second = (replace(one, type="delivery.exhausted") for one in await claim(hooks))
    await settle(hooks, first, Verdict.EXHAUSTED, about={"endpoint": endpoint})
    assert await outbox(hooks) == []
    await settle(hooks, second, Verdict.EXHAUSTED, off=Off.GONE, about={"endpoint": endpoint})
    assert await outbox(hooks) == [("endpoint.disabled", {"endpoint": endpoint, "reason": "gone", "failingSince": None})]


@pytest.mark.parametrize("verdict", [Verdict.DELIVERED, Verdict.RETRY])
async def test_the_receiver_may_ask_to_be_disabled(redis: Redis, verdict: Verdict) -> None:
    hooks, endpoint = await filled(redis, 2)
    one, _ = await claim(hooks)
    await settle(hooks, one, verdict, due=hooks.clock.now, off=Off.ASKED, about={"endpoint": endpoint})
    found = await hooks.webhooks.endpoints.get(endpoint)
    assert (found.status, found.reason) == ("disabled", "the receiver answered with webhook-delivery: disable")
    assert await outbox(hooks) == [("endpoint.disabled", {"endpoint": endpoint, "reason": "asked", "failingSince": None})]
    await consistent(hooks)


async def test_an_aborted_delivery_says_so(redis: Redis) -> None:
    hooks, _ = await filled(redis, 1)
    (one,) = await claim(hooks)
    await settle(hooks, one, Verdict.EXHAUSTED, reason="aborted-by-receiver", about={"delivery": one.id})
    found = await hooks.webhooks.deliveries.get(one.id)
    assert (found.status, found.reason) == ("exhausted", "aborted-by-receiver")
    await hooks.webhooks.replay.one(one.id)
    assert (await hooks.webhooks.deliveries.get(one.id)).reason is None
    await consistent(hooks)


async def failing_for_days(redis: Redis, disable_after: int) -> tuple[Hooks, str]:
    hooks, endpoint = await filled(redis, 3)
    hooks.mailbox = Mailbox(redis, hooks.keys, disable_after=disable_after)
    return hooks, endpoint


async def fail_one(hooks: Hooks, endpoint: str, type: str = "job.completed") -> None:
    (one,) = await claim(hooks, 1)
    # Not a failure of which ten would open the breaker.
    await fail(hooks, replace(one, type=type), receiver=Receiver.ANSWERED, about={"endpoint": endpoint})


async def test_days_without_a_success_are_warned_of_and_then_disable(redis: Redis) -> None:
    hooks, endpoint = await failing_for_days(redis, 4 * DAY)
    for ms in (0, 2 * DAY - 1):
        hooks.clock.forward(ms)
        await fail_one(hooks, endpoint)
        assert await outbox(hooks) == []
    hooks.clock.forward(1)
    await fail_one(hooks, endpoint)
    warning = ("endpoint.failing", {"endpoint": endpoint, "failingSince": T0, "disabledAt": T0 + 4 * DAY})
    assert await outbox(hooks) == [warning]
    hooks.clock.forward(2 * DAY - 1)
    await fail_one(hooks, endpoint)
    assert await outbox(hooks) == [warning], "once"
    assert (await hooks.webhooks.endpoints.get(endpoint)).status == "enabled"
    hooks.clock.forward(1)
    await fail_one(hooks, endpoint)
    found = await hooks.webhooks.endpoints.get(endpoint)
    assert (found.status, found.reason) == ("disabled", "no delivery succeeded for too long")
    assert await outbox(hooks) == [warning, ("endpoint.disabled", {"endpoint": endpoint, "reason": "failing", "failingSince": T0})]
    await hooks.webhooks.endpoints.enable(endpoint)
    assert (await hooks.webhooks.endpoints.get(endpoint)).health.failing_since is None
    await consistent(hooks)


async def test_a_success_ends_the_period(redis: Redis) -> None:
    hooks, endpoint = await failing_for_days(redis, 4 * DAY)
    await fail_one(hooks, endpoint)
    hooks.clock.forward(3 * DAY)
    await fail_one(hooks, endpoint)
    (one,) = await claim(hooks, 1)
    await settle(hooks, one)
    hooks.clock.forward(3 * DAY)
    await fail_one(hooks, endpoint)
    assert [type for type, _ in await outbox(hooks)] == ["endpoint.failing"]
    hooks.clock.forward(2 * DAY)
    await fail_one(hooks, endpoint)
    assert [type for type, _ in await outbox(hooks)] == ["endpoint.failing"] * 2
    assert (await hooks.webhooks.endpoints.get(endpoint)).status == "enabled"


async def test_nothing_is_disabled_unwarned(redis: Redis) -> None:
    """Not even after a silence longer than the time: the warning comes first, and half the time after it."""
    hooks, endpoint = await failing_for_days(redis, 4 * DAY)
    await fail_one(hooks, endpoint)
    hooks.clock.forward(30 * DAY)
    await fail_one(hooks, endpoint)
    assert [type for type, _ in await outbox(hooks)] == ["endpoint.failing"]
    hooks.clock.forward(2 * DAY - 1)
    await fail_one(hooks, endpoint)
    assert (await hooks.webhooks.endpoints.get(endpoint)).status == "enabled"


@pytest.mark.parametrize(("disable_after", "type"), [(0, "job.completed"), (DAY, "endpoint.failing")])
async def test_never_and_not_by_events_about_endpoints(redis: Redis, disable_after: int, type: str) -> None:
    hooks, endpoint = await failing_for_days(redis, disable_after)
    for _ in range(5):
        await fail_one(hooks, endpoint, type)
        hooks.clock.forward(DAY)
    assert (await hooks.webhooks.endpoints.get(endpoint)).status == "enabled"
    assert await outbox(hooks) == []


async def test_a_healthy_endpoint_costs_no_write_a_delivery(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 5)
    claims = await claim(hooks)
    await settle(hooks, claims[0])
    hooks.clock.forward(999)
    await settle(hooks, claims[1])
    assert (await hooks.webhooks.endpoints.get(endpoint)).health.last_success == T0
    hooks.clock.forward(1)
    await settle(hooks, claims[2])
    assert (await hooks.webhooks.endpoints.get(endpoint)).health.last_success == T0 + 1000


async def test_two_processes_that_settle_at_once_count_together(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 10, concurrency=10)
    other = Hooks(redis, hooks.clock)
    claims = await claim(hooks)
    await asyncio.gather(*(fail((hooks, other)[n % 2], one) for n, one in enumerate(claims)))
    assert (await hooks.webhooks.endpoints.get(endpoint)).health.failures == 10
    assert await breaker(hooks, endpoint) is Breaker.OPEN


async def test_a_backlog_of_retries_opens_nothing_by_itself(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 15, concurrency=15)
    await failed_once(hooks, hooks.clock.now)
    assert (await hooks.webhooks.endpoints.get(endpoint)).health.failures == 0, "those attempts said nothing about the receiver"


@pytest.mark.parametrize(("change", "rests"), [({"description": "the same receiver"}, True), ({"url": "http://127.0.0.1:10/"}, False)])
async def test_another_receiver_begins_anew_and_the_same_one_is_left_in_peace(redis: Redis, change: dict[str, object], rests: bool) -> None:
    hooks, endpoint = await filled(redis, 2, concurrency=1)
    (one,) = await claim(hooks)
    await settle(hooks, one, Verdict.RETRY, due=hooks.clock.now, hold_until=hooks.clock.now + 60_000)
    assert await claim(hooks) == []
    await hooks.webhooks.endpoints.patch(endpoint, change)
    assert (await claim(hooks) == []) is rests
    hooks.clock.forward(60_000)
    assert await claim(hooks) != []
