"""Many deliveries sent again: what fits, each once, at the rate asked for, whatever is killed meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from tests.support.hooks import T0, Hooks
from tests.support.mailboxes import consistent
from webhooks import Conflict, InvalidInput, NotFound, candidates, replaying, replays
from webhooks.backoff import Verdict
from webhooks.mailbox import Settlement
from webhooks.replays import DryRun, ReplayRecord
from webhooks.units import iso

SINCE = {"since": iso(T0)}
ATTEMPT = {"at": T0, "duration": 2, "status": 500, "error": "answered 500", "response": None, "address": None}


async def settle(hooks: Hooks, verdict: Verdict, limit: int = 1000) -> list[str]:
    """Let what is due end with a verdict; returns the events in the order they were claimed in."""
    batch = (await hooks.mailbox.claim(limit, hooks.clock.now)).claims
    await hooks.mailbox.settle([Settlement(claim=claim, verdict=verdict, attempt=ATTEMPT) for claim in batch], hooks.clock.now)
    hooks.clock.forward(2)
    return [claim.event for claim in batch]


async def begin(hooks: Hooks, endpoint: str, **asked: Any) -> ReplayRecord:
    begun = await hooks.webhooks.replays.create(endpoint, SINCE | asked)
    assert isinstance(begun, ReplayRecord)
    return begun


async def count(hooks: Hooks, endpoint: str, **asked: Any) -> DryRun:
    counted = await hooks.webhooks.replays.create(endpoint, SINCE | asked | {"dryRun": True})
    assert isinstance(counted, DryRun)
    return counted


async def work(hooks: Hooks, replay: str) -> ReplayRecord:
    """Step until it ends or waits."""
    while await hooks.webhooks.replaying.step(replay) == 0:
        pass
    return await hooks.webhooks.replays.get(replay)


async def lost(redis: Redis, deliveries: int) -> tuple[Hooks, str]:
    """An endpoint of which so many deliveries were given up."""
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(concurrency=1000)
    for n in range(deliveries):
        await hooks.event(n=n)
    await hooks.spread()
    await settle(hooks, Verdict.EXHAUSTED)
    return hooks, endpoint


def meanwhile(hooks: Hooks, act: Callable[[], Awaitable[object]]) -> None:
    """Let something happen between the look of each step and its script."""
    looks = hooks.webhooks.replaying._candidates
    look = looks.step

    async def interrupted(*arguments: Any) -> Any:
        found = await look(*arguments)
        await act()
        return found

    looks.step = interrupted  # type: ignore[method-assign]


async def unwanted(redis: Redis, deliveries: int) -> tuple[Hooks, str]:
    """An endpoint that wants only now what was logged so often; all of it is in the past."""
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(types=["x.y"], concurrency=1000)
    for n in range(deliveries):
        await hooks.event(n=n)
    await hooks.spread()
    await hooks.webhooks.endpoints.patch(endpoint, {"types": ["job.*", "endpoint.*"]})
    # An entry of the log bears the store's own time.
    hooks.clock.now = round(time.time() * 1000) + 1
    return hooks, endpoint


async def test_by_status_type_and_time(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint, other = await hooks.endpoint(concurrency=100), await hooks.endpoint(concurrency=100)
    for n in range(3):
        await hooks.event("job.failed", n=n)
        await hooks.event("a.b", n=n)
        await hooks.spread()
        await settle(hooks, Verdict.EXHAUSTED)
    hooks.clock.forward(1000)
    await hooks.event("job.failed", n="later")
    await hooks.event("job.failed", n="delivered")
    await hooks.spread()
    await settle(hooks, Verdict.DELIVERED)
    expected = [
        ({}, 6), ({"types": ["job.*"]}, 3), ({"until": iso(T0 + 3)}, 4), ({"since": iso(T0 + 2)}, 4), ({"status": ["delivered"]}, 2),
        ({"status": ["delivered", "exhausted"]}, 8), ({"status": ["skipped"]}, 0),
    ]  # fmt: skip
    for asked, number in expected:
        assert (await count(hooks, endpoint, **asked)).count == number, asked
    counted = await count(hooks, endpoint, types=["job.*"])
    assert (counted.complete, counted.oldest, counted.newest, len(counted.sample)) == (True, T0, T0 + 4, 3)
    assert {one.status for one in counted.sample} == {"exhausted"}
    assert set((await hooks.statuses()).values()) == {"exhausted", "delivered"}, "counting changes nothing"
    done = await work(hooks, (await begin(hooks, endpoint, types=["job.*"])).id)
    assert (done.status, done.matched, done.replayed, done.skipped) == ("done", 3, 3, 0)
    assert done.finished == hooks.clock.now
    pending = (await hooks.webhooks.deliveries.list(status="pending")).items
    assert {(record.endpoint, record.type) for record in pending} == {(endpoint, "job.failed")}
    assert len(await settle(hooks, Verdict.DELIVERED)) == 3
    assert (await count(hooks, endpoint)).count == 3
    assert (await count(hooks, other)).count == 6


async def test_what_is_missing_is_made_of_the_log(redis: Redis) -> None:
    hooks = Hooks(redis)
    # An entry of the log bears the store's own time.
    hooks.clock.now = round(time.time() * 1000)
    wanted = [await hooks.event("job.failed", n=n, runId="run_1", score=n) for n in range(5)]
    await hooks.event("a.b")
    await hooks.spread()
    endpoint = await hooks.endpoint(types=["job.*"], filter="event.data.score > 0", concurrency=100)
    await hooks.event("endpoint.disabled", endpoint=endpoint)
    wanted.append(await hooks.event("job.failed", n=5, score=5))
    await hooks.spread()
    # By now they all are in the past.
    hooks.clock.now = round(time.time() * 1000) + 1
    assert (await count(hooks, endpoint)).count == 0, "without `missing` there is nothing"
    assert (await count(hooks, endpoint, missing=True, types=["a.*"])).count == 0
    counted = await count(hooks, endpoint, missing=True)
    assert (counted.count, {one.status for one in counted.sample}) == (4, {"missing"})
    assert [one.event for one in counted.sample] == wanted[1:5], "what the filter leaves, and has no record"
    assert len(await hooks.statuses()) == 1, "counting changes nothing"
    done = await work(hooks, (await begin(hooks, endpoint, missing=True)).id)
    assert (done.status, done.matched, done.replayed) == ("done", 4, 4)
    claims = (await hooks.mailbox.claim(100, hooks.clock.now)).claims
    assert {claim.event for claim in claims} == set(wanted[1:])
    assert {(orjson.loads(claim.body)["data"]["n"], claim.run) for claim in claims} == {(n, "run_1") for n in range(1, 5)} | {(5, None)}
    await hooks.mailbox.settle([Settlement(claim=claim, verdict=Verdict.DELIVERED, attempt=ATTEMPT) for claim in claims], hooks.clock.now)
    assert (await count(hooks, endpoint, missing=True)).count == 0
    assert len((await hooks.webhooks.deliveries.list(run="run_1")).items) == 4


async def test_what_was_delivered_and_is_no_longer_on_record_is_not_missing(redis: Redis) -> None:
    hooks = Hooks(redis, retention=60_000)
    hooks.clock.now = round(time.time() * 1000)
    endpoint = await hooks.endpoint()
    await hooks.event()
    await hooks.spread()
    await settle(hooks, Verdict.DELIVERED)
    hooks.clock.forward(59_000)
    assert (await count(hooks, endpoint, missing=True)).count == 0
    # By far, for an entry of the log bears the store's own time, which went on meanwhile.
    hooks.clock.forward(30_000)
    assert await hooks.webhooks.deliveries.sweep() == 1
    assert (await count(hooks, endpoint, missing=True)).count == 0
    # Nor if records are kept for longer from now on.
    longer = Hooks(redis, hooks.clock, retention=600_000)
    assert (await count(longer, endpoint, missing=True)).count == 0


async def test_what_the_filter_kept_away_is_sent_once_the_filter_lets_it_pass(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(filter="event.data.n > 1", concurrency=100)
    for n in range(4):
        await hooks.event(n=n)
    await hooks.spread()
    assert sorted((await hooks.statuses()).values()) == ["pending", "pending", "skipped", "skipped"]
    assert (await count(hooks, endpoint)).count == 0
    await hooks.webhooks.endpoints.patch(endpoint, {"filter": "event.data.n > 0"})
    assert (await count(hooks, endpoint)).count == 1
    await work(hooks, (await begin(hooks, endpoint)).id)
    assert sorted((await hooks.statuses()).values()) == ["pending", "pending", "pending", "skipped"]


async def test_what_was_skipped_for_the_endpoints_sake_is_sent_whatever_its_filter_has_become(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(filter="event.data.n > 1")
    await redis.hset(hooks.keys.endpoint(endpoint), "status", "disabled")
    await hooks.event(n=2)
    await hooks.spread()
    await hooks.webhooks.endpoints.enable(endpoint)
    await hooks.webhooks.endpoints.patch(endpoint, {"filter": "event.data.n > 100"})
    assert (await count(hooks, endpoint)).count == 1


async def test_of_what_is_missing_only_what_is_not_about_the_endpoint_and_not_after_the_span(redis: Redis) -> None:
    hooks, endpoint = await unwanted(redis, 3)
    await hooks.event("endpoint.disabled", n="own", endpoint=endpoint)
    other = await hooks.event("endpoint.disabled", n="other", endpoint="ep_other")
    hooks.clock.now = round(time.time() * 1000) + 1
    counted = await count(hooks, endpoint, missing=True, types=["endpoint.*"])
    assert [one.event for one in counted.sample] == [other]
    # An entry after the span, however many come within the first one's millisecond.
    logged = [0]
    while logged[-1] <= logged[0]:
        await hooks.event(n=f"more, {time.time()}")
        logged = [candidates.logged_at(event.cursor) for event in await hooks.log.after("", limit=1000) if event.type == "job.completed"]
    hooks.clock.now = round(time.time() * 1000) + 1
    counted = await count(hooks, endpoint, missing=True, types=["job.*"], until=iso(logged[0]))
    assert counted.count == sum(at <= logged[0] for at in logged) < len(logged)


async def test_a_count_ends_and_says_so(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "SCAN", 5)
    monkeypatch.setattr(replays, "SCAN", 5)
    monkeypatch.setattr(replays, "MAX_COUNTED", 10)
    hooks, endpoint = await lost(redis, 30)
    counted = await count(hooks, endpoint)
    assert (counted.count, counted.complete) == (10, False)


async def test_what_has_ended_or_may_not_be_served_meanwhile_is_not_stepped(redis: Redis) -> None:
    hooks, endpoint = await lost(redis, 3)
    first = (await begin(hooks, endpoint)).id
    meanwhile(hooks, lambda: hooks.webhooks.replays.cancel(first))
    await hooks.webhooks.replaying.step(first)
    ended = await hooks.webhooks.replays.get(first)
    assert (ended.status, ended.replayed) == ("cancelled", 0)
    hooks = Hooks(redis, hooks.clock)
    second = (await begin(hooks, endpoint)).id
    meanwhile(hooks, lambda: redis.hset(hooks.keys.endpoint(endpoint), "status", "disabled"))
    await hooks.webhooks.replaying.step(second)
    assert (await hooks.webhooks.replays.get(second)).replayed == 0
    assert set((await hooks.statuses()).values()) == {"exhausted"}


async def test_what_somebody_else_has_sent_again_meanwhile_is_skipped(redis: Redis) -> None:
    hooks, endpoint = await lost(redis, 3)
    replay = (await begin(hooks, endpoint)).id
    one = (await hooks.webhooks.deliveries.list()).items[0].id
    meanwhile(hooks, lambda: hooks.webhooks.replay.one(one))
    done = await work(hooks, replay)
    assert (done.matched, done.replayed, done.skipped) == (3, 2, 1)
    await consistent(hooks)
    assert len(await settle(hooks, Verdict.DELIVERED)) == 3


async def test_what_is_fanned_out_meanwhile_is_not_made_again(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    event = await hooks.event()
    hooks.clock.now = round(time.time() * 1000) + 1
    replay = (await begin(hooks, endpoint, missing=True)).id
    meanwhile(hooks, hooks.spread)
    done = await work(hooks, replay)
    assert (done.matched, done.replayed, done.skipped) == (1, 0, 1)
    assert await redis.get(hooks.keys.refs(event)) == "1"
    await consistent(hooks)


async def test_nothing_is_done_twice_or_left_out_when_steps_are_repeated_or_race(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies after a step's script has done it; another one that is at the same step; a reply that is lost."""
    monkeypatch.setattr(candidates, "SCAN", 7)
    hooks, others = Hooks(redis), Hooks(redis)
    others.clock = hooks.clock
    endpoint = await hooks.endpoint(concurrency=1000)
    for n in range(100):
        await hooks.event(n=n)
    await hooks.spread()
    await settle(hooks, Verdict.EXHAUSTED)
    replay = await begin(hooks, endpoint)
    script = hooks.webhooks.replaying._script
    dies = [3, 5, 8]

    async def twice_and_dead(keys: list[str], arguments: list[Any]) -> Any:
        await script(keys, arguments)
        answer = await script(keys, arguments)
        dies[0] -= 1
        if dies[0] == 0:
            dies.pop(0)
            raise asyncio.CancelledError
        return answer

    hooks.webhooks.replaying._script = twice_and_dead  # type: ignore[assignment]
    sent: list[str] = []
    while (await hooks.webhooks.replays.get(replay.id)).status == "running":
        await asyncio.gather(hooks.webhooks.replaying.step(replay.id), others.webhooks.replaying.step(replay.id), return_exceptions=True)
        # What was sent again may have ended again by the next step.
        sent += await settle(hooks, Verdict.EXHAUSTED)
    sent += await settle(hooks, Verdict.EXHAUSTED)
    assert len(sent) == len(set(sent)) == 100
    done = await hooks.webhooks.replays.get(replay.id)
    assert (done.matched, done.replayed, done.skipped) == (100, 100, 0)


