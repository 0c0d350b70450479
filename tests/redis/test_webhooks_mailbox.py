"""Mailboxes: what may be claimed when, leases, and outcomes recorded exactly once."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.support.hooks import Hooks
from tests.support.mailboxes import ATTEMPT, claim, consistent, failed_once, filled, settle
from webhooks.backoff import Off, Verdict
from webhooks.endpoints import ORPHANS
from webhooks.mailbox import LEASE_MS, Batch, Claim, Settlement, lease_for, released
from webhooks.outbox import Outbox
from webhooks.settler import Settler


async def test_a_claim_has_what_a_request_needs(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 1)
    (one,) = await claim(hooks)
    assert (one.endpoint, one.type, one.run, one.attempts, one.tried) == (endpoint, "job.completed", None, 0, 0)
    assert one.body == b'{"type":"job.completed","timestamp":"2026-01-01T00:00:00.000Z","data":{"n":0}}'
    assert await claim(hooks) == []
    await consistent(hooks)


async def test_concurrency_bounds_what_one_endpoint_has_under_way(redis: Redis) -> None:
    hooks, _ = await filled(redis, 8, concurrency=3)
    first = await claim(hooks)
    assert len(first) == 3
    full = await hooks.mailbox.claim(100, hooks.clock.now)
    assert full.claims == []
    assert full.next_due == hooks.clock.now + LEASE_MS, "a full one comes back when its first lease runs out"
    await settle(hooks, first[0])
    assert len(await claim(hooks)) == 1
    assert len(await claim(hooks)) == 0


async def test_a_full_endpoint_costs_others_nothing(redis: Redis) -> None:
    hooks = Hooks(redis)
    hanging, healthy = await hooks.endpoint(concurrency=2), await hooks.endpoint(concurrency=2)
    for n in range(4):
        await hooks.event(n=n)
    await hooks.spread()
    claims = await claim(hooks)
    assert Counter(one.endpoint for one in claims) == {hanging: 2, healthy: 2}
    for one in claims:
        if one.endpoint == healthy:
            await settle(hooks, one)
    assert [one.endpoint for one in await claim(hooks)] == [healthy, healthy]


async def test_a_claim_from_many_mailboxes_reads_few_events(redis: Redis) -> None:
    hooks = Hooks(redis)
    for _ in range(10):
        await hooks.endpoint()
    for n in range(100):
        await hooks.event(n=n)
    await hooks.spread()
    claims = await claim(hooks)
    assert (len(claims), len({one.endpoint for one in claims}), len({one.event for one in claims})) == (100, 10, 10)


async def test_endpoints_take_turns(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoints = {await hooks.endpoint() for _ in range(3)}
    for n in range(6):
        await hooks.event(n=n)
    await hooks.spread()
    turns = []
    for _ in range(6):
        (one,) = await claim(hooks, 1)
        turns.append(one.endpoint)
        hooks.clock.forward(1)
    assert set(turns[:3]) == set(turns[3:]) == endpoints


async def test_the_limit_is_kept(redis: Redis) -> None:
    hooks, _ = await filled(redis, 5)
    assert len(await claim(hooks, 2)) == 2
    assert await redis.llen(hooks.keys.wake) == 1, "another dispatcher may have room for the rest"
    hooks.clock.forward(1)
    assert len(await claim(hooks)) == 3


async def test_a_repeated_claim_returns_the_same(redis: Redis) -> None:
    hooks, _ = await filled(redis, 5)
    script = hooks.mailbox._claim
    answers = []

    async def twice(keys: list[str], arguments: list[object]) -> object:
        answers.extend([await script(keys, arguments), await script(keys, arguments)])  # type: ignore[arg-type]
        return answers[-1]

    hooks.mailbox._claim = twice  # type: ignore[assignment]
    assert len(await claim(hooks, 2)) == 2
    (first,), (again,) = (answer[2] for answer in answers)
    assert first[:3] == again[:3]
    # The repeated one reads the records.
    assert sorted(first[3:]) == [row[:2] for row in again[3:]]
    assert await redis.zcard(hooks.keys.mailbox((await hooks.webhooks.endpoints.list()).items[0].id)) == 3


async def test_a_claim_of_what_was_never_attempted_reads_no_record(redis: Redis) -> None:
    hooks, _ = await filled(redis, 10)
    ones = await claim(hooks)
    # Handed back, they still are such.
    await hooks.mailbox.settle([released(one) for one in ones], hooks.clock.now)
    hooks.clock.forward(1)
    await consistent(hooks)
    await redis.config_resetstat()
    again = await claim(hooks)
    assert [replace(one, lease="") for one in again] == [replace(one, lease="") for one in ones]
    assert len(again) == 10
    assert (await redis.info("commandstats"))["cmdstat_hmget"]["calls"] == 1, "the endpoint's"
    await settle(hooks, again[0], Verdict.RETRY, due=hooks.clock.now)
    hooks.clock.forward(1)
    assert [(one.id, one.attempts) for one in await claim(hooks)] == [(again[0].id, 1)]


async def test_two_claims_within_a_millisecond_have_different_leases(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 2)
    for token in ("0" * 16, "0000000001" + "0" * 6):
        await hooks.mailbox._claim([hooks.keys.prefix], [hooks.clock.now, 1, 1, token, ""])
        await redis.zadd(hooks.keys.due, {endpoint: hooks.clock.now})
    ends = [score for _, score in await redis.zrange(hooks.keys.leases(endpoint), 0, -1, withscores=True)]
    assert ends == [hooks.clock.now + LEASE_MS - 1, pytest.approx(hooks.clock.now + LEASE_MS - 0.999, rel=0, abs=1e-4)]
    assert ends[0] != ends[1]


@pytest.mark.parametrize(("token", "shorter"), [("000000ffff", 1), ("fff0000000", 1024)])
async def test_a_lease_is_shorter_than_the_endpoints_by_up_to_a_second_and_never_longer(redis: Redis, token: str, shorter: int) -> None:
    """Who looks when the endpoint's is over finds all that ran out: burying a deleted endpoint asks for them by that time, too."""
    hooks, endpoint = await filled(redis, 1)
    await hooks.mailbox._claim([hooks.keys.prefix], [hooks.clock.now, 1, 1, token + "0" * 6, ""])
    ((_, end),) = await redis.zrange(hooks.keys.leases(endpoint), 0, -1, withscores=True)
    assert 0 <= end - (hooks.clock.now + LEASE_MS - shorter) < 1


