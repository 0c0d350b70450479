"""The mailboxes of all endpoints: claim what is due under a lease, settle what came of it."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
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
    token: str
    endpoint: str
    event: str
    type: str
    run: str | None
    attempts: int
    """Made so far, in all."""
    tried: int
    """Made so far in this round of the schedule."""
    body: bytes


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

    def packed(self) -> dict[str, Any]:
        attempt = self.attempt or {}
        item: dict[str, Any] = {
            "id": self.claim.id,
            "token": self.claim.token,
            "verdict": self.verdict.value if self.verdict else RELEASED,
            "version": self.endpoint_version,
            "attempt": orjson.dumps(attempt),
        }
        optional = {
            "due": self.due,
            "hold": self.hold_until,
            "code": attempt.get("status"),
            "gone": None if self.gone is None else orjson.dumps(self.gone) if self.gone else "",
            "notice": orjson.dumps(self.exhausted) if self.exhausted else None,
        }
        return item | {name: value for name, value in optional.items() if value is not None}


class Mailbox:
    def __init__(self, redis: Store, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._claim = Script(redis, "claim")
        self._settle = Script(redis, "settle")

    async def claim(self, limit: int, now: int) -> Batch:
        """Up to `limit` deliveries that are due, of each endpoint no more than its concurrency allows."""
        token = secrets.token_hex(8)
        version, next_due, rows, events = await self._claim([self._keys.prefix], [now, limit, token])
        bodies = dict(zip(events[::2], events[1::2], strict=True))
        claims = [
            Claim(
                id=delivery,
                token=token,
                endpoint=endpoint,
                event=event,
                type=type,
                run=run or None,
                attempts=int(attempts),
                tried=int(attempts) - int(base),
                body=bodies[event].encode(),
            )
            for delivery, endpoint, event, type, run, attempts, base in rows
        ]
        return Batch(claims=claims, version=int(version), next_due=int(float(next_due)) if next_due else None)

    async def settle(self, settlements: Sequence[Settlement], now: int) -> list[str]:
        """Record outcomes; for each `ok`, `stale` (somebody else holds it by now), `repeated` or `missing` (removed meanwhile)."""
        if not settlements:
            return []
        packed: bytes = msgpack.packb([settlement.packed() for settlement in settlements], use_bin_type=False)
        return list(await self._settle([self._keys.prefix], [now, packed]))

    async def wait(self, seconds: float) -> None:
        """Return when something may have become due, after `seconds` at the latest."""
        # 0 would mean for ever, and the store counts in milliseconds.
        await self._redis.blpop(self._keys.wake, timeout=max(seconds, 0.001))

    async def wake(self) -> None:
        await self._redis.lpush(self._keys.wake, "1")

    async def longest_waiting(self, now: int) -> int:
        """For how many ms the endpoint that waits longest could have been claimed; 0 if none waits."""
        rows = await self._redis.zrange(self._keys.due, 0, 0, withscores=True)
        return max(now - int(rows[0][1]), 0) if rows else 0


def released(claim: Claim) -> Settlement:
    """Hand a claim back unattempted."""
    return Settlement(claim=claim, verdict=None)