async def test_those_that_come_meanwhile_are_not_of_it(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "SCAN", 10)
    hooks, endpoint = await lost(redis, 30)
    replay = await begin(hooks, endpoint)
    hooks.clock.forward(1)
    number = 0
    while await hooks.webhooks.replaying.step(replay.id) == 0:
        number += 1
        await hooks.event(n=f"new {number}")
        await hooks.spread()
        await settle(hooks, Verdict.EXHAUSTED)
        if (await hooks.webhooks.replays.get(replay.id)).status != "running":
            break
    assert (await hooks.webhooks.replays.get(replay.id)).replayed == 30


async def test_no_faster_than_the_rate(redis: Redis) -> None:
    hooks, endpoint = await lost(redis, 30)
    replay = (await begin(hooks, endpoint, rate="10/1s")).id
    begun = hooks.clock.now
    times: list[int] = []
    while (await hooks.webhooks.replays.get(replay)).status == "running":
        seconds = await hooks.webhooks.replaying.step(replay)
        times += [hooks.clock.now - begun] * len(await settle(hooks, Verdict.DELIVERED))
        hooks.clock.forward(max(round(seconds * 1000), 0))
    assert len(times) == 30
    for start in times:
        assert sum(start <= at < start + 1000 for at in times) <= 12
    assert 2_500 < times[-1] < 3_500