async def test_delivered(redis: Redis) -> None:
    hooks, _ = await filled(redis, 1)
    (one,) = await claim(hooks)
    assert await settle(hooks, one) == "ok"
    found = await hooks.webhooks.deliveries.get(one.id)
    assert (found.status, found.attempts, found.code, found.finished, found.due) == ("delivered", 1, 200, hooks.clock.now, None)
    (attempt,) = await hooks.webhooks.deliveries.attempts(one.id)
    assert (attempt.number, attempt.status, attempt.address) == (1, 200, "127.0.0.1")
    assert (await hooks.mailbox.claim(10, hooks.clock.now + 10**9)) == Batch(claims=[], version=1, next_due=None)
    await consistent(hooks)


async def test_retried_when_due_and_not_before(redis: Redis) -> None:
    hooks, _ = await filled(redis, 1)
    (one,) = await claim(hooks)
    due = hooks.clock.now + 1000
    await settle(hooks, one, Verdict.RETRY, due=due)
    assert (await hooks.webhooks.deliveries.get(one.id)).due == due
    hooks.clock.forward(999)
    early = await hooks.mailbox.claim(10, hooks.clock.now)
    assert (early.claims, early.next_due) == ([], due)
    hooks.clock.forward(1)
    (second,) = await claim(hooks)
    assert (second.attempts, second.tried, second.lease != one.lease) == (1, 1, True)
    await consistent(hooks)


async def test_exhausted_and_its_event(redis: Redis) -> None:
    hooks, _ = await filled(redis, 1)
    (one,) = await claim(hooks)
    assert await settle(hooks, one, Verdict.EXHAUSTED, about={"delivery": one.id}) == "ok"
    assert await settle(hooks, one, Verdict.EXHAUSTED, about={"delivery": one.id}) == "repeated"
    assert (await hooks.webhooks.deliveries.get(one.id)).status == "exhausted"
    assert await redis.llen(hooks.keys.outbox) == 1
    assert await hooks.webhooks._outbox.flush() == 1
    assert await redis.llen(hooks.keys.outbox) == 0
    assert [event.type for event in await hooks.log.after("", limit=10)] == ["job.completed", "delivery.exhausted"]
    await consistent(hooks)


