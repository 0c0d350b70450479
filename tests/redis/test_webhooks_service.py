"""Both loops at work: events in, verified requests out, whatever receivers, store and processes do."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline.store.connection import connect
from tests.support.events import check_told
from tests.support.hooks import Clock, Hooks
from tests.support.receiver import Answer, receiving
from tests.support.valkey import Valkey
from webhooks import Webhooks
from webhooks.dispatcher import Dispatcher
from webhooks.errors import NoMatchingSignature, NotFound
from webhooks.guard import Guard
from webhooks.health import Breaker, Health
from webhooks.mailbox import LEASE_MS, Batch
from webhooks.model import delivery_id
from webhooks.receiver import verify
from webhooks.sender import Sender
from webhooks.service import now_ms


class Real(Clock):
    """Runs, and can be moved forward besides."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead

    def forward(self, ms: int) -> None:
        self.ahead += ms


FAST = (0, 1, 1)


def hooks_of(redis: Redis, **options: object) -> Hooks:
    return Hooks(redis, Real(), **({"schedule": FAST} | options))  # type: ignore[arg-type]


async def settled(hooks: Hooks, expected: dict[str, str], seconds: float = 10.0) -> None:
    """Return when the deliveries have these statuses."""
    async with asyncio.timeout(seconds):
        while True:
            found = await hooks.statuses()
            if found == expected:
                return
            # The store tells nobody about a record; the next tick is as good a signal as any.
            await asyncio.sleep(0.005)


async def breaker_is(hooks: Hooks, endpoint: str, wanted: Breaker, seconds: float = 10.0) -> None:
    """Return when an endpoint's breaker is as wanted."""
    async with asyncio.timeout(seconds):
        while True:
            if (await hooks.webhooks.endpoints.get(endpoint)).health.breaker(hooks.clock()) is wanted:
                return
            await asyncio.sleep(0.005)


