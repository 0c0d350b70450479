"""Why an endpoint got an event, or did not: every verdict, on the state that it is about."""

import json
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.support.hooks import T0, Hooks
from webhooks import InvalidInput, inquiry
from webhooks.backoff import Off, Receiver, Verdict
from webhooks.mailbox import Settlement
from webhooks.model import delivery_id
from webhooks.units import iso

DAY = 86_400_000


def attempt(status: int | None, error: str | None) -> dict[str, Any]:
    return {"at": T0, "duration": 2, "status": status, "error": error, "response": None, "address": None}


async def settle(hooks: Hooks, verdict: Verdict, status: int | None = 503, **more: Any) -> None:
    claims = (await hooks.mailbox.claim(1000, hooks.clock.now)).claims
    record = attempt(status, None if status == 200 else f"answered {status}")
    await hooks.mailbox.settle([Settlement(claim=claim, verdict=verdict, attempt=record, **more) for claim in claims], hooks.clock.now)


async def why(hooks: Hooks, event: str, endpoint: str) -> dict[str, Any]:
    """The one answer about a pair; its facts by name."""
    (item,) = (await hooks.webhooks.inquiry.ask(event=event, endpoint=endpoint)).document()["items"]
    assert (item["event"], item["endpoint"]) == (event, endpoint)
    return {**item, "facts": {fact["name"]: fact["value"] for fact in item["facts"]}}


# --- no record --------------------------------------------------------------------------------------------------------


async def test_no_such_endpoint_and_one_that_was_deleted(redis: Redis) -> None:
    hooks = Hooks(redis)
    event, endpoint = await hooks.event(), await hooks.endpoint()
    assert (await why(hooks, event, "ep_nobody"))["verdict"] == "no-endpoint"
    hooks.clock.forward(1000)
    await hooks.webhooks.endpoints.delete(endpoint)
    told = await why(hooks, event, endpoint)
    assert (told["verdict"], told["facts"]["endpointDeletedAt"]) == ("endpoint-deleted", "2026-01-01T00:00:01.000Z")
    assert "at 2026-01-01T00:00:01.000Z" in told["reason"]
    # As an earlier version left it.
    await redis.delete(hooks.keys.deleted)
    assert (await why(hooks, event, endpoint))["verdict"] == "endpoint-deleted"