async def test_two_processes_at_the_outbox_lose_nothing(redis: Redis) -> None:
    hooks = Hooks(redis)
    publish, published = hooks.publish, []

    async def publish_beside_another(type: str, data: dict[str, Any], *, identity: list[object]) -> None:
        published.append(type)
        if type == "delivery.first":
            # The other process has published the same by now, and then this came.
            await redis.delete(hooks.keys.outbox)
            await redis.rpush(hooks.keys.outbox, '{"type":"delivery.second","data":{},"identity":[2]}')
        await publish(type, data, identity=identity)

    outbox = Outbox(redis, hooks.keys, publish_beside_another)  # type: ignore[arg-type]
    await redis.rpush(hooks.keys.outbox, '{"type":"delivery.first","data":{},"identity":[1]}')
    assert await outbox.flush() == 2
    assert published == ["delivery.first", "delivery.second"]


async def test_a_repeated_settle_records_once(redis: Redis) -> None:
    hooks, _ = await filled(redis, 2)
    first, second = await claim(hooks)
    batch = [
        Settlement(claim=first, verdict=Verdict.DELIVERED, attempt=ATTEMPT),
        Settlement(claim=second, verdict=Verdict.RETRY, attempt=ATTEMPT, due=hooks.clock.now + 5),
    ]
    assert await hooks.mailbox.settle(batch, hooks.clock.now) == ["ok", "ok"]
    assert await hooks.mailbox.settle(batch, hooks.clock.now) == ["repeated", "repeated"]
    for one in (first, second):
        assert len(await hooks.webhooks.deliveries.attempts(one.id)) == 1
    await consistent(hooks)


async def test_a_lease_that_ran_out_is_reclaimed_and_does_not_count(redis: Redis) -> None:
    hooks, _ = await filled(redis, 1)
    (lost,) = await claim(hooks)
    hooks.clock.forward(LEASE_MS - 1)
    waiting = await hooks.mailbox.claim(10, hooks.clock.now)
    assert (waiting.claims, waiting.next_due) == ([], hooks.clock.now + 1)
    hooks.clock.forward(1)
    (again,) = await claim(hooks)
    assert (again.id, again.attempts, again.tried) == (lost.id, 1, 0)
    (attempt,) = await hooks.webhooks.deliveries.attempts(lost.id)
    assert (attempt.number, attempt.status, attempt.duration) == (1, None, None)
    assert "process died" in str(attempt.error)
    await consistent(hooks)


async def test_a_stale_failure_changes_nothing_but_is_recorded(redis: Redis) -> None:
    hooks, _ = await filled(redis, 1)
    (stale,) = await claim(hooks)
    hooks.clock.forward(LEASE_MS)
    (current,) = await claim(hooks)
    assert await settle(hooks, stale, Verdict.EXHAUSTED, about={"delivery": stale.id}) == "stale"
    assert (await hooks.webhooks.deliveries.get(stale.id)).status == "pending"
    assert await redis.llen(hooks.keys.outbox) == 0
    assert len(await hooks.webhooks.deliveries.attempts(stale.id)) == 2
    await consistent(hooks)
    assert await settle(hooks, current) == "ok"
    assert (await hooks.webhooks.deliveries.get(stale.id)).status == "delivered"
    await consistent(hooks)


async def test_a_stale_success_counts(redis: Redis) -> None:
    hooks, _ = await filled(redis, 1)
    (stale,) = await claim(hooks)
    hooks.clock.forward(LEASE_MS)
    (current,) = await claim(hooks)
    assert await settle(hooks, stale) == "stale"
    assert (await hooks.webhooks.deliveries.get(stale.id)).status == "delivered"
    await consistent(hooks)
    assert await settle(hooks, current, Verdict.RETRY, due=hooks.clock.now) == "stale"
    assert (await hooks.webhooks.deliveries.get(stale.id)).status == "delivered"
    assert await claim(hooks) == []
    await consistent(hooks)


async def test_a_stale_success_takes_a_reclaimed_one_out_of_the_mailbox(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 1)
    (stale,) = await claim(hooks)
    hooks.clock.forward(LEASE_MS)
    await hooks.webhooks.endpoints.pause(endpoint)
    await hooks.webhooks.endpoints.enable(endpoint)
    (current,) = await claim(hooks)
    await hooks.mailbox.settle([released(current)], hooks.clock.now)
    assert await settle(hooks, stale) == "stale"
    assert await claim(hooks) == []
    await consistent(hooks)


