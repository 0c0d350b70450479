"""Replays of many deliveries: each a record that says what is sent again and how far that is."""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from webhooks import hashes
from webhooks.candidates import END, SCAN, Asked, Candidate, Candidates
from webhooks.endpoints import Endpoints
from webhooks.errors import Conflict, InvalidInput, NotFound
from webhooks.inputs import NewReplay, parse
from webhooks.keys import Keys
from webhooks.model import DeliveryStatus, EndpointStatus, Page
from webhooks.scripts import Script, Store
from webhooks.units import iso, ms, parse_rate

MAX_COUNTED = 200_000
"""Records and entries that a dry run looks at."""
SAMPLE = 10
PER_FORGET = 100
DEFAULT_STATUSES = ("exhausted", "skipped")


class ReplayStatus(StrEnum):
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayRecord:
    """One replay and how far it is."""

    id: str
    asked: Asked
    status: ReplayStatus
    reason: str | None
    """Why it was cancelled, where that was not a person's decision."""
    position: str
    """See `candidates.py`."""
    matched: int
    """Found so far."""
    replayed: int
    skipped: int
    """Found, but pending or gone when their turn came."""
    paid: float
    """For the rate; see `pacing.py`."""
    started: int
    finished: int | None

    @property
    def reached(self) -> int | None:
        """Up to which time (ms since the epoch) the records, then the log, were looked through; None at their beginning."""
        if self.position == END:
            return self.asked.until
        place = self.position.partition(":")[2]
        return int(re.split("[.-]", place)[0]) if place else None

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "endpoint": self.asked.endpoint,
            "status": self.status.value,
            "reason": self.reason,
            "asked": self.asked.document(),
            "matched": self.matched,
            "replayed": self.replayed,
            "skipped": self.skipped,
            "reachedAt": None if self.reached is None else iso(self.reached),
            "startedAt": iso(self.started),
            "finishedAt": None if self.finished is None else iso(self.finished),
        }

    @classmethod
    def parse(cls, replay: str, fields: Mapping[str, str]) -> "ReplayRecord":
        asked = orjson.loads(fields["asked"])
        return cls(
            id=replay,
            asked=Asked(
                endpoint=fields["endpoint"],
                since=ms(asked["since"]),
                until=ms(asked["until"]),
                statuses=tuple(map(DeliveryStatus, asked["status"])),
                types=tuple(asked["types"]),
                missing=asked["missing"],
                rate=parse_rate(asked["rate"]) if asked["rate"] else None,
            ),
            status=ReplayStatus(fields["status"]),
            reason=fields["reason"] or None,
            position=fields["position"],
            matched=int(fields["matched"]),
            replayed=int(fields["replayed"]),
            skipped=int(fields["skipped"]),
            paid=float(fields["paid"]),
            started=int(fields["started"]),
            finished=int(fields["finished"]) if fields["finished"] else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """What a replay would send again."""

    count: int
    complete: bool
    """Whether everything was looked at; if not, there may be more."""
    sample: list[Candidate]
    """The first few."""
    oldest: int | None
    newest: int | None
    """ms since the epoch."""

    def document(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "complete": self.complete,
            "sample": [candidate.document() for candidate in self.sample],
            "oldest": None if self.oldest is None else iso(self.oldest),
            "newest": None if self.newest is None else iso(self.newest),
        }


class Replays:
    def __init__(self, redis: Store, keys: Keys, endpoints: Endpoints, candidates: Candidates, clock: Callable[[], int]) -> None:
        self._redis = redis
        self._keys = keys
        self._endpoints = endpoints
        self._candidates = candidates
        self._clock = clock
        self._script = Script(redis, "replays")

    async def create(self, endpoint: str, document: Mapping[str, Any]) -> ReplayRecord | DryRun:
        """Begin a replay, or only count what it would send again (`dryRun`).

        Raises InvalidInput, NotFound, and Conflict where the endpoint is disabled or has a replay running.
        """
        given = parse(NewReplay, document)
        now = self._clock()
        statuses = given.status if given.status is not None else () if given.missing else DEFAULT_STATUSES
        if not statuses and not given.missing:
            raise InvalidInput("nothing is asked for: give status, or missing", hint='for example {"status": ["exhausted"]}')
        until = now if given.until is None else min(given.until, now)
        if given.since > until:
            raise InvalidInput("since: lies after until, or in the future")
        asked = Asked(
            endpoint=endpoint, since=given.since, until=until, statuses=tuple(map(DeliveryStatus, statuses)), types=given.types,
            missing=given.missing, rate=given.rate,
        )  # fmt: skip
        if given.dryRun:
            return await self._count(asked)
        if (await self._endpoints.get(endpoint)).status is EndpointStatus.DISABLED:
            raise Conflict(f"{endpoint} is disabled", hint="enable the endpoint first")
        replay = "rpl_" + secrets.token_hex(10)
        running = await self._script([self._keys.prefix], [now, "create", replay, endpoint, orjson.dumps(asked.document()), asked.start])
        if running != replay:
            raise Conflict(f"{running} is sending deliveries of {endpoint} again", hint="wait for its end, or cancel it")
        return await self.get(replay)

    async def get(self, replay: str) -> ReplayRecord:
        """Raises NotFound."""
        fields = await self._redis.hgetall(self._keys.replay(replay))
        if not fields:
            raise NotFound(f"there is no replay {replay}, or it is no longer kept")
        return ReplayRecord.parse(replay, fields)

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[ReplayRecord]:
        """Newest first. Raises InvalidInput where the cursor is none of ours."""
        start = 0
        if cursor:
            rank = await self._redis.zrevrank(self._keys.replays, cursor)
            if rank is None:
                raise InvalidInput("this cursor names no replay that is kept; list again from the start")
            start = rank + 1
        ids = await self._redis.zrevrange(self._keys.replays, start, start + limit)
        rows = await hashes.read(self._redis, map(self._keys.replay, ids[:limit]))
        items = [ReplayRecord.parse(replay, fields) for replay, fields in zip(ids, rows, strict=False) if fields]
        return Page(items=items, next_cursor=ids[limit - 1] if len(ids) > limit else None)

    async def cancel(self, replay: str) -> ReplayRecord:
        """What was sent again already stays so. Raises NotFound, and Conflict where it has ended (cancelling twice is no error)."""
        await self._script([self._keys.prefix], [self._clock(), "cancel", replay, ""])
        ended = await self.get(replay)
        if ended.status is ReplayStatus.DONE:
            raise Conflict(f"{replay} is done")
        return ended

    async def forget(self, retention: int) -> None:
        """Remove the records of replays that ended, and began longer ago than this (ms)."""
        while await self._script([self._keys.prefix], [self._clock(), "forget", self._clock() - retention, PER_FORGET]):
            pass

    async def _count(self, asked: Asked) -> DryRun:
        endpoint = await self._endpoints.get(asked.endpoint)
        count, sample = 0, list[Candidate]()
        times: list[int] = []
        position, looked_at = asked.start, 0
        while position != END and looked_at < MAX_COUNTED:
            step = await self._candidates.step(asked, endpoint, position, SCAN)
            count += len(step.found)
            sample += step.found[: SAMPLE - len(sample)]
            times = [*times, *(candidate.at for candidate in step.found)]
            times = [min(times), max(times)] if times else []
            position = step.position
            looked_at += SCAN
        return DryRun(count=count, complete=position == END, sample=sample, oldest=times[0] if times else None, newest=times[-1] if times else None)
