"""The mailboxes of all endpoints: claim what is due under a lease, settle what came of it."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgpack
import orjson

from webhooks.backoff import Off, Receiver, Verdict
from webhooks.keys import Keys
from webhooks.model import OWN, run_of
from webhooks.scripts import Script, Store

LEASE_MS = 30_000
"""How long a claimed delivery stays with its dispatcher; longer where the endpoint's timeout asks for it."""
LEASE_MARGIN_MS = 15_000
"""How much longer than the attempt itself a lease lasts at least: the time to record it."""
RELEASED = "released"
WAIT_SECONDS = 1.0


def lease_for(timeout: int) -> int:
    """ms of lease that an attempt of at most `timeout` ms needs."""
    return max(LEASE_MS, timeout + LEASE_MARGIN_MS)


# Not frozen, as is Settlement: there is one per attempt, and freezing is most of what it costs.
@dataclass(kw_only=True, slots=True)
class Claim:
    """A delivery to be attempted now, by us alone until its lease runs out."""

    id: str
    lease: str
    """When it runs out, ms since the epoch, up to a second at random included: this claim's own, so that it also is what allows to settle."""
    endpoint: str
    event: str
    type: str
    run: str | None
    attempts: int
    """Made so far, in all."""
    tried: int
    """Made so far in this round of the schedule."""
    body: bytes
    line: str | None = None
    """Where its endpoint wants an order: its place in it; see `ordering.py`."""
    retry: bool
    """Whether it was taken from the retries, of which a dispatcher has only so many under way."""

    @property
    def untried(self) -> bool:
        """Whether it waited as prelude.lua's `untried` says."""
        return self.attempts == 0 and self.line is None and not self.retry


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    claims: list[Claim]
    version: int
    """Of the endpoints, when this was claimed."""
    next_due: int | None
    """When something can next be claimed, ms since the epoch."""


@dataclass(kw_only=True, slots=True)
class Settlement:
    """What came of a claim."""

    claim: Claim
    verdict: Verdict | None
    """None: not attempted, hand it back."""
    attempt: dict[str, Any] | None = None
    """An `Attempt` without its number; see `sender.Outcome`."""
    due: int | None = None
    hold_until: int | None = None
    endpoint_version: int = 0
    receiver: Receiver | None = None
    """What the attempt says about it; None: nothing, it was not asked."""
    refusal: bool = False
    """It is too busy and did not say for how long."""
    off: Off | None = None
    """It wants nothing any more."""
    reason: str | None = None
    """Why the delivery is exhausted, where that is not the schedule's end."""
    about: dict[str, Any] | None = None
    """What an event about this says; None: there shall be none."""

    def packed(self) -> list[Any] | dict[str, Any]:
        """As settle.lua reads it: a success short, for there are the most of them."""
        attempt = self.attempt or {}
        code, record = str(attempt.get("status") or ""), orjson.dumps(attempt)
        if self.verdict is Verdict.DELIVERED and not self.off:
            return [self.claim.id, self.claim.lease, code, record, *([self.claim.line] if self.claim.line else [])]
        item = {
            "id": self.claim.id,
            "lease": self.claim.lease,
            "line": self.claim.line,
            "verdict": self.verdict.value if self.verdict else RELEASED,
            "retry": int(self.claim.retry),
            "event": self.claim.event if not self.verdict and self.claim.untried else None,
            "version": self.endpoint_version,
            "began": attempt.get("at"),
            "receiver": self.receiver and self.receiver.value,
            "refusal": self.refusal or None,
            "off": self.off and self.off.value,
            "hold": self.hold_until,
            "due": self.due,
            "reason": self.reason,
            "code": code,
            "attempt": record,
            "about": self.about and orjson.dumps(self.about),
            "own": self.claim.type.startswith(OWN) or None,
        }
        return {name: value for name, value in item.items() if value is not None}