async def test_what_is_missing_keeps_the_rate_and_its_order(redis: Redis) -> None:
    hooks, endpoint = await unwanted(redis, 5)
    wanted = [event.id for event in await hooks.log.after("", limit=100)]
    replay = (await begin(hooks, endpoint, missing=True, rate="10/1s")).id
    sent = []
    for number in range(1, 6):
        assert (await work(hooks, replay)).replayed == number
        sent += await settle(hooks, Verdict.DELIVERED)
        hooks.clock.forward(98)
    assert sent == wanted


async def test_it_waits_while_much_is_due_and_while_the_endpoint_is_disabled(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "AHEAD", 5)
    hooks, endpoint = await lost(redis, 12)
    replay = (await begin(hooks, endpoint)).id
    waiting = await work(hooks, replay)
    assert (waiting.replayed, waiting.reached) == (5, T0)
    assert len(await settle(hooks, Verdict.DELIVERED)) == 5
    await redis.hset(hooks.keys.endpoint(endpoint), "status", "disabled")
    assert (await work(hooks, replay)).replayed == 5
    await hooks.webhooks.endpoints.enable(endpoint)
    assert (await work(hooks, replay)).replayed == 10
    await settle(hooks, Verdict.DELIVERED)
    done = await work(hooks, replay)
    assert (done.status, done.replayed) == ("done", 12)


