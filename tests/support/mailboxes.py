"""The mailboxes as tests move them by hand: filled, claimed from and settled, over a clock that stands."""

from collections import Counter
from typing import Any

from redis.asyncio import Redis

from tests.support.hooks import Hooks
from webhooks.backoff import Verdict
from webhooks.mailbox import Claim, Settlement
from webhooks.model import DeliveryStatus
from webhooks.ordering import HASH

ATTEMPT = {"at": 1, "duration": 2, "status": 200, "error": None, "response": "", "address": "127.0.0.1"}


async def claim(hooks: Hooks, limit: int = 100) -> list[Claim]:
    return (await hooks.mailbox.claim(limit, hooks.clock.now)).claims


async def settle(hooks: Hooks, claim: Claim, verdict: Verdict = Verdict.DELIVERED, **more: Any) -> str:
    # No two attempts of a delivery begin at the same time.
    settlement = Settlement(claim=claim, verdict=verdict, attempt=ATTEMPT | {"at": float(claim.lease)}, **({"endpoint_version": 1} | more))
    return (await hooks.mailbox.settle([settlement], hooks.clock.now))[0]


async def filled(redis: Redis, deliveries: int, **endpoint: Any) -> tuple[Hooks, str]:
    hooks = Hooks(redis)
    made = await hooks.endpoint(**endpoint)
    for n in range(deliveries):
        await hooks.event(n=n)
    await hooks.spread()
    return hooks, made


async def consistent(hooks: Hooks) -> None:
    """Each pending delivery is in exactly one place, and each other one in none; of each line one has its turn."""
    turns: Counter[tuple[str, str]] = Counter()
    for delivery in (await hooks.webhooks.deliveries.list(limit=1000)).items:
        untried = await hooks.redis.zscore(hooks.keys.mailbox(delivery.endpoint), delivery.event + delivery.id)
        assert untried is None or (delivery.attempts, delivery.line) == (0, None), delivery
        places = [untried]
        for key in (hooks.keys.mailbox, hooks.keys.retries, hooks.keys.leases):
            places.append(await hooks.redis.zscore(key(delivery.endpoint), delivery.id))
        pending = delivery.status is DeliveryStatus.PENDING
        if delivery.line:
            line, place = delivery.line[:HASH], delivery.line[HASH:]
            in_line = await hooks.redis.zscore(hooks.keys.line(delivery.endpoint, line), place + delivery.id) is not None
            assert in_line is pending, delivery
            turns[delivery.endpoint, line] += sum(place is not None for place in places) if pending else 0
        else:
            assert sum(place is not None for place in places) == pending, delivery
        assert (await hooks.redis.zscore(hooks.keys.finished, delivery.id) is None) is pending
        assert (delivery.finished is None) is pending
        for status in ("pending", "exhausted", "skipped"):
            assert (await hooks.redis.zscore(hooks.keys.deliveries("status", status), delivery.id) is not None) is (delivery.status == status)
    for (endpoint, line), turn in turns.items():
        assert turn == await hooks.redis.exists(hooks.keys.line(endpoint, line)), "one has its turn, as long as there is one"


async def failed_once(hooks: Hooks, due: int) -> list[Claim]:
    """Let everything that is due fail, to be tried again at `due`."""
    claims = await claim(hooks, 1000)
    await hooks.mailbox.settle([Settlement(claim=one, verdict=Verdict.RETRY, attempt=ATTEMPT, due=due) for one in claims], hooks.clock.now)
    return claims
