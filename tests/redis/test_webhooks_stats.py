"""How an endpoint fares: counted over time and processes, kept over restarts, shown in bounded number."""

import pytest
from redis.asyncio import Redis

from tests.redis.test_webhooks_service import hooks_of, settled
from tests.support.hooks import T0, Hooks
from tests.support.receiver import Answer, receiving
from webhooks import NotFound, stats
from webhooks.backoff import Verdict
from webhooks.mailbox import Settlement
from webhooks.model import delivery_id
from webhooks.tally import ALL, OTHER, Tally

MINUTE, HOUR = 60_000, 3_600_000


async def count(hooks: Hooks, endpoint: str, *, delivered: int = 0, failed: int = 0, ms: int = 10) -> None:
    """Some attempts at this instant, as one process adds them."""
    tally = Tally()
    for n in range(delivered + failed):
        tally.count(endpoint, delivered=n < delivered, exhausted=False, duration=ms, at=hooks.clock.now)
    await hooks.webhooks.statistics.flush(tally)


async def samples(hooks: Hooks) -> dict[tuple[str, ...], float]:
    families = await hooks.webhooks.metrics.families()
    assert len({family.name for family in families}) == len(families)
    return {(family.name + suffix, *labels.values()): value for family in families for suffix, labels, value in family.samples}


async def test_what_is_sent_is_counted(redis: Redis) -> None:
    hooks = hooks_of(redis, schedule=(0, 0))
    async with receiving() as receiver:
        endpoint = await hooks.endpoint(receiver.url)
        receiver.answer(Answer(status=500), Answer(), Answer(status=500), Answer(status=500))
        async with hooks.running():
            first = await hooks.event(n=1)
            await settled(hooks, {delivery_id(first, endpoint): "delivered"})
            second = await hooks.event(n=2)
            await settled(hooks, {delivery_id(first, endpoint): "delivered", delivery_id(second, endpoint): "exhausted"})
    # The loops add what they have counted at their end.
    found = (await hooks.webhooks.stats(endpoint)).document()
    assert found["total"] == {"delivered": 1, "failed": 3, "exhausted": 1}
    assert (found["lastHour"]["delivered"], found["lastDay"]["failed"], found["lastDay"]["exhausted"]) == (1, 3, 1)
    assert found["lastHour"]["p50Ms"] <= found["lastHour"]["p99Ms"]
    assert found["lastSuccessAt"] < found["lastFailureAt"]
    with pytest.raises(NotFound):
        await hooks.webhooks.stats("ep_nobody")