async def test_fresh_events_go_before_what_is_sent_again(redis: Redis) -> None:
    hooks, endpoint = await lost(redis, 200)
    assert (await work(hooks, (await begin(hooks, endpoint)).id)).replayed == 200
    hooks.clock.forward(1000)
    fresh = {await hooks.event("job.failed", n=f"fresh {n}") for n in range(40)}
    await hooks.spread()
    claims = (await hooks.mailbox.claim(20, hooks.clock.now)).claims
    assert len(claims) == 20
    assert sum(claim.event in fresh for claim in claims) >= 12, "of what is taken, most is fresh, although it came later"


async def test_cancelled_by_a_person_or_by_the_end_of_the_endpoint(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "PER_STEP", 2)
    hooks, endpoint = await lost(redis, 6)
    first = (await begin(hooks, endpoint)).id
    with pytest.raises(Conflict, match=first):
        await begin(hooks, endpoint)
    await hooks.webhooks.replaying.step(first)
    assert (await hooks.webhooks.replays.cancel(first)).status == "cancelled"
    assert (await hooks.webhooks.replays.cancel(first)).replayed == 2
    await hooks.webhooks.replaying.step(first)
    assert len(await settle(hooks, Verdict.DELIVERED)) == 2, "what was sent again before stays so, and nothing comes after"
    second = (await begin(hooks, endpoint)).id
    await hooks.webhooks.endpoints.delete(endpoint)
    await hooks.webhooks.replaying.step(second)
    ended = await hooks.webhooks.replays.get(second)
    assert (ended.status, ended.reason) == ("cancelled", "the endpoint was deleted")
    assert await redis.hlen(hooks.keys.replaying) == 0
    listed = await hooks.webhooks.replays.list(limit=1)
    rest = await hooks.webhooks.replays.list(limit=1, cursor=listed.next_cursor)
    assert {one.id for one in (*listed.items, *rest.items)} == {first, second}
    assert rest.next_cursor is None


