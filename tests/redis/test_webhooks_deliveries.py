"""Deliveries as they are looked at, sent again, and removed in the end."""

import pytest
from redis.asyncio import Redis

from tests.support.hooks import T0, Hooks
from webhooks import Conflict, InvalidInput, NotFound, listing
from webhooks.backoff import Verdict
from webhooks.mailbox import Settlement
from webhooks.model import delivery_id

PHASES = {"dns": None, "connect": None, "tls": None, "firstByte": 1.5, "total": 2.0}
ATTEMPT = {
    "at": T0, "duration": 2, "status": 503, "error": "answered 503", "response": "no", "address": "127.0.0.1", "phases": PHASES, "reused": True,
}  # fmt: skip
DAY = 86_400_000


async def end(hooks: Hooks, verdict: Verdict, *deliveries: str) -> None:
    """Let what is due end with a verdict: all of it, or the named ones."""
    claims = (await hooks.mailbox.claim(1000, hooks.clock.now)).claims
    wanted = [Settlement(claim=claim, verdict=verdict, attempt=ATTEMPT) for claim in claims if not deliveries or claim.id in deliveries]
    rest = [Settlement(claim=claim, verdict=None) for claim in claims if deliveries and claim.id not in deliveries]
    await hooks.mailbox.settle(wanted + rest, hooks.clock.now)
    hooks.clock.forward(1)