async def test_an_event_that_nobody_knows(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    told = await why(hooks, "evt_none", endpoint)
    assert (told["verdict"], told["type"], told["facts"]["logStart"]) == ("unknown-event", None, None)
    await hooks.event()
    told = await why(hooks, "evt_none", endpoint)
    assert told["facts"]["logStart"] in told["reason"]


async def test_an_event_about_the_endpoint_itself(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint, other = await hooks.endpoint(), await hooks.endpoint()
    event = await hooks.event("endpoint.disabled", endpoint=endpoint)
    await hooks.spread()
    assert (await why(hooks, event, endpoint))["verdict"] == "own-event"
    assert (await why(hooks, event, other))["verdict"] == "due"


async def test_a_type_that_it_does_not_want(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(types=["job.*", "a.b"])
    event, progress = await hooks.event("workflow.completed"), await hooks.event("job.progress")
    await hooks.spread()
    told = await why(hooks, event, endpoint)
    assert told["verdict"] == "not-wanted"
    assert told["reason"] == "none of the endpoint's types (job.*, a.b) matches workflow.completed"
    assert told["facts"]["endpointTypes"] == ["job.*", "a.b"]
    assert "only its full name" in (await why(hooks, progress, endpoint))["reason"]


async def test_an_event_that_was_not_fanned_out_yet(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    event = await hooks.event()
    told = await why(hooks, event, endpoint)
    assert (told["verdict"], told["facts"]["fannedOut"]) == ("not-fanned-out", False)
    # Read by a consumer that has not acknowledged it.
    await hooks.group.create()
    await hooks.group.read(count=10, block_ms=1)
    told = await why(hooks, event, endpoint)
    assert told["verdict"] == "not-fanned-out"
    assert f"{told['facts']['fanOutBehindMs']} ms behind" in told["reason"]


async def test_an_endpoint_that_is_younger_or_has_changed_since(redis: Redis) -> None:
    hooks = Hooks(redis)
    event = await hooks.event()
    await hooks.spread()
    hooks.clock.forward(1000)
    younger = await hooks.endpoint()
    told = await why(hooks, event, younger)
    assert (told["verdict"], told["facts"]["inLog"]) == ("endpoint-newer", True)
    assert "missing" in told["advice"]
    unlike = await hooks.endpoint(types=["a.b"])
    hooks.clock.forward(1000)
    later = await hooks.event(n=2)
    await hooks.spread()
    assert (await why(hooks, later, unlike))["verdict"] == "not-wanted"
    await hooks.webhooks.endpoints.patch(unlike, {"types": ["*"]})
    assert (await why(hooks, later, unlike))["verdict"] == "no-record"
    await hooks.webhooks.endpoints.patch(unlike, {"filter": "event.data.n > 2"})
    told = await why(hooks, later, unlike)
    assert told["verdict"] == "filtered"
    # With the log gone, what its other deliveries have is known still.
    await redis.delete("t:log")
    told = await why(hooks, later, younger)
    assert told["verdict"] == "due"
    hooks.clock.forward(1)
    third = await hooks.endpoint()
    told = await why(hooks, later, third)
    assert (told["verdict"], told["facts"]["inLog"]) == ("endpoint-newer", False)
    assert "no longer" in told["advice"]


async def test_a_record_that_is_no_longer_kept(redis: Redis) -> None:
    hooks = Hooks(redis, retention=DAY)
    endpoint = await hooks.endpoint()
    event = await hooks.event()
    await hooks.spread()
    await settle(hooks, Verdict.DELIVERED, 200)
    hooks.clock.forward(DAY + 1)
    assert await hooks.webhooks.deliveries.sweep() == 1
    assert (await why(hooks, event, endpoint))["verdict"] == "record-expired"


# --- a record ---------------------------------------------------------------------------------------------------------


async def test_delivered_and_exhausted(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    event = await hooks.event()
    await hooks.spread()
    await settle(hooks, Verdict.DELIVERED, 200)
    told = await why(hooks, event, endpoint)
    assert told["verdict"] == "delivered"
    assert told["reason"] == "it was delivered at 2026-01-01T00:00:00.000Z, attempt 1 at 2026-01-01T00:00:00.000Z: answered 200"
    assert (told["delivery"], told["facts"]["lastStatus"], told["advice"]) == (delivery_id(event, endpoint), 200, None)
    await hooks.webhooks.replay.one(told["delivery"])
    await settle(hooks, Verdict.EXHAUSTED, None)
    told = await why(hooks, event, endpoint)
    assert told["verdict"] == "exhausted"
    assert "attempt 2" in told["reason"]
    assert "replay" in told["advice"]


async def test_skipped(redis: Redis) -> None:
    hooks = Hooks(redis)
    off, gone = await hooks.endpoint(), await hooks.endpoint()
    await redis.hset(hooks.keys.endpoint(off), "status", "disabled")
    event = await hooks.event()
    await hooks.spread()
    await hooks.webhooks.endpoints.delete(gone)
    told = await why(hooks, event, off)
    assert (told["verdict"], told["reason"]) == ("skipped", "the endpoint was disabled when the event came")
    told = await why(hooks, event, gone)
    assert (told["verdict"], told["reason"]) == ("skipped", "the endpoint was deleted before it was delivered")
    picky = await hooks.endpoint(filter="event.data.n > 5")
    event = await hooks.event(n=2)
    await hooks.spread()
    told = await why(hooks, event, picky)
    assert (told["verdict"], told["reason"]) == ("skipped", "the endpoint's filter is not true of the event")


async def test_under_way_busy_and_due(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(concurrency=1)
    events = [await hooks.event(n=n) for n in range(3)]
    await hooks.spread()
    for event in events:
        assert (await why(hooks, event, endpoint))["verdict"] == "due"
    (claim,) = (await hooks.mailbox.claim(10, hooks.clock.now)).claims
    told = {event: await why(hooks, event, endpoint) for event in events}
    assert {event: one["verdict"] for event, one in told.items()} == {event: "under-way" if event == claim.event else "busy" for event in events}
    assert told[claim.event]["reason"] == "attempt 1 is being made"


async def test_how_many_come_before_it_retries_among_them(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    for n in range(3):
        event = await hooks.event(n=n)
        await hooks.spread()
        if n == 0:
            await settle(hooks, Verdict.RETRY, 500, due=hooks.clock.now)
        hooks.clock.forward(1)
    told = await why(hooks, event, endpoint)
    assert (told["verdict"], told["facts"]["ahead"]) == ("due", 2)
    assert told["reason"] == "it is due and waits to be taken; 2 come before this one"


async def test_paused_and_disabled(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    event = await hooks.event()
    await hooks.spread()
    hooks.clock.forward(1000)
    await hooks.webhooks.endpoints.pause(endpoint)
    hooks.clock.forward(1000)
    await hooks.webhooks.endpoints.patch(endpoint, {"description": "changed"})
    told = await why(hooks, event, endpoint)
    assert (told["verdict"], told["advice"]) == ("paused", "enable the endpoint")
    assert told["reason"] == "the endpoint is paused since 2026-01-01T00:00:01.000Z; the delivery waits"
    version = (await hooks.webhooks.endpoints.enable(endpoint)).version
    hooks.clock.forward(1000)
    await settle(hooks, Verdict.RETRY, 410, due=hooks.clock.now, off=Off.GONE, endpoint_version=version)
    told = await why(hooks, event, endpoint)
    assert told["verdict"] == "disabled"
    assert told["reason"] == "the endpoint is disabled since 2026-01-01T00:00:03.000Z: the receiver answered 410 Gone; the delivery waits"


async def test_held_retrying_and_scheduled(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(schedule=["5s", "1m"])
    event = await hooks.event()
    await hooks.spread()
    assert (await why(hooks, event, endpoint))["verdict"] == "scheduled"
    hooks.clock.forward(10_000)
    await settle(hooks, Verdict.RETRY, due=hooks.clock.now + 60_000)
    told = await why(hooks, event, endpoint)
    assert told["verdict"] == "retrying"
    assert told["reason"] == "attempt 2 is due at 2026-01-01T00:01:10.000Z; attempt 1 at 2026-01-01T00:00:00.000Z: answered 503"
    hooks.clock.forward(60_000)
    version = (await hooks.webhooks.endpoints.get(endpoint)).version
    await settle(hooks, Verdict.RETRY, due=hooks.clock.now + 3_600_000, hold_until=hooks.clock.now + 3_600_000, endpoint_version=version)
    told = await why(hooks, event, endpoint)
    assert (told["verdict"], told["facts"]["heldUntil"]) == ("held", "2026-01-01T01:01:10.000Z")


async def test_held_up_by_the_rate(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(rate="1/1m")
    events = [await hooks.event(n=n) for n in range(2)]
    await hooks.spread()
    (claim,) = (await hooks.mailbox.claim(10, hooks.clock.now)).claims
    (waits,) = set(events) - {claim.event}
    told = await why(hooks, waits, endpoint)
    assert told["verdict"] == "rate-limited"
    assert told["reason"].startswith("the endpoint takes 1/1m, the next at 2026-01-01T00:01:00.000Z")
    hooks.clock.forward(60_000)
    assert (await why(hooks, waits, endpoint))["verdict"] == "due"


async def test_behind_another_of_the_same_ordering_key(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(ordering="data.documentId")
    first, second = await hooks.event(n=1, documentId="d"), await hooks.event(n=2, documentId="d")
    other = await hooks.event(n=3, documentId="e")
    await hooks.spread()
    told = await why(hooks, second, endpoint)
    assert told["verdict"] == "ordered"
    head = delivery_id(first, endpoint)
    assert told["reason"] == f"it keeps its order behind {head}, which has the same data.documentId and has not ended"
    assert (await why(hooks, first, endpoint))["verdict"] == (await why(hooks, other, endpoint))["verdict"] == "due"
    await settle(hooks, Verdict.DELIVERED, 200)
    assert (await why(hooks, second, endpoint))["verdict"] == "due"


async def test_left_alone_by_the_breaker_and_tested_one_at_a_time(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(concurrency=10)
    events = [await hooks.event(n=n) for n in range(10)]
    waits = await hooks.event(n="waits")
    await hooks.spread()
    version = (await hooks.webhooks.endpoints.get(endpoint)).version
    await settle(hooks, Verdict.RETRY, due=hooks.clock.now + 40_000, endpoint_version=version, receiver=Receiver.FAILED)
    told = await why(hooks, waits, endpoint)
    assert (told["verdict"], told["facts"]["openUntil"]) == ("breaker-open", "2026-01-01T00:00:05.000Z")
    sentence = "10 attempts at this endpoint failed in a row; it is tried again at 2026-01-01T00:00:05.000Z"
    reasons = [(await why(hooks, event, endpoint))["reason"] for event in (waits, *events)]
    assert sorted(reasons) == [sentence, *[f"{sentence}; attempt 1 at 2026-01-01T00:00:00.000Z: answered 503"] * 10]
    hooks.clock.forward(50_000)
    assert (await why(hooks, waits, endpoint))["verdict"] == "due"
    (probe,) = (await hooks.mailbox.claim(100, hooks.clock.now)).claims
    assert (await why(hooks, probe.event, endpoint))["verdict"] == "under-way"
    told = await why(hooks, next(event for event in (waits, *events) if event != probe.event), endpoint)
    assert told["verdict"] == "breaker-open"
    assert "one at a time" in told["reason"]


# --- an event, a run --------------------------------------------------------------------------------------------------


async def test_of_an_event_all_that_have_or_want_it(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = Hooks(redis)
    gets, _, gone = await hooks.endpoint(), await hooks.endpoint(types=["a.b"]), await hooks.endpoint()
    event = await hooks.event()
    nobodys = await hooks.event("x.y")
    await hooks.spread()
    await hooks.webhooks.endpoints.delete(gone)
    hooks.clock.forward(1)
    newer = await hooks.endpoint()
    found = (await hooks.webhooks.inquiry.ask(event=event)).document()
    assert {item["endpoint"]: item["verdict"] for item in found["items"]} == {gets: "due", gone: "skipped", newer: "endpoint-newer"}
    assert not found["truncated"]
    monkeypatch.setattr(inquiry, "MAX_PAIRS", 2)
    found = (await hooks.webhooks.inquiry.ask(event=event)).document()
    assert (len(found["items"]), found["truncated"]) == (2, True)
    for endpoint in (gets, newer):
        await hooks.webhooks.endpoints.patch(endpoint, {"types": ["job.*"]})
    other = await hooks.event("p.q")
    (item,) = (await hooks.webhooks.inquiry.ask(event=other)).document()["items"]
    assert (item["endpoint"], item["verdict"], item["reason"]) == (None, "not-wanted", "no endpoint wants p.q")
    assert nobodys
    for wrong in ({}, {"event": event, "run": "run_1"}):
        with pytest.raises(InvalidInput):
            await hooks.webhooks.inquiry.ask(**wrong)


async def test_of_a_run_each_event_that_the_log_or_a_record_knows(redis: Redis) -> None:
    hooks = Hooks(redis)
    hooks.clock.now = round(time.time() * 1000)
    endpoint = await hooks.endpoint(types=["job.*"])
    told = [await hooks.event("job.completed", n=1, runId="run_1"), await hooks.event("workflow.completed", n=2, runId="run_1")]
    await hooks.event("job.completed", n=3, runId="run_2")
    # Only what the engine tells is in the timeline; the log has the jobs' events, too.
    timeline = {"id": told[1], "type": "workflow.completed", "timestamp": iso(hooks.clock.now), "data": {"runId": "run_1"}}
    await redis.rpush("t:run:run_1:timeline", json.dumps(timeline))
    await hooks.spread()
    found = (await hooks.webhooks.inquiry.ask(run="run_1", endpoint=endpoint)).document()
    assert {item["event"]: item["verdict"] for item in found["items"]} == {told[0]: "due", told[1]: "not-wanted"}
    found = (await hooks.webhooks.inquiry.ask(run="run_1")).document()
    assert {(item["event"], item["endpoint"]) for item in found["items"]} == {(told[0], endpoint), (told[1], None)}
    await redis.delete("t:log", "t:run:run_1:timeline")
    found = (await hooks.webhooks.inquiry.ask(run="run_1")).document()
    assert {(item["event"], item["endpoint"]) for item in found["items"]} == {(told[0], endpoint)}


# --- what should have arrived -----------------------------------------------------------------------------------------


async def test_what_is_undelivered_oldest_first_with_why(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint, off = await hooks.endpoint(concurrency=100), await hooks.endpoint(types=["a.b"], filter="event.data.n > 5")
    exhausted = await hooks.event(n="exhausted")
    await hooks.spread()
    await settle(hooks, Verdict.EXHAUSTED)
    hooks.clock.forward(1)
    retried = await hooks.event(n="retried")
    await hooks.spread()
    await settle(hooks, Verdict.RETRY, due=hooks.clock.now + 3_600_000)
    hooks.clock.forward(1)
    await hooks.event(n="delivered")
    await hooks.spread()
    await settle(hooks, Verdict.DELIVERED, 200)
    await hooks.webhooks.endpoints.patch(endpoint, {"types": ["job.*"]})
    await redis.hset(hooks.keys.endpoint(off), "status", "disabled")
    skipped = await hooks.event("a.b", n=6)
    await hooks.event("a.b", n=5)
    await hooks.spread()
    hooks.clock.forward(1)
    waits = await hooks.event(n="waits")
    await hooks.spread()

    async def listed(**asked: Any) -> list[tuple[str, str]]:
        found, cursor = [], None
        while True:
            page = await hooks.webhooks.undelivered.list(cursor=cursor, limit=2, **asked)
            found += [(item["eventId"], item["why"]["verdict"]) for item in (one.document() for one in page.items)]
            cursor = page.next_cursor
            if cursor is None:
                return found

    late = [(exhausted, "exhausted"), (retried, "retrying"), (skipped, "skipped")]
    assert await listed() == late, "neither what was delivered, nor what a filter left out, nor what is about to be sent"
    assert await listed(endpoint=off) == [(skipped, "skipped")]
    hooks.clock.forward(60_000)
    assert (await listed(endpoint=endpoint))[-1] == (waits, "due"), "it has been waiting for a minute"
    assert await listed(type="x.*") == []


async def test_what_its_endpoint_wants_later_is_not_undelivered_before(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.endpoint(schedule=["1h"])
    await hooks.event()
    await hooks.spread()
    hooks.clock.forward(3_600_000)
    assert (await hooks.webhooks.undelivered.list()).items == []
    hooks.clock.forward(3_600_000)
    assert [one.why.verdict for one in (await hooks.webhooks.undelivered.list()).items] == ["due"]