async def test_one_that_is_done_cannot_be_cancelled_and_is_forgotten_in_time(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    replay = (await begin(hooks, endpoint)).id
    await work(hooks, replay)
    with pytest.raises(Conflict, match="done"):
        await hooks.webhooks.replays.cancel(replay)
    running = (await begin(hooks, endpoint)).id
    hooks.clock.forward(1000)
    await hooks.webhooks.replays.forget(500)
    with pytest.raises(NotFound):
        await hooks.webhooks.replays.get(replay)
    assert (await hooks.webhooks.replays.get(running)).status == "running"


@pytest.mark.parametrize(
    "asked",
    [
        {"since": "2026-01-01"}, {"since": None}, {"status": []}, {"status": ["pending"]}, {"types": ["a*"]}, {"rate": "fast"}, {"unknown": 1},
        {"since": iso(T0 + 10)}, {"until": iso(T0 - 10)}, {"missing": "yes"},
    ],
)  # fmt: skip
async def test_what_cannot_be_asked_for(redis: Redis, asked: dict[str, Any]) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    with pytest.raises(InvalidInput):
        await hooks.webhooks.replays.create(endpoint, SINCE | asked)


async def test_of_an_endpoint_that_is_disabled_or_none(redis: Redis) -> None:
    hooks = Hooks(redis)
    with pytest.raises(NotFound):
        await hooks.webhooks.replays.create("ep_nobody", SINCE)
    endpoint = await hooks.endpoint()
    await redis.hset(hooks.keys.endpoint(endpoint), "status", "disabled")
    assert (await count(hooks, endpoint)).count == 0
    with pytest.raises(Conflict, match="disabled"):
        await hooks.webhooks.replays.create(endpoint, SINCE)