async def test_handed_back_is_due_at_once_and_no_attempt(redis: Redis) -> None:
    hooks, _ = await filled(redis, 1)
    (one,) = await claim(hooks)
    assert await hooks.mailbox.settle([released(one)], hooks.clock.now) == ["ok"]
    assert await hooks.mailbox.settle([released(one)], hooks.clock.now) == ["stale"]
    (again,) = await claim(hooks)
    assert (again.id, again.attempts) == (one.id, 0)


async def test_retry_after_holds_the_whole_endpoint(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 3, concurrency=1)
    (one,) = await claim(hooks)
    until = hooks.clock.now + 60_000
    await settle(hooks, one, Verdict.RETRY, due=until, hold_until=until)
    assert await claim(hooks) == []
    assert await redis.zscore(hooks.keys.due, endpoint) == until
    hooks.clock.forward(59_999)
    assert await claim(hooks) == []
    hooks.clock.forward(1)
    assert len(await claim(hooks)) == 1


async def test_a_held_endpoint_takes_back_lost_leases_and_is_not_claimed(redis: Redis) -> None:
    hooks, _ = await filled(redis, 2)
    lost, one = await claim(hooks)
    until = hooks.clock.now + 10 * LEASE_MS
    await settle(hooks, one, Verdict.RETRY, due=until, hold_until=until)
    hooks.clock.forward(LEASE_MS)
    assert await claim(hooks) == []
    assert len(await hooks.webhooks.deliveries.attempts(lost.id)) == 1
    hooks.clock.forward(9 * LEASE_MS)
    assert len(await claim(hooks)) == 2


async def test_a_shorter_hold_does_not_shorten_a_longer_one(redis: Redis) -> None:
    hooks, _ = await filled(redis, 3)
    first, second, _ = await claim(hooks)
    for one, seconds in ((first, 60), (second, 5)):
        until = hooks.clock.now + seconds * 1000
        await settle(hooks, one, Verdict.RETRY, due=until, hold_until=until)
    hooks.clock.forward(10_000)
    assert await claim(hooks) == []


async def test_410_disables_and_tells(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 2)
    one, _ = await claim(hooks)
    await settle(hooks, one, Verdict.RETRY, due=hooks.clock.now, off=Off.GONE, about={"endpoint": endpoint})
    found = await hooks.webhooks.endpoints.get(endpoint)
    assert (found.status, found.reason) == ("disabled", "the receiver answered 410 Gone")
    assert await claim(hooks) == []
    assert await redis.llen(hooks.keys.outbox) == 1
    await hooks.event(n=9)
    await hooks.spread()
    assert Counter((await hooks.statuses()).values()) == {"pending": 2, "skipped": 1}
    await hooks.webhooks.endpoints.enable(endpoint)
    assert [again.id for again in await claim(hooks)] == [one.id], "what was pending goes on"
    await consistent(hooks)


async def test_410_of_an_endpoint_that_was_changed_meanwhile_says_nothing_about_it(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 1)
    (one,) = await claim(hooks)
    await hooks.webhooks.endpoints.patch(endpoint, {"url": "http://127.0.0.1:10/"})
    await settle(hooks, one, Verdict.RETRY, due=hooks.clock.now, off=Off.GONE, about={"endpoint": endpoint})
    assert (await hooks.webhooks.endpoints.get(endpoint)).status == "enabled"


async def test_a_paused_endpoint_is_not_claimed_and_loses_nothing(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 2, concurrency=1)
    (under_way,) = await claim(hooks)
    await hooks.webhooks.endpoints.pause(endpoint)
    assert (await hooks.mailbox.claim(10, hooks.clock.now + 10**8)).claims == []
    await settle(hooks, under_way)
    assert await claim(hooks) == []
    assert await redis.zcard(hooks.keys.due) == 0
    await hooks.webhooks.endpoints.enable(endpoint)
    assert len(await claim(hooks)) == 1