async def ids(hooks: Hooks, limit: int = 1000, **asked: object) -> list[str]:
    """All pages."""
    found: list[str] = []
    cursor = None
    while True:
        page = await hooks.webhooks.deliveries.list(cursor=cursor, limit=limit, **asked)  # type: ignore[arg-type]
        assert len(page.items) <= limit
        found += [delivery.id for delivery in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_listed_by_what_is_asked_for(redis: Redis) -> None:
    hooks = Hooks(redis)
    first, second = await hooks.endpoint(), await hooks.endpoint(types=["job.*"])
    completed, failed = await hooks.event("job.completed"), await hooks.event("job.failed")
    await hooks.spread()
    hooks.clock.forward(1000)
    later = await hooks.event("workflow.completed")
    await hooks.spread()
    newest, exhausted = delivery_id(later, first), delivery_id(failed, second)
    await end(hooks, Verdict.EXHAUSTED, exhausted)
    await end(hooks, Verdict.DELIVERED, newest)
    assert (await ids(hooks))[0] == newest
    assert len(await ids(hooks)) == 5
    assert set(await ids(hooks, endpoint=second)) == {delivery_id(completed, second), exhausted}
    assert await ids(hooks, status="exhausted") == [exhausted]
    assert await ids(hooks, status="exhausted", endpoint=first) == []
    assert await ids(hooks, status="delivered") == [newest]
    assert await ids(hooks, status="delivered", endpoint=first) == [newest]
    assert len(await ids(hooks, status="pending")) == 3
    assert len(await ids(hooks, type="job.*")) == 4
    assert len(await ids(hooks, type="job.failed")) == 2
    assert await ids(hooks, since=T0 + 1) == [newest]
    assert await ids(hooks, endpoint="nobody") == []
    for wrong in ({"status": "lost"}, {"type": "job*"}, {"cursor": "x"}, {"cursor": "1."}, {"code": "600"}, {"code": "4x"}):
        with pytest.raises(InvalidInput):
            await hooks.webhooks.deliveries.list(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [1, 7, 50])
async def test_pages_show_each_once_also_those_of_one_instant(redis: Redis, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SCAN", 8)
    monkeypatch.setattr(listing, "MAX_SCANNED", 16)
    hooks = Hooks(redis)
    await hooks.endpoint()
    for n in range(20):
        await hooks.event(n=n)
        await hooks.event("job.failed", n=n)
    await hooks.spread()
    hooks.clock.forward(5)
    for n in range(20, 25):
        await hooks.event(n=n)
    await hooks.spread()
    for asked, count in (({}, 45), ({"type": "job.failed"}, 20), ({"status": "pending"}, 45), ({"status": "delivered"}, 0)):
        found = await ids(hooks, limit, **asked)
        assert len(found) == len(set(found)) == count


async def test_pages_go_on_where_the_cursor_left_the_index(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.endpoint(concurrency=100)
    for n in range(10):
        await hooks.event(n=n)
    await hooks.spread()
    everything = await ids(hooks, status="pending")
    page = await hooks.webhooks.deliveries.list(status="pending", limit=4)
    await end(hooks, Verdict.DELIVERED, *everything[2:5])
    rest = await hooks.webhooks.deliveries.list(status="pending", limit=100, cursor=page.next_cursor)
    assert [delivery.id for delivery in rest.items] == everything[5:]


async def test_one_with_its_attempts(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    event = await hooks.event(runId="run_1")
    await hooks.spread()
    await end(hooks, Verdict.EXHAUSTED)
    delivery = delivery_id(event, endpoint)
    assert await hooks.webhooks.deliveries.document(delivery) == {
        "id": delivery,
        "eventId": event,
        "endpoint": endpoint,
        "type": "job.completed",
        "runId": "run_1",
        "status": "exhausted",
        "reason": None,
        "attemptCount": 1,
        "lastStatus": 503,
        "nextAttemptAt": None,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "finishedAt": "2026-01-01T00:00:00.000Z",
        "attempts": [
            {
                "number": 1,
                "at": "2026-01-01T00:00:00.000Z",
                "durationMs": 2,
                "status": 503,
                "error": "answered 503",
                "response": "no",
                "address": "127.0.0.1",
                "phases": PHASES,
                "reused": True,
            }
        ],
    }
    with pytest.raises(NotFound):
        await hooks.webhooks.deliveries.document("dlv_nobody")


@pytest.mark.parametrize("verdict", [Verdict.DELIVERED, Verdict.EXHAUSTED])
async def test_replay(redis: Redis, verdict: Verdict) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    event = await hooks.event()
    await hooks.spread()
    delivery = delivery_id(event, endpoint)
    with pytest.raises(Conflict, match="pending"):
        await hooks.webhooks.replay.one(delivery)
    await end(hooks, verdict)
    again = await hooks.webhooks.replay.one(delivery)
    assert (again.status, again.attempts, again.due, again.finished) == ("pending", 1, hooks.clock.now, None)
    (claim,) = (await hooks.mailbox.claim(10, hooks.clock.now)).claims
    assert (claim.event, claim.attempts, claim.tried) == (event, 1, 0), "the same webhook-id, a new round of the schedule"
    await hooks.mailbox.settle([Settlement(claim=claim, verdict=Verdict.DELIVERED, attempt=ATTEMPT)], hooks.clock.now)
    assert [attempt.number for attempt in await hooks.webhooks.deliveries.attempts(delivery)] == [1, 2]
    assert await ids(hooks, status="exhausted") == []


async def test_replay_of_a_disabled_a_deleted_an_unknown_and_a_skipped_one(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    await redis.hset(hooks.keys.endpoint(endpoint), "status", "disabled")
    event = await hooks.event()
    await hooks.spread()
    delivery = delivery_id(event, endpoint)
    with pytest.raises(Conflict, match="disabled"):
        await hooks.webhooks.replay.one(delivery)
    await hooks.webhooks.endpoints.enable(endpoint)
    assert (await hooks.webhooks.replay.one(delivery)).reason is None
    await end(hooks, Verdict.DELIVERED)
    await hooks.webhooks.endpoints.delete(endpoint)
    with pytest.raises(Conflict, match="deleted"):
        await hooks.webhooks.replay.one(delivery)
    with pytest.raises(NotFound):
        await hooks.webhooks.replay.one("dlv_nobody")


async def test_a_repeated_replay_is_one(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.endpoint()
    await hooks.event()
    await hooks.spread()
    await end(hooks, Verdict.DELIVERED)
    script = hooks.webhooks.replay._script

    async def twice(keys: list[str], arguments: list[object]) -> object:
        await script(keys, arguments)  # type: ignore[arg-type]
        return await script(keys, arguments)  # type: ignore[arg-type]

    hooks.webhooks.replay._script = twice  # type: ignore[assignment]
    assert (await hooks.webhooks.replay.one((await ids(hooks))[0])).status == "pending"


async def test_retention_removes_what_ended_and_nothing_else(redis: Redis) -> None:
    hooks = Hooks(redis, retention=DAY)
    first, second = await hooks.endpoint(), await hooks.endpoint()
    before = set(await redis.keys())
    event = await hooks.event()
    await hooks.spread()
    await end(hooks, Verdict.DELIVERED, delivery_id(event, first))
    hooks.clock.forward(DAY - 2)
    assert await hooks.webhooks.deliveries.sweep() == 0
    hooks.clock.forward(1)
    assert await hooks.webhooks.deliveries.sweep() == 1
    assert await ids(hooks) == [delivery_id(event, second)]
    (claim,) = (await hooks.mailbox.claim(1, hooks.clock.now)).claims
    assert claim.body, "the event stays as long as one delivery needs it"
    await hooks.mailbox.settle([Settlement(claim=claim, verdict=Verdict.EXHAUSTED, attempt=ATTEMPT)], hooks.clock.now)
    hooks.clock.forward(DAY)
    assert await hooks.webhooks.deliveries.sweep() == 1
    # Finds that of the leases there were none is left.
    await hooks.mailbox.claim(1, hooks.clock.now)
    await redis.delete(*await redis.keys(f"{hooks.keys.prefix}:claim:*"), *await redis.keys("t:log*"))
    assert set(await redis.keys()) <= before | {hooks.keys.swept}, "nothing is left of it"


async def test_a_replayed_delivery_is_not_removed_while_it_is_pending(redis: Redis) -> None:
    hooks = Hooks(redis, retention=DAY)
    await hooks.endpoint()
    await hooks.event()
    await hooks.spread()
    await end(hooks, Verdict.DELIVERED)
    await hooks.webhooks.replay.one((await ids(hooks))[0])
    hooks.clock.forward(10 * DAY)
    assert await hooks.webhooks.deliveries.sweep() == 0


async def test_attempts_are_capped(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.endpoint()
    await hooks.event()
    await hooks.spread()
    for _ in range(55):
        (claim,) = (await hooks.mailbox.claim(1, hooks.clock.now)).claims
        await hooks.mailbox.settle([Settlement(claim=claim, verdict=Verdict.RETRY, attempt=ATTEMPT, due=hooks.clock.now)], hooks.clock.now)
        hooks.clock.forward(2)
    kept = await hooks.webhooks.deliveries.attempts(claim.id)
    assert [attempt.number for attempt in kept] == list(range(6, 56))
