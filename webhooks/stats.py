"""How an endpoint fares: what is counted of its attempts, and what waits for it."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import orjson
import structlog

from webhooks import hashes
from webhooks.keys import Keys
from webhooks.scripts import Script, Store
from webhooks.stubborn import STORE_ERRORS
from webhooks.tally import Counts, Tally, merged, percentile
from webhooks.units import iso

FLUSH_SECONDS = 5.0
"""What is counted in this time is lost with a process that is killed; the records are not."""
PER_SCRIPT = 100
PER_READ = 100
SHOWN = 1_000
"""Endpoints that have metrics of their own; the others are one."""
HOUR_SLOTS, HOUR_MS = 12, 300_000
DAY_SLOTS, DAY_MS = 24, 3_600_000
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    delivered: int
    failed: int
    exhausted: int
    buckets: Mapping[int, int]

    def document(self) -> dict[str, Any]:
        return {
            "delivered": self.delivered,
            "failed": self.failed,
            "exhausted": self.exhausted,
            "p50Ms": percentile(self.buckets, 0.5),
            "p99Ms": percentile(self.buckets, 0.99),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    pending: int
    """Not under way."""
    under_way: int
    oldest_due: int | None
    """ms since the one was due that waits longest; None where none is due."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    endpoint: str
    waiting: Waiting
    hour: Period
    day: Period
    total: Counts

    def document(self) -> dict[str, Any]:
        total = self.total
        return {
            "endpoint": self.endpoint,
            "pending": self.waiting.pending,
            "inFlight": self.waiting.under_way,
            "oldestDueMs": self.waiting.oldest_due,
            "lastHour": self.hour.document(),
            "lastDay": self.day.document(),
            "total": {"delivered": total.delivered, "failed": total.failed, "exhausted": total.exhausted},
            "lastSuccessAt": iso(total.last_success) if total.last_success else None,
            "lastFailureAt": iso(total.last_failure) if total.last_failure else None,
        }


class Statistics:
    def __init__(self, redis: Store, keys: Keys, clock: Callable[[], int]) -> None:
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self._script = Script(redis, "stats")

    async def of(self, endpoint: str) -> Stats:
        """Of an endpoint that exists."""
        (fields,), (waiting,) = await asyncio.gather(self.counted([endpoint]), self.waiting([endpoint]))
        now = self._clock()
        return Stats(
            endpoint=endpoint,
            waiting=waiting,
            hour=_period(fields, "m", range(now // HOUR_MS - HOUR_SLOTS + 1, now // HOUR_MS + 1)),
            day=_period(fields, "h", range(now // DAY_MS - DAY_SLOTS + 1, now // DAY_MS + 1)),
            total=_total(fields),
        )

    async def totals(self, endpoints: Sequence[str]) -> list[Counts]:
        return [_total(fields) for fields in await self.counted(endpoints)]

    async def counted(self, endpoints: Sequence[str]) -> list[dict[str, str]]:
        return [fields for part in _parts(endpoints) for fields in await hashes.read(self._redis, map(self._keys.stats, part))]

    async def waiting(self, endpoints: Sequence[str]) -> list[Waiting]:
        return [one for part in _parts(endpoints) for one in await self._waiting(part)]

    async def _waiting(self, endpoints: Sequence[str]) -> list[Waiting]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for endpoint in endpoints:
                for waits in (self._keys.mailbox(endpoint), self._keys.retries(endpoint)):
                    pipe.zcard(waits)
                    pipe.zrange(waits, 0, 0, withscores=True)
                pipe.zcard(self._keys.leases(endpoint))
            rows = await pipe.execute()
        now = self._clock()
        found = []
        for fresh, fresh_head, retries, retries_head, under_way in zip(*(rows[n::5] for n in range(5)), strict=True):
            due = [now - int(head[0][1]) for head in (fresh_head, retries_head) if head and head[0][1] <= now]
            found.append(Waiting(pending=fresh + retries, under_way=under_way, oldest_due=max(due, default=None)))
        return found

    async def standing(self, endpoints: Sequence[str]) -> dict[str, tuple[str, bool]]:
        """Endpoint → its status, and whether its breaker is open or half-open; without those that are gone."""
        found: dict[str, tuple[str, bool]] = {}
        for part in _parts(endpoints):
            async with self._redis.pipeline(transaction=False) as pipe:
                for endpoint in part:
                    pipe.hmget(self._keys.endpoint(endpoint), "status", "openUntil")
                found |= {
                    endpoint: (status, bool(open_until)) for endpoint, (status, open_until) in zip(part, await pipe.execute(), strict=True) if status
                }
        return found

    # --- what a process has counted ---------------------------------------------------------------------------------

    async def run(self, tally: Tally, stop: asyncio.Event) -> None:
        """Add what is counted to the store every few seconds; what is left at the stop, the caller flushes."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await stop.wait()
                    return
            try:
                await self.flush(tally)
            except Exception:
                log.exception("attempts could not be counted")

    async def flush(self, tally: Tally) -> None:
        counts = list(tally.take().items())
        for start in range(0, len(counts), PER_SCRIPT):
            try:
                await self.add(counts[start : start + PER_SCRIPT])
            except STORE_ERRORS as error:
                # Counts are not worth a memory that grows while the store is away.
                log.warning("attempts go uncounted while the store is away", error=str(error))

    async def add(self, counts: Iterable[tuple[str, Counts]]) -> None:
        packed: bytes = msgpack.packb([[endpoint, *one.packed()] for endpoint, one in counts], use_bin_type=False)
        await self._script([self._keys.prefix], [self._clock(), secrets.token_hex(8), SHOWN, packed])


def _parts(endpoints: Sequence[str]) -> Iterator[Sequence[str]]:
    """Few enough that reading them holds nobody else up."""
    for start in range(0, len(endpoints), PER_READ):
        yield endpoints[start : start + PER_READ]


def _total(fields: Mapping[str, str]) -> Counts:
    return Counts(
        delivered=int(fields.get("delivered") or 0),
        failed=int(fields.get("failed") or 0),
        exhausted=int(fields.get("exhausted") or 0),
        ms=int(fields.get("ms") or 0),
        last_success=int(fields.get("lastSuccess") or 0),
        last_failure=int(fields.get("lastFailure") or 0),
        buckets=_buckets(orjson.loads(fields.get("buckets") or "[]")),
    )


def _period(fields: Mapping[str, str], name: str, numbers: range) -> Period:
    """What the slots of this name with these numbers hold together."""
    slots = [orjson.loads(text) for field, text in fields.items() if field[0] == name and field[1:].isdigit()]
    slots = [slot for slot in slots if slot[0] in numbers]
    delivered, failed, exhausted = (sum(slot[n] for slot in slots) for n in (1, 2, 3))
    return Period(delivered=delivered, failed=failed, exhausted=exhausted, buckets=merged(_buckets(slot[4]) for slot in slots))


def _buckets(flat: Sequence[int]) -> dict[int, int]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