async def test_deleting_an_endpoint_ends_its_deliveries_as_skipped(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 5, concurrency=2)
    failing, succeeding = await claim(hooks)
    await hooks.webhooks.endpoints.delete(endpoint)
    assert Counter((await hooks.statuses()).values()) == {"skipped": 3, "pending": 2}
    assert await settle(hooks, failing, Verdict.RETRY, due=hooks.clock.now) == "ok"
    assert await settle(hooks, succeeding) == "ok"
    assert Counter((await hooks.statuses()).values()) == {"skipped": 4, "delivered": 1}
    assert not await redis.exists(hooks.keys.endpoint(endpoint)), "a late success makes no new endpoint of it"
    assert (await hooks.webhooks.deliveries.get(failing.id)).reason == "endpoint-deleted"
    await hooks.webhooks.endpoints.bury()
    assert await redis.smembers(hooks.keys.orphans) == set()
    assert await redis.zcard(hooks.keys.due) == 0
    await consistent(hooks)


async def test_nobody_who_deletes_an_endpoint_waits_for_a_million_deliveries(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, ORPHANS + 2)
    await hooks.webhooks.endpoints.delete(endpoint)
    assert await redis.zcard(hooks.keys.deliveries("status", "skipped")) == ORPHANS
    assert await claim(hooks) == []
    await hooks.webhooks.endpoints.bury()
    assert await redis.zcard(hooks.keys.deliveries("status", "skipped")) == ORPHANS + 2
    assert await redis.smembers(hooks.keys.orphans) == set()
    await consistent(hooks)


async def test_a_lost_lease_of_a_deleted_endpoint_is_buried(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 1)
    await claim(hooks)
    await hooks.webhooks.endpoints.delete(endpoint)
    hooks.clock.forward(LEASE_MS)
    await hooks.webhooks.endpoints.bury()
    assert list((await hooks.statuses()).values()) == ["skipped"]
    assert await redis.smembers(hooks.keys.orphans) == set()
    await consistent(hooks)


async def test_delivering_goes_on_in_a_full_store(redis: Redis) -> None:
    hooks, _ = await filled(redis, 6, concurrency=3)
    await failed_once(hooks, hooks.clock.now)
    await redis.config_set("maxmemory", "1mb")
    try:
        # Fresh ones and retries compete, and a retry is lost.
        lost, *claims = await claim(hooks)
        for one in claims:
            assert await settle(hooks, one) == "ok"
        hooks.clock.forward(LEASE_MS)
        assert lost.id in {one.id for one in await claim(hooks)}
    finally:
        await redis.config_set("maxmemory", "0")
    assert {(await hooks.webhooks.deliveries.get(one.id)).status for one in claims} == {"delivered"}
    await consistent(hooks)


async def test_two_dispatchers_never_claim_the_same(redis: Redis) -> None:
    hooks, _ = await filled(redis, 60, concurrency=50)
    other = Hooks(redis, hooks.clock)
    taken = await asyncio.gather(*(one.mailbox.claim(7, hooks.clock.now + n) for n in range(8) for one in (hooks, other)))
    taken.append(await hooks.mailbox.claim(100, hooks.clock.now + 100))
    ids = [one.id for batch in taken for one in batch.claims]
    assert len(ids) == len(set(ids)) == 50


@pytest.mark.parametrize(("timeout", "lease"), [(1_000, 30_000), (15_000, 30_000), (30_000, 45_000)])
async def test_a_lease_outlasts_the_attempt(redis: Redis, timeout: int, lease: int) -> None:
    assert lease_for(timeout) == lease
    hooks, _ = await filled(redis, 1, timeout=f"{timeout}ms")
    await claim(hooks)
    assert (await hooks.mailbox.claim(1, hooks.clock.now)).next_due == hooks.clock.now + lease


