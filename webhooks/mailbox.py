"""The mailboxes of all endpoints: claim what is due under a lease, settle what came of it."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgpack
import orjson

from webhooks.backoff import Verdict
from webhooks.keys import Keys
from webhooks.scripts import Script, Store

LEASE_MS = 30_000
"""How long a claimed delivery stays with its dispatcher; longer where the endpoint's timeout asks for it."""
LEASE_MARGIN_MS = 15_000
"""How much longer than the attempt itself a lease lasts at least: the time to record it."""
RELEASED = "released"


def lease_for(timeout: int) -> int:
    """ms of lease that an attempt of at most `timeout` ms needs."""
    return max(LEASE_MS, timeout + LEASE_MARGIN_MS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A delivery to be attempted now, by us alone until its lease runs out."""

    id: str
    lease: str
    """When it runs out, ms since the epoch; the fraction makes it this claim's own, so that it also is what allows to settle."""
    endpoint: str
    event: str
    type: str
    run: str | None
    attempts: int
    """Made so far, in all."""
    tried: int
    """Made so far in this round of the schedule."""
    body: bytes
    retry: bool
    """Whether it was taken from the retries, of which a dispatcher has only so many under way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    claims: list[Claim]
    version: int
    """Of the endpoints, when this was claimed."""
    next_due: int | None
    """When something can next be claimed, ms since the epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """What came of a claim."""

    claim: Claim
    verdict: Verdict | None
    """None: not attempted, hand it back."""
    attempt: dict[str, Any] | None = None
    """An `Attempt` without its number; see `attempts.py`."""
    due: int | None = None
    hold_until: int | None = None
    endpoint_version: int = 0
    gone: dict[str, Any] | None = None
    """The receiver said 410; the event to publish, empty for none."""
    exhausted: dict[str, Any] | None = None
    """The event to publish if this ends the delivery."""

    def packed(self) -> list[Any] | dict[str, Any]:
        """As settle.lua reads it: a success short, for there are the most of them."""
        attempt = self.attempt or {}
        code, record = str(attempt.get("status") or ""), orjson.dumps(attempt)
        if self.verdict is Verdict.DELIVERED:
            return [self.claim.id, self.claim.lease, code, record]
        item = {
            "id": self.claim.id,
            "lease": self.claim.lease,
            "verdict": self.verdict.value if self.verdict else RELEASED,
            "version": self.endpoint_version,
            "retry": int(self.claim.retry),
            "due": self.due,
            "hold": self.hold_until,
            "gone": None if self.gone is None else orjson.dumps(self.gone) if self.gone else "",
            "code": code,
            "attempt": record,
            "notice": orjson.dumps(self.exhausted) if self.exhausted else None,
        }
        return {name: value for name, value in item.items() if value is not None}


class Mailbox:
    def __init__(self, redis: Store, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._claim = Script(redis, "claim")
        self._settle = Script(redis, "settle")

    async def claim(self, limit: int, now: int, *, retries: int | None = None) -> Batch:
        """Up to `limit` deliveries that are due, `retries` of them retries (None: all), of each endpoint no more than its concurrency allows."""
        most = limit if retries is None else min(retries, limit)
        version, next_due, rounds, events = await self._claim([self._keys.prefix], [now, limit, most, secrets.token_hex(8)])
        bodies = dict(zip(events[::2], map(str.encode, events[1::2]), strict=True))
        claims = [
            Claim(
                id=delivery,
                lease=lease,
                endpoint=endpoint,
                event=event,
                type=type,
                run=run or None,
                attempts=int(attempts),
                tried=int(attempts) - int(base),
                body=bodies[event],
                retry=retry == 1,
            )
            for endpoint, lease, retry, *rows in rounds
            for delivery, event, type, run, attempts, base in rows
        ]
        return Batch(claims=claims, version=int(version), next_due=int(next_due) if next_due else None)

    async def settle(self, settlements: Sequence[Settlement], now: int) -> list[str]:
        """Record outcomes; for each `ok`, `stale` (somebody else holds it by now), `repeated` or `missing` (removed meanwhile)."""
        if not settlements:
            return []
        groups: dict[str, tuple[list[int], list[int]]] = {}
        for place, one in enumerate(settlements):
            groups.setdefault(one.claim.endpoint, ([], []))[one.verdict is not Verdict.DELIVERED].append(place)
        batch = [(endpoint, *([settlements[place].packed() for place in kind] for kind in kinds)) for endpoint, kinds in groups.items()]
        packed: bytes = msgpack.packb(batch, use_bin_type=False)
        answers = await self._settle([self._keys.prefix], [now, packed])
        places = (place for kinds in groups.values() for kind in kinds for place in kind)
        found = dict(zip(places, chain.from_iterable(answers), strict=True))
        return [found[place] for place in range(len(settlements))]

    async def wait(self, seconds: float) -> None:
        """Return when something may have become due, after `seconds` at the latest."""
        # 0 would mean for ever, and the store counts in milliseconds.
        await self._redis.blpop(self._keys.wake, timeout=max(seconds, 0.001))

    async def wake(self) -> None:
        await self._redis.lpush(self._keys.wake, "1")

    async def longest_waiting(self, now: int) -> int:
        """For how many ms the endpoint that waits longest could have been claimed; 0 if none waits."""
        heads = [row for index in (self._keys.due, self._keys.due_retries) for row in await self._redis.zrange(index, 0, 0, withscores=True)]
        return max((now - int(place) for _, place in heads), default=0) if any(place <= now for _, place in heads) else 0


def released(claim: Claim) -> Settlement:
    """Hand a claim back unattempted."""
    return Settlement(claim=claim, verdict=None)
