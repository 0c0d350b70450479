"""Lists of deliveries: by each thing that can be asked for, each record once, in bounded work, whatever changes meanwhile."""

import random
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.support.hooks import T0, Hooks
from webhooks import InvalidInput, listing
from webhooks.backoff import Verdict
from webhooks.criteria import criteria
from webhooks.mailbox import Settlement
from webhooks.model import Delivery, delivery_id


def attempt(status: int | None) -> dict[str, Any]:
    return {"at": T0, "duration": 2, "status": status, "error": None, "response": None, "address": None}


async def settle(hooks: Hooks, answers: dict[str, int | None]) -> None:
    """Each delivery has an answer of this status, the others are handed back."""
    batch = []
    for claim in (await hooks.mailbox.claim(1000, hooks.clock.now)).claims:
        if claim.id not in answers:
            batch.append(Settlement(claim=claim, verdict=None))
            continue
        status = answers[claim.id]
        verdict = Verdict.DELIVERED if status and status < 300 else Verdict.EXHAUSTED
        batch.append(Settlement(claim=claim, verdict=verdict, attempt=attempt(status)))
    await hooks.mailbox.settle(batch, hooks.clock.now)
    hooks.clock.forward(2)


async def ids(hooks: Hooks, limit: int = 1000, **asked: Any) -> list[str]:
    """All pages."""
    found: list[str] = []
    cursor = None
    while True:
        page = await hooks.webhooks.deliveries.list(cursor=cursor, limit=limit, **asked)
        found += [delivery.id for delivery in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_by_the_event_also_for_an_endpoint_that_was_deleted(redis: Redis) -> None:
    hooks = Hooks(redis)
    first, second = await hooks.endpoint(), await hooks.endpoint()
    event, other = await hooks.event(n=1), await hooks.event(n=2)
    await hooks.spread()
    await hooks.webhooks.endpoints.delete(first)
    third = await hooks.endpoint()
    wanted = {delivery_id(event, first), delivery_id(event, second)}
    assert set(await ids(hooks, event=event)) == wanted
    assert set(await ids(hooks, limit=1, event=event)) == wanted
    assert await ids(hooks, event=event, endpoint=second) == [delivery_id(event, second)]
    assert await ids(hooks, event=event, endpoint=third) == []
    assert await ids(hooks, event=event, status="skipped") == [delivery_id(event, first)]
    assert await ids(hooks, event="evt_none") == []
    assert len(await ids(hooks, event=other)) == 2


async def test_by_the_status_of_the_last_answer(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(concurrency=100)
    made = {status: delivery_id(await hooks.event(n=status), endpoint) for status in (200, 404, 500, 503, None, "waits")}
    await hooks.spread()
    await settle(hooks, {delivery: status for status, delivery in made.items() if status != "waits"})  # type: ignore[misc]
    assert set(await ids(hooks, code="5xx")) == {made[500], made[503]}
    assert await ids(hooks, code="503") == [made[503]]
    assert await ids(hooks, code="2xx") == [made[200]]
    assert await ids(hooks, code="none") == [made[None]], "one that was not attempted yet had no answer to miss"
    assert await ids(hooks, code="5xx", status="delivered") == []


async def test_between_two_times(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    made = []
    for n in range(5):
        made.append(delivery_id(await hooks.event(n=n), endpoint))
        await hooks.spread()
        hooks.clock.forward(10)
    assert await ids(hooks, since=T0 + 10, until=T0 + 30) == made[3:0:-1]
    assert await ids(hooks, limit=1, since=T0 + 10, until=T0 + 30) == made[3:0:-1]
    assert await ids(hooks, until=T0 + 9) == made[:1]
    assert await ids(hooks, since=T0 + 10, until=T0 + 10) == made[1:2]
    with pytest.raises(InvalidInput, match="since: lies after until"):
        await ids(hooks, since=T0 + 11, until=T0 + 10)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("asked", [{}, {"statuses": ["pending", "exhausted"]}, {"statuses": ["pending"]}])
async def test_what_stays_is_seen_once_whatever_changes_meanwhile(
    redis: Redis, newest_first: bool, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two steps new ones come, some end, and some are removed: of one instant and of several."""
    monkeypatch.setattr(listing, "SCAN", 7)
    monkeypatch.setattr(listing, "MAX_SCANNED", 15)
    hooks = Hooks(redis, retention=1)
    endpoint = await hooks.endpoint(concurrency=1000)
    stay = set()
    for n in range(90):
        event = await hooks.event(n=n)
        stay.add(delivery_id(event, endpoint))
        if n % 30 == 29:
            await hooks.spread()
            hooks.clock.forward(1)
    everything = set(stay)
    goes = iter(sorted(stay))
    chance = random.Random(4)
    deliveries = hooks.webhooks.deliveries
    read = deliveries.listing.read
    changed = 0

    async def change_and_read(found: list[str]) -> list[Delivery | None]:
        nonlocal changed
        changed += 1
        await hooks.event(n=1000 + changed)
        await hooks.spread()
        going = [next(goes), next(goes)]
        stay.difference_update(going)
        await settle(hooks, {going[0]: 200, going[1]: chance.choice((200, 500))})
        hooks.clock.forward(5)
        while await deliveries.sweep():
            pass
        return await read(found)

    monkeypatch.setattr(deliveries.listing, "read", change_and_read)
    seen: list[Delivery] = []
    cursor = None
    while True:
        page = await deliveries.listing.page(criteria(**asked), cursor=cursor, limit=5, newest_first=newest_first)
        seen += page.items
        cursor = page.next_cursor
        if cursor is None or len(seen) > 300:
            break
    found = [record.id for record in seen]
    assert len(found) == len(set(found))
    assert stay <= set(found), "none of those that were there all the time is missed"
    assert stay < everything
    assert changed > 10
    order = [(record.created, record.id) for record in seen]
    assert order == sorted(order, reverse=newest_first)


async def test_one_page_looks_at_no_more_than_its_share(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SCAN", 10)
    monkeypatch.setattr(listing, "MAX_SCANNED", 20)
    hooks = Hooks(redis)
    await hooks.endpoint()
    wanted = await hooks.event("a.b")
    for n in range(60):
        await hooks.event(n=n)
        await hooks.spread()
        hooks.clock.forward(1)
    page = await hooks.webhooks.deliveries.list(type="a.*")
    assert (page.items, page.next_cursor is None) == ([], False)
    (found,) = await ids(hooks, type="a.*")
    assert (await hooks.webhooks.deliveries.get(found)).event == wanted


async def test_only_what_may_fit_is_looked_at(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The span of time and the smallest index bound the search; not only what is found."""
    monkeypatch.setattr(listing, "MAX_SCANNED", 1)
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint()
    made = []
    for n in range(10):
        made.append(delivery_id(await hooks.event(n=n, runId=f"run_{n}"), endpoint))
        await hooks.spread()
        hooks.clock.forward(10)

    async def first(newest_first: bool, **asked: Any) -> list[str]:
        page = await hooks.webhooks.deliveries.listing.page(criteria(**asked), limit=1, newest_first=newest_first)
        return [delivery.id for delivery in page.items]

    assert await first(False, since=T0 + 50) == made[5:6]
    assert await first(True, until=T0 + 50) == made[5:6]
    assert await first(False, endpoint=endpoint, run="run_5") == made[5:6]
    assert await first(False, statuses=["pending"], run="run_5") == made[5:6]