async def test_waiting_ends_when_something_becomes_due(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.endpoint()
    await redis.delete(hooks.keys.wake)
    waiting = asyncio.create_task(hooks.mailbox.wait(30))
    await hooks.event()
    await hooks.spread()
    async with asyncio.timeout(5):
        await waiting


async def test_how_long_the_longest_waits(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 3, concurrency=1)
    hooks.clock.forward(700)
    assert await hooks.mailbox.longest_waiting(hooks.clock.now) == 700
    await claim(hooks)
    hooks.clock.forward(700)
    assert await hooks.mailbox.longest_waiting(hooks.clock.now) == 0, "a full endpoint does not wait for us"
    await hooks.webhooks.endpoints.pause(endpoint)
    assert await hooks.mailbox.longest_waiting(hooks.clock.now + 10**9) == 0


# --- fresh ones and retries -----------------------------------------------------------------------------------------


async def test_within_an_endpoint_one_of_five_is_a_retry(redis: Redis) -> None:
    hooks, _ = await filled(redis, 20, concurrency=20)
    await failed_once(hooks, hooks.clock.now)
    for n in range(20, 40):
        await hooks.event(n=n)
    await hooks.spread()
    assert Counter(one.retry for one in await claim(hooks, 10)) == {False: 8, True: 2}
    hooks.clock.forward(1)
    # The ratio holds over claims of one as well.
    ones = []
    for _ in range(10):
        ones += await claim(hooks, 1)
        hooks.clock.forward(1)
    assert Counter(one.retry for one in ones) == {False: 8, True: 2}
    await consistent(hooks)


async def test_retries_have_a_room_of_their_own_and_no_more(redis: Redis) -> None:
    hooks = Hooks(redis)
    failing = [await hooks.endpoint(types=["a"], concurrency=10) for _ in range(5)]
    healthy = await hooks.endpoint(types=["b"], concurrency=10)
    for n in range(10):
        await hooks.event("a", n=n)
    await hooks.spread()
    await failed_once(hooks, hooks.clock.now)
    taken = await hooks.mailbox.claim(100, hooks.clock.now, retries=20)
    assert Counter(one.retry for one in taken.claims) == {True: 20}
    assert {one.endpoint for one in taken.claims} <= set(failing)
    hooks.clock.forward(1)
    full = await hooks.mailbox.claim(100, hooks.clock.now, retries=0)
    assert full.claims == []
    assert full.next_due == hooks.clock.now - 1 + LEASE_MS, "waiting for what there is no room for would be a busy loop"
    for n in range(20, 30):
        await hooks.event("b", n=n)
    await hooks.spread()
    taken = await hooks.mailbox.claim(100, hooks.clock.now, retries=0)
    assert Counter((one.endpoint, one.retry) for one in taken.claims) == {(healthy, False): 10}


async def test_among_endpoints_a_fifth_of_a_claim_is_kept_for_retries(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.endpoint(types=["a"], concurrency=100)
    for n in range(50):
        await hooks.event("a", n=n)
    await hooks.spread()
    await failed_once(hooks, hooks.clock.now)
    for _ in range(10):
        await hooks.endpoint(types=["b"], concurrency=100)
    for n in range(50, 100):
        await hooks.event("b", n=n)
    await hooks.spread()
    assert Counter(one.retry for one in await claim(hooks, 50)) == {False: 40, True: 10}


async def test_what_was_handed_back_or_lost_is_a_retry_again_if_it_was_one(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 2)
    await failed_once(hooks, hooks.clock.now)
    one, _ = await claim(hooks)
    await hooks.mailbox.settle([released(one)], hooks.clock.now)
    hooks.clock.forward(LEASE_MS)
    # The first look finds what was lost.
    assert [again.retry for again in await claim(hooks)] == [True, True]
    assert await redis.zcard(hooks.keys.mailbox(endpoint)) == 0
    await consistent(hooks)


async def test_what_an_earlier_version_left_is_delivered(redis: Redis) -> None:
    """Its records, its mailboxes, its events, and its leases, which its index of endpoints had the end of."""
    hooks, endpoint = await filled(redis, 3)
    for one in (await hooks.webhooks.deliveries.list()).items:
        await redis.zrem(hooks.keys.mailbox(endpoint), one.event + one.id)
        await redis.zadd(hooks.keys.mailbox(endpoint), {one.id: hooks.clock.now})
    (lost,) = await claim(hooks, 1)
    events = {one.event for one in (await hooks.webhooks.deliveries.list()).items}
    for event in events:
        await redis.hset(hooks.keys.event(event), mapping={"body": str(await redis.get(hooks.keys.body(event))), "n": 1})
        await redis.delete(hooks.keys.body(event), hooks.keys.refs(event))
    await redis.delete(hooks.keys.expiring)
    await redis.zadd(hooks.keys.leases(endpoint), {lost.id: hooks.clock.now + LEASE_MS})
    await redis.hset(hooks.keys.delivery(lost.id), mapping={"lease": "0123456789abcdef"})
    await redis.zadd(hooks.keys.due, {endpoint: hooks.clock.now})
    waiting = await claim(hooks)
    assert len(waiting) == 2
    assert all(one.body.startswith(b'{"type":"job.completed"') for one in waiting)
    for one in waiting:
        await settle(hooks, one)
    hooks.clock.forward(LEASE_MS)
    (again,) = await claim(hooks)
    assert again.id == lost.id
    await settle(hooks, again)
    hooks.clock.forward(31 * 24 * 3_600_000)
    assert await hooks.webhooks.deliveries.sweep() == 3
    assert await redis.keys(hooks.keys.event("*")) == []


async def test_a_claim_is_shared_among_endpoints_and_used_to_the_full(redis: Redis) -> None:
    hooks = Hooks(redis)
    greedy = [await hooks.endpoint(types=["a"], concurrency=1000) for _ in range(2)]
    modest = [await hooks.endpoint(types=["b"]) for _ in range(2)]
    for n in range(100):
        await hooks.event("a", n=n)
    for n in range(100, 105):
        await hooks.event("b", n=n)
    await hooks.spread()
    shares = Counter(one.endpoint for one in await claim(hooks, 100))
    assert [shares[endpoint] for endpoint in modest] == [5, 5]
    assert sum(shares.values()) == 100
    assert min(shares[endpoint] for endpoint in greedy) >= 25
    await consistent(hooks)


async def test_a_wait_ends_on_time_and_at_once_when_there_is_something(redis: Redis) -> None:
    hooks = Hooks(redis)
    late = []
    for n in range(15):
        began = time.perf_counter()
        await hooks.mailbox.wait(0.04 + n * 0.003)
        late.append(time.perf_counter() - began - 0.04 - n * 0.003)
    assert median(late) < 0.025, "the store's own time-outs are late by 50 ms in the middle"
    waiting = asyncio.create_task(hooks.mailbox.wait(30))
    await hooks.mailbox.wake()
    await asyncio.wait_for(waiting, 5)


async def test_a_marker_that_came_too_late_for_one_wait_ends_the_next(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.mailbox.wait(0.001)
    await hooks.mailbox.wake()
    await asyncio.wait_for(hooks.mailbox.wait(30), 5)
    await hooks.mailbox.wait(0.001)
    await hooks.mailbox.rest()
    await hooks.mailbox.wake()
    assert await redis.llen(hooks.keys.wake) == 1, "who rests leaves it to others"


async def test_who_settles_and_claims_again_needs_no_marker(redis: Redis) -> None:
    hooks, _ = await filled(redis, 3, concurrency=1)
    await redis.delete(hooks.keys.wake)
    hooks.mailbox.claiming = True
    (one,) = await claim(hooks)
    await settle(hooks, one)
    await asyncio.wait_for(hooks.mailbox.wait(30), 5)
    hooks.clock.forward(1)
    (one,) = await claim(hooks)
    waiting = asyncio.create_task(hooks.mailbox.wait(30))
    await settle(hooks, one)
    await asyncio.wait_for(waiting, 5)
    await hooks.mailbox.rest()
    assert await redis.llen(hooks.keys.wake) == 0
    hooks.clock.forward(1)
    (one,) = await claim(hooks)
    hooks.mailbox.claiming = False
    await hooks.mailbox.settle([released(one)], hooks.clock.now)
    assert await redis.llen(hooks.keys.wake) == 1, "who stops leaves the rest to others"


async def test_an_outcome_that_cannot_be_recorded_keeps_no_other_from_it(redis: Redis) -> None:
    hooks, _ = await filled(redis, 3)
    claims = await claim(hooks)
    told: asyncio.Queue[Sequence[Claim]] = asyncio.Queue()
    settler = Settler(hooks.mailbox, Outbox(redis, hooks.keys, None), hooks.clock, told.put)
    for one, at in zip(claims, (1, object(), 3), strict=True):
        settler.put(Settlement(claim=one, verdict=Verdict.DELIVERED, attempt={"at": at}))
    running = asyncio.create_task(settler.run())
    assert await asyncio.wait_for(told.get(), 10) == claims, "none of them is under way any more"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    found = [(await hooks.webhooks.deliveries.get(one.id)).status for one in claims]
    assert found == ["delivered", "pending", "delivered"]
    hooks.clock.forward(LEASE_MS)
    assert [one.id for one in await claim(hooks)] == [claims[1].id]