class Mailbox:
    def __init__(self, redis: Store, keys: Keys, *, disable_after: int = 0, dispatcher: str = "") -> None:
        """`disable_after`: ms without a success after which an endpoint is disabled; 0: never."""
        self.dispatcher = dispatcher
        """The `Presence.id` of who claims."""
        self._redis = redis
        self._keys = keys
        self._disable_after = disable_after
        self._waiting: asyncio.Future[Any] | None = None
        self._nudged: asyncio.Future[None] | None = None
        """Done: a settlement of ours has made something claimable since we claimed."""
        self.claiming = False
        """Whether this process claims again and again: what it settles then makes room for itself, without a message through the store."""
        self._claim = Script(redis, "claim")
        self._settle = Script(redis, "health", "settle")

    async def claim(self, limit: int, now: int, *, retries: int | None = None) -> Batch:
        """Up to `limit` deliveries that are due, `retries` of them retries (None: all), of each endpoint no more than its concurrency allows."""
        self._nudged = None
        most = limit if retries is None else min(retries, limit)
        version, next_due, rounds, events = await self._claim([self._keys.prefix], [now, limit, most, secrets.token_hex(8), self.dispatcher])
        contents = dict(zip(events[::2], map(_content, events[1::2]), strict=True))
        claims = [_claim(contents, endpoint, lease, retry, *row) for endpoint, lease, retry, *rows in rounds for row in rows]
        return Batch(claims=claims, version=int(version), next_due=int(next_due) if next_due else None)

    async def settle(self, settlements: Sequence[Settlement], now: int) -> list[str]:
        """Record outcomes; for each `ok`, `stale` (somebody else holds it by now), `repeated` or `missing` (removed meanwhile)."""
        if not settlements:
            return []
        packed = [one.packed() for one in settlements]
        groups: dict[str, tuple[list[int], list[int]]] = {}
        for place, (one, item) in enumerate(zip(settlements, packed, strict=True)):
            delivered, others = groups.setdefault(one.claim.endpoint, ([], []))
            if isinstance(item, dict):
                item["after"] = len(delivered)
                others.append(place)
            else:
                delivered.append(place)
        batch = [(endpoint, *([packed[place] for place in kind] for kind in kinds)) for endpoint, kinds in groups.items()]
        arguments = [now, self._disable_after, "1" if self.claiming else "", msgpack.packb(batch, use_bin_type=False)]
        *answers, sooner = await self._settle([self._keys.prefix], arguments)
        if sooner and self.claiming:
            self._nudge()
        places = (place for kinds in groups.values() for kind in kinds for place in kind)
        found = dict(zip(places, chain.from_iterable(answers), strict=True))
        return [found[place] for place in range(len(settlements))]

    async def wait(self, seconds: float) -> None:
        """Return when something may have become due, after `seconds` at the latest.

        The time is measured here: the store ends a wait of its own up to 100 ms late. What a wait that outlives its caller brings is
        the next one's.
        """
        self._waiting = self._waiting or asyncio.ensure_future(self._redis.blpop(self._keys.wake, timeout=WAIT_SECONDS))
        self._nudged = self._nudged or asyncio.get_running_loop().create_future()
        await asyncio.wait((self._waiting, self._nudged), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._waiting.done():
            waiting, self._waiting = self._waiting, None
            await waiting

    def _nudge(self) -> None:
        self._nudged = self._nudged or asyncio.get_running_loop().create_future()
        if not self._nudged.done():
            self._nudged.set_result(None)

    async def rest(self) -> None:
        """Wait no longer: a marker is for somebody who has room."""
        waiting, self._waiting = self._waiting, None
        if waiting:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def wake(self) -> None:
        await self._redis.lpush(self._keys.wake, "1")

    async def longest_waiting(self, now: int) -> int:
        """For how many ms the endpoint that waits longest with fresh deliveries could have been claimed; 0 if none waits."""
        rows = await self._redis.zrange(self._keys.due, 0, 0, withscores=True)
        return max(now - int(rows[0][1]), 0) if rows else 0


_Content = tuple[bytes, str, str | None]
"""An event's body, type and run."""


def _content(text: str) -> _Content:
    document = orjson.loads(text) if text else {}
    return text.encode(), document.get("type", ""), run_of(document.get("data", {}))


def _claim(
    contents: Mapping[str, _Content],
    endpoint: str,
    lease: str,
    retry: int,
    delivery: str,
    event: str,
    attempts: str = "0",
    base: str = "0",
    line: str = "",
) -> Claim:
    """A row of claim.lua's reply."""
    body, type, run = contents[event]
    return Claim(
        id=delivery,
        lease=lease,
        endpoint=endpoint,
        event=event,
        type=type,
        run=run,
        attempts=int(attempts),
        tried=int(attempts) - int(base),
        body=body,
        line=line or None,
        retry=retry == 1,
    )


def released(claim: Claim) -> Settlement:
    """Hand a claim back unattempted."""
    return Settlement(claim=claim, verdict=None)