async def test_the_last_hour_and_the_last_day(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    await count(hooks, endpoint, delivered=3, ms=10)
    hooks.clock.forward(50 * MINUTE)
    await count(hooks, endpoint, delivered=1, failed=1, ms=1000)
    await count(hooks, endpoint, failed=1, ms=1000)

    async def shown() -> tuple[int, int, int | None, int, int]:
        found = (await hooks.webhooks.stats(endpoint)).document()
        hour, day = found["lastHour"], found["lastDay"]
        return hour["delivered"], hour["failed"], hour["p99Ms"], day["delivered"], day["failed"]

    assert await shown() == (4, 2, 1000, 4, 2)
    assert (await hooks.webhooks.stats(endpoint)).document()["lastHour"]["p50Ms"] == 10
    hooks.clock.forward(10 * MINUTE)
    assert await shown() == (1, 2, 1000, 4, 2), "the hour is over at its end"
    hooks.clock.forward(HOUR)
    assert await shown() == (0, 0, None, 4, 2)
    # In the slot of an hour before: what was there is not added to.
    hooks.clock.forward(23 * HOUR)
    await count(hooks, endpoint, delivered=1)
    assert await shown() == (1, 0, 10, 1, 0)
    assert (await hooks.webhooks.stats(endpoint)).document()["total"] == {"delivered": 5, "failed": 2, "exhausted": 0}


async def test_what_waits(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(concurrency=2)
    for n in range(5):
        await hooks.event(n=n)
    await hooks.spread()
    claims = (await hooks.mailbox.claim(2, hooks.clock.now)).claims
    retry = Settlement(
        claim=claims[0],
        verdict=Verdict.RETRY,
        attempt={"at": T0, "duration": 2, "status": 503, "error": "no", "response": None, "address": None},
        due=hooks.clock.now + HOUR,
    )
    await hooks.mailbox.settle([retry], hooks.clock.now)
    hooks.clock.forward(700)
    found = (await hooks.webhooks.stats(endpoint)).document()
    assert (found["pending"], found["inFlight"], found["oldestDueMs"]) == (4, 1, 700)
    assert found["lastHour"] == {"delivered": 0, "failed": 0, "exhausted": 0, "p50Ms": None, "p99Ms": None}
    shown = await samples(hooks)
    assert shown["hookline_webhook_pending", endpoint] == 4
    assert shown["hookline_webhook_in_flight", endpoint] == 1
    assert shown["hookline_webhook_oldest_due_seconds", endpoint] == 0.7
    assert shown["hookline_webhook_deliveries", "pending"] == 5
    assert ("hookline_webhook_pending", OTHER) not in shown


async def test_the_status_and_the_breaker_of_an_endpoint_are_metrics(redis: Redis) -> None:
    hooks = hooks_of(redis, schedule=(0, HOUR))
    async with receiving(Answer(status=500)) as receiver:
        broken, paused = await hooks.endpoint(receiver.url), await hooks.endpoint(receiver.url, types=["x.y"])
        await hooks.webhooks.endpoints.pause(paused)
        events = [await hooks.event(n=n) for n in range(10)]
        async with hooks.running():
            for _ in events:
                await receiver.next()
    shown = await samples(hooks)
    assert (shown["hookline_webhook_endpoint_status", broken, "enabled"], shown["hookline_webhook_breaker_open", broken]) == (1, 1)
    assert (shown["hookline_webhook_endpoint_status", paused, "paused"], shown["hookline_webhook_breaker_open", paused]) == (1, 0)
    assert ("hookline_webhook_endpoint_status", paused, "enabled") not in shown


async def test_an_addition_whose_reply_was_lost_is_not_added_twice(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    script = hooks.webhooks.statistics._script

    async def twice(keys: list[str], arguments: list[object]) -> object:
        await script(keys, arguments)  # type: ignore[arg-type]
        return await script(keys, arguments)  # type: ignore[arg-type]

    hooks.webhooks.statistics._script = twice  # type: ignore[assignment]
    await count(hooks, endpoint, delivered=2)
    assert (await hooks.webhooks.stats(endpoint)).document()["total"]["delivered"] == 2


async def test_a_deleted_endpoint_leaves_nothing(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    await count(hooks, endpoint, delivered=2)
    await hooks.webhooks.endpoints.delete(endpoint)
    await count(hooks, endpoint, delivered=2)
    assert not await redis.exists(hooks.keys.stats(endpoint))
    shown = await samples(hooks)
    assert not [name for name in shown if endpoint in name]
    assert shown["hookline_webhook_attempt_duration_seconds_count",] == 4


async def test_metrics_are_bounded_and_no_counter_goes_back(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "SHOWN", 3)
    monkeypatch.setattr("webhooks.metrics.SHOWN", 3)
    hooks = Hooks(redis)
    endpoints = [await hooks.endpoint() for _ in range(6)]
    for n in range(4):
        await hooks.event(n=n)
    await hooks.spread()
    seen: dict[tuple[str, ...], float] = {}

    async def look() -> dict[tuple[str, ...], float]:
        shown = await samples(hooks)
        counters = {name: value for name, value in shown.items() if "_total" in name[0] or "_bucket" in name[0] or "_count" in name[0]}
        for name, value in counters.items():
            assert value >= seen.get(name, 0), name
        seen.update(counters)
        return shown

    for endpoint in endpoints[:3]:
        await count(hooks, endpoint, delivered=1)
    for endpoint in endpoints[3:]:
        await count(hooks, endpoint, delivered=1)
    shown = await look()
    named = {name[1] for name in shown if name[0] == "hookline_webhook_attempts_total"}
    assert named == {*endpoints[:3], OTHER}
    assert shown["hookline_webhook_attempts_total", OTHER, "delivered"] == 3
    assert shown["hookline_webhook_pending", OTHER] == 12
    # Those that are idle make room for those that are not.
    hooks.clock.forward(HOUR + 1)
    await count(hooks, endpoints[4], failed=2)
    shown = await look()
    assert {name[1] for name in shown if name[0] == "hookline_webhook_attempts_total"} == {endpoints[4], OTHER}
    assert shown["hookline_webhook_attempts_total", endpoints[4], "failed"] == 2
    assert shown["hookline_webhook_attempts_total", OTHER, "failed"] == 0, "what is its own is not another's"
    assert (await hooks.webhooks.statistics.totals([ALL]))[0].failed == 2
    await count(hooks, endpoints[0], delivered=1)
    await look()