async def test_an_event_arrives_signed(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver:
        endpoint, secret = await hooks.webhooks.endpoints.create({"url": receiver.url, "types": ["job.*"], "headers": {"X-Own": "1"}})
        async with hooks.running():
            event = await hooks.event(runId="run_1")
            received = await receiver.next()
            await settled(hooks, {delivery_id(event, endpoint.id): "delivered"})
            health = await hooks.webhooks.health()
    assert verify(secret, received.headers, received.body, time.time())["data"] == {"n": 1, "runId": "run_1"}
    assert (received.id, received.headers["x-own"]) == (event, "1")
    assert health["lagMs"] == 0
    assert health["lastClaimAgeMs"] is not None


async def test_a_thin_body_is_what_is_signed_and_follows_the_endpoint(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver, hooks.running():
        endpoint, secret = await hooks.webhooks.endpoints.create({"url": receiver.url, "payload": "thin"})
        event = await hooks.event("invoice.paid", invoiceId="i-1", total=90)
        thin = await receiver.next()
        await settled(hooks, {delivery_id(event, endpoint.id): "delivered"})
        await hooks.webhooks.endpoints.patch(endpoint.id, {"payload": "full"})
        await hooks.webhooks.replay.one(delivery_id(event, endpoint.id))
        full = await receiver.next()
    assert verify(secret, thin.headers, thin.body, time.time())["data"] == {"n": 1, "invoiceId": "i-1"}
    assert verify(secret, full.headers, full.body, time.time())["data"] == {"n": 1, "invoiceId": "i-1", "total": 90}
    assert thin.id == full.id == event


async def test_while_a_secret_rotates_both_verify(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver, hooks.running():
        endpoint, first = await hooks.webhooks.endpoints.create({"url": receiver.url})
        await hooks.event(n=1)
        one = await receiver.next()
        _, second = await hooks.webhooks.endpoints.rotate_secret(endpoint.id)
        await hooks.event(n=2)
        two = await receiver.next()
    assert one.headers["webhook-signature"].count("v1,") == 1
    assert two.headers["webhook-signature"].count("v1,") == 2
    for secret in (first, second):
        verify(secret, two.headers, two.body, time.time())


async def test_who_has_only_the_public_key_can_verify(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver, hooks.running():
        endpoint, secret = await hooks.webhooks.endpoints.create({"url": receiver.url, "asymmetric": True})
        await hooks.event(n=1)
        one = await receiver.next()
        rotated, _ = await hooks.webhooks.endpoints.rotate_secret(endpoint.id)
        await hooks.event(n=2)
        two = await receiver.next()
    first, second = (one_of.document()["publicKey"] for one_of in (endpoint, rotated))
    for ours in (secret, first):
        verify(ours, one.headers, one.body)
    for ours in (secret, first, second):
        verify(ours, two.headers, two.body)
    with pytest.raises(NoMatchingSignature):
        verify(second, one.headers, one.body)


async def test_retried_with_the_same_id_until_it_succeeds(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver:
        endpoint = await hooks.endpoint(receiver.url)
        receiver.answer(Answer(status=500, body=b"oops"), Answer(status=302, headers={"location": "/"}), Answer(status=204))
        async with hooks.running():
            event = await hooks.event()
            await settled(hooks, {delivery_id(event, endpoint): "delivered"})
    assert [received.id for received in receiver.received] == [event] * 3
    attempts = await hooks.webhooks.deliveries.attempts(delivery_id(event, endpoint))
    assert [(attempt.number, attempt.status) for attempt in attempts] == [(1, 500), (2, 302), (3, 204)]
    assert attempts[0].response == "oops"


async def test_exhausted_is_told_to_others_and_not_again(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving(Answer(status=500)) as broken, receiving() as other:
        broken_id = await hooks.endpoint(broken.url)
        other_id = await hooks.endpoint(other.url, types=["delivery.*"])
        async with hooks.running():
            event = await hooks.event()
            told = await other.next()
            await settled(hooks, {delivery_id(event, broken_id): "exhausted", delivery_id(told.id, other_id): "delivered"})
    assert told.event["type"] == "delivery.exhausted"
    check_told("delivery.exhausted", told.event["data"])
    data = told.event["data"]
    assert (data["endpoint"], data["delivery"], data["eventId"], data["attempts"], data["status"]) == (
        broken_id,
        delivery_id(event, broken_id),
        event,
        3,
        500,
    )
    assert len(broken.received) == 3


async def test_exhausted_deliveries_of_delivery_events_cause_no_more(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving(Answer(status=500)) as receiver:
        endpoint = await hooks.endpoint(receiver.url)
        async with hooks.running():
            event = await hooks.event("delivery.exhausted", endpoint="another")
            await settled(hooks, {delivery_id(event, endpoint): "exhausted"})
    assert await redis.llen(hooks.keys.outbox) == 0
    assert len(await hooks.log.after("", limit=10)) == 1


async def test_410_disables_the_endpoint_and_tells(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving(Answer(status=410)) as gone, receiving() as other:
        gone_id = await hooks.endpoint(gone.url)
        await hooks.endpoint(other.url, types=["endpoint.disabled"])
        async with hooks.running():
            await hooks.event()
            told = await other.next()
    check_told("endpoint.disabled", told.event["data"])
    assert (told.event["data"]["endpoint"], told.event["data"]["reason"]) == (gone_id, "gone")
    assert (await hooks.webhooks.endpoints.get(gone_id)).status == "disabled"
    assert len(gone.received) == 1


async def test_one_that_is_disabled_by_such_an_event_is_told_of_too_and_nothing_goes_round(redis: Redis) -> None:
    hooks = hooks_of(redis, schedule=(0,))
    async with receiving(Answer(status=410)) as first, receiving(Answer(status=410)) as second, receiving() as other:
        ids = [await hooks.endpoint(first.url, types=["*"]), await hooks.endpoint(second.url, types=["delivery.*", "endpoint.*"])]
        await hooks.endpoint(other.url, types=["delivery.*", "endpoint.*"])
        async with hooks.running():
            await hooks.event()
            told = [(await other.next()).event for _ in range(3)]
    assert [one["data"]["endpoint"] for one in told if one["type"] == "endpoint.disabled"] == ids
    about = next(one["data"] for one in told if one["data"]["endpoint"] == ids[1])
    check_told("endpoint.disabled", about)
    assert about["eventType"] in ("delivery.exhausted", "endpoint.disabled")
    assert await redis.llen(hooks.keys.outbox) == 0
    logged = sorted(event.type for event in await hooks.log.after("", limit=10))
    assert logged == ["delivery.exhausted", "endpoint.disabled", "endpoint.disabled", "job.completed"], "the second's deliveries cause no more"


async def test_a_receiver_may_end_one_delivery_or_all(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver, receiving() as other:
        endpoint = await hooks.endpoint(receiver.url, types=["job.*"])
        await hooks.endpoint(other.url, types=["delivery.*", "endpoint.*"])
        receiver.answer(Answer(status=422, headers={"webhook-delivery": "abort"}), Answer(status=204, headers={"webhook-delivery": "disable"}))
        async with hooks.running():
            first = await hooks.event(n=1)
            assert (await other.next()).event["type"] == "delivery.exhausted"
            second = await hooks.event(n=2)
            told = await other.next()
    assert (told.event["type"], told.event["data"]["reason"], told.event["data"]["error"]) == ("endpoint.disabled", "asked", None)
    aborted = await hooks.webhooks.deliveries.get(delivery_id(first, endpoint))
    assert (aborted.status, aborted.reason, aborted.attempts) == ("exhausted", "aborted-by-receiver", 1)
    assert (await hooks.webhooks.deliveries.get(delivery_id(second, endpoint))).status == "delivered"
    assert (await hooks.webhooks.endpoints.get(endpoint)).status == "disabled"


async def test_a_breaker_spares_a_receiver_in_trouble_and_a_probe_finds_out(redis: Redis) -> None:
    hooks = hooks_of(redis, schedule=(0, *[1] * 29))
    async with receiving(Answer(status=500)) as receiver:
        endpoint = await hooks.endpoint(receiver.url, concurrency=1)
        async with hooks.running():
            events = [await hooks.event(n=n) for n in range(5)]
            for _ in range(10):
                await receiver.next()
            await breaker_is(hooks, endpoint, Breaker.OPEN)
            assert len(receiver.received) == 10, "the eleventh waits"
            receiver.default = Answer()
            hooks.clock.forward(30_000)
            await hooks.mailbox.wake()
            await settled(hooks, {delivery_id(event, endpoint): "delivered" for event in events})
    assert len(receiver.received) == 15


async def test_what_we_cannot_send_says_nothing_about_the_receiver(redis: Redis) -> None:
    endpoint = await hooks_of(redis).endpoint("http://127.0.0.1:9/", headers={"x": "y"})
    hooks = hooks_of(redis, encryption_keys=[b"x" * 32], schedule=(0, *[1] * 14))
    async with hooks.running():
        event = await hooks.event()
        await settled(hooks, {delivery_id(event, endpoint): "exhausted"})
    assert (await hooks.webhooks.endpoints.get(endpoint)).health == Health()


async def test_retry_after_is_obeyed_for_the_whole_endpoint(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver:
        endpoint = await hooks.endpoint(receiver.url, concurrency=1)
        receiver.answer(Answer(status=429, headers={"retry-after": "3600"}))
        async with hooks.running():
            first = await hooks.event(n=1)
            await receiver.next()
            await settled(hooks, {delivery_id(first, endpoint): "pending"})
            second = await hooks.event(n=2)
            await settled(hooks, {delivery_id(first, endpoint): "pending", delivery_id(second, endpoint): "pending"})
            assert len(receiver.received) == 1
            hooks.clock.forward(3_600_000)
            await hooks.mailbox.wake()
            await settled(hooks, {delivery_id(first, endpoint): "delivered", delivery_id(second, endpoint): "delivered"})
    assert len(receiver.received) == 3


async def test_a_hanging_endpoint_costs_its_own_slots_only(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as slow, receiving() as quick:
        slow.default = slow.hang
        await hooks.endpoint(slow.url, concurrency=3)
        await hooks.endpoint(quick.url, concurrency=3)
        async with hooks.running():
            for n in range(30):
                await hooks.event(n=n)
            for _ in range(30):
                await quick.next()
            assert slow.under_way == slow.most_at_once == 3
            assert quick.most_at_once <= 3
            slow.let_go.set()
            for _ in range(30):
                await slow.next()


async def test_an_endpoint_deleted_while_it_is_sent_to_costs_the_others_nothing(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as slow, receiving() as quick:
        slow.default = slow.hang
        deleted, other = await hooks.endpoint(slow.url), await hooks.endpoint(quick.url)
        async with hooks.running():
            event = await hooks.event(n=1)
            await slow.next()
            await quick.next()
            await hooks.webhooks.endpoints.delete(deleted)
            slow.let_go.set()
            await settled(hooks, {delivery_id(event, deleted): "delivered", delivery_id(event, other): "delivered"})
            # All processes read again what has changed.
            await hooks.webhooks.endpoints.patch(other, {"description": "changed"})
            await hooks.event(n=2)
            await quick.next()
        assert [one.id for one in (await hooks.webhooks.endpoints.list()).items] == [other]
        with pytest.raises(NotFound):
            await hooks.webhooks.endpoints.get(deleted)


async def test_no_process_keeps_the_keys_of_an_endpoint_that_is_gone(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver:
        kept, deleted = [await hooks.endpoint(receiver.url) for _ in range(2)]
        async with hooks.running():
            await hooks.event(n=1)
            for _ in range(2):
                await receiver.next()
            dispatcher = hooks.webhooks._dispatcher
            assert dispatcher
            assert dispatcher._requests._opened.keys() == {kept, deleted}
            await hooks.webhooks.endpoints.delete(deleted)
            await hooks.event(n=2)
            await receiver.next()
            assert dispatcher._requests._opened.keys() == {kept}


async def test_pausing_holds_and_enabling_goes_on(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver, hooks.running():
        endpoint = await hooks.endpoint(receiver.url)
        await hooks.webhooks.endpoints.pause(endpoint)
        event = await hooks.event()
        await settled(hooks, {delivery_id(event, endpoint): "pending"})
        assert receiver.received == []
        await hooks.webhooks.endpoints.enable(endpoint)
        await receiver.next()


async def test_replayed(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver, hooks.running():
        endpoint = await hooks.endpoint(receiver.url)
        event = await hooks.event()
        delivery = delivery_id(event, endpoint)
        await settled(hooks, {delivery: "delivered"})
        await hooks.webhooks.replay.one(delivery)
        await settled(hooks, {delivery: "delivered"})
        assert [received.id for received in receiver.received] == [event, event]


async def test_a_refused_address_is_an_attempt_with_a_reason(redis: Redis) -> None:
    allowing = hooks_of(redis)
    endpoint = await allowing.endpoint("http://127.0.0.1:9/")
    hooks = hooks_of(redis, allow_networks=[])
    async with hooks.running():
        event = await hooks.event()
        await settled(hooks, {delivery_id(event, endpoint): "exhausted"})
    (attempt, *_) = await hooks.webhooks.deliveries.attempts(delivery_id(event, endpoint))
    assert (attempt.status, attempt.error, attempt.address) == (None, "127.0.0.1 is refused (loopback)", None)


async def test_a_lost_encryption_key_is_told_and_loses_no_event(redis: Redis) -> None:
    before = hooks_of(redis)
    endpoint = await before.endpoint("http://127.0.0.1:9/", headers={"x": "y"})
    hooks = hooks_of(redis, encryption_keys=[b"x" * 32])
    async with hooks.running():
        event = await hooks.event()
        await settled(hooks, {delivery_id(event, endpoint): "exhausted"})
    (attempt, *_) = await hooks.webhooks.deliveries.attempts(delivery_id(event, endpoint))
    assert "a key that is not configured" in str(attempt.error)


# --- stopping and dying ---------------------------------------------------------------------------------------------


async def test_stopping_finishes_what_is_under_way(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver:
        receiver.default = receiver.hang
        endpoint = await hooks.endpoint(receiver.url)
        async with hooks.running() as stop:
            event = await hooks.event()
            await receiver.next()
            stop.set()
            receiver.let_go.set()
        assert await hooks.statuses() == {delivery_id(event, endpoint): "delivered"}


async def test_what_is_not_finished_in_time_is_handed_back(redis: Redis) -> None:
    hooks = hooks_of(redis, drain=50)
    async with receiving() as receiver:
        receiver.default = receiver.hang
        await hooks.endpoint(receiver.url)
        async with hooks.running():
            await hooks.event()
            await receiver.next()
        assert len((await hooks.mailbox.claim(10, hooks.clock())).claims) == 1, "no lease has to run out"


async def test_killed_between_claim_and_settle_it_is_sent_again_after_the_lease(redis: Redis) -> None:
    hooks, survivor = hooks_of(redis), hooks_of(redis, consumer="d")
    async with receiving() as receiver:
        receiver.answer(receiver.hang)
        endpoint = await hooks.endpoint(receiver.url)
        event = await hooks.event()
        await hooks.spread()
        async with Sender(Guard(["127.0.0.0/8"])) as sender:
            dispatcher = Dispatcher(hooks.mailbox, hooks.directory, hooks.webhooks.endpoints, sender, hooks.webhooks._outbox, FAST, hooks.clock)
            await dispatcher._claim(10)
            await receiver.next()
            for task in dispatcher._sending:
                # As by kill -9: nothing of it is settled.
                task.remove_done_callback(dispatcher._sent)
                task.cancel()
        async with survivor.running():
            survivor.clock.forward(LEASE_MS)
            await survivor.mailbox.wake()
            await receiver.next()
            await settled(survivor, {delivery_id(event, endpoint): "delivered"})
    attempts = await hooks.webhooks.deliveries.attempts(delivery_id(event, endpoint))
    assert [(attempt.number, attempt.status) for attempt in attempts] == [(1, None), (2, 200)]


async def test_the_store_goes_away_and_comes_back(tmp_path: Path) -> None:
    with Valkey(tmp_path, appendfsync="always") as valkey:
        redis = connect(valkey.socket_url)
        hooks = hooks_of(redis)
        async with receiving() as receiver:
            receiver.answer(receiver.hang)
            endpoint = await hooks.endpoint(receiver.url)
            async with hooks.running():
                first = await hooks.event(n=1)
                await receiver.next()
                valkey.kill()
                receiver.let_go.set()
                await asyncio.to_thread(valkey.start)
                second = await hooks.event(n=2)
                await settled(hooks, {delivery_id(first, endpoint): "delivered", delivery_id(second, endpoint): "delivered"}, seconds=30)
        assert [received.id for received in receiver.received].count(first) == 1, "its outcome was kept until the store was back"
        await redis.aclose()


async def test_two_processes_share_the_work(redis: Redis) -> None:
    first, second = hooks_of(redis), hooks_of(redis, consumer="d")
    async with receiving() as receiver:
        endpoint = await first.endpoint(receiver.url, concurrency=20)
        async with first.running(), second.running():
            events = {await first.event(n=n) for n in range(100)}
            await settled(first, {delivery_id(event, endpoint): "delivered" for event in events})
    assert sorted(received.id for received in receiver.received) == sorted(events)


async def test_a_full_process_waits_for_room(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as receiver:
        receiver.default = receiver.hang
        endpoint = await hooks.endpoint(receiver.url, concurrency=100)
        events = [await hooks.event(n=n) for n in range(9)]
        await hooks.spread()
        async with Sender(Guard(["127.0.0.0/8"])) as sender:
            dispatcher = Dispatcher(
                hooks.mailbox, hooks.directory, hooks.webhooks.endpoints, sender, hooks.webhooks._outbox, FAST, hooks.clock, capacity=4
            )
            stop = asyncio.Event()
            running = asyncio.create_task(dispatcher.run(stop, drain=5))
            for _ in range(4):
                await receiver.next()
            assert receiver.most_at_once == 4
            receiver.let_go.set()
            await settled(hooks, {delivery_id(event, endpoint): "delivered" for event in events})
            stop.set()
            await running
    assert receiver.most_at_once == 4


async def test_what_can_be_under_way_is_claimed_in_halves(redis: Redis) -> None:
    """So that one half is sent while the other is recorded; the rate of a single busy endpoint depends on it."""
    hooks = hooks_of(redis)
    asked: list[int] = []
    claim = hooks.webhooks._mailbox.claim

    async def asking(limit: int, now: int, **more: Any) -> Batch:
        asked.append(limit)
        return await claim(limit, now, **more)

    hooks.webhooks._mailbox.claim = asking  # type: ignore[method-assign]
    async with receiving() as receiver:
        receiver.default = receiver.hang
        endpoint = await hooks.endpoint(receiver.url, concurrency=40)
        events = [await hooks.event(n=n) for n in range(100)]
        async with hooks.running():
            for _ in range(40):
                await receiver.next()
            receiver.let_go.set()
            await settled(hooks, {delivery_id(event, endpoint): "delivered" for event in events})
    assert receiver.most_at_once == 40
    assert max(asked) == 20


async def test_an_api_only_process_runs_no_loop(redis: Redis) -> None:
    webhooks = Webhooks(redis=redis, prefix="t:webhooks", encryption_keys=[b"k" * 32])
    assert await webhooks.health() == {"lagMs": 0, "lastClaimAgeMs": None}
    with pytest.raises(Exception, match="needs the event log"):
        await webhooks.run_fanout(asyncio.Event())
    assert webhooks.matches(["job.*"], "job.completed")
