"""The deliveries as they are looked at: lists by what is asked for, one with its attempts; and how long they are kept."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from webhooks.errors import InvalidInput, NotFound
from webhooks.keys import Keys
from webhooks.matching import check_pattern, matches
from webhooks.model import Attempt, Delivery, DeliveryStatus, Page
from webhooks.scripts import Script, Store
from webhooks.sender import Outcome

SCAN = 200
MAX_SCANNED = 5_000
"""Records that one page looks at; where few of them match, it is shorter than asked for and has a cursor all the same."""
SWEEP = 200
_CREATED = re.compile(r"[0-9]{1,15}")


def attempt_record(outcome: Outcome, now: int) -> dict[str, Any]:
    """An attempt as it is stored; its number is its place."""
    return {
        "at": now,
        "duration": outcome.duration,
        "status": outcome.status,
        "error": outcome.error,
        "response": outcome.response,
        "address": outcome.address,
    }


class Deliveries:
    def __init__(self, redis: Store, keys: Keys, retention: int, clock: Callable[[], int]) -> None:
        """`retention`: ms after its end that a delivery is kept; what is pending is kept for as long as that lasts."""
        self._redis = redis
        self._keys = keys
        self._retention = retention
        self._clock = clock
        self._sweep = Script(redis, "sweep")

    async def get(self, delivery: str) -> Delivery:
        """Raises NotFound."""
        fields = await self._redis.hgetall(self._keys.delivery(delivery))
        if not fields:
            raise NotFound(f"there is no delivery {delivery}, or it is no longer kept")
        return Delivery.parse(delivery, fields)

    async def attempts(self, delivery: str) -> list[Attempt]:
        """Oldest first, the last 50."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hget(self._keys.delivery(delivery), "attempts")
            pipe.lrange(self._keys.attempts(delivery), 0, -1)
            count, rows = await pipe.execute()
        first = int(count or 0) - len(rows) + 1
        # The number is in those that earlier versions wrote, and the same.
        return [Attempt(**(orjson.loads(row) | {"number": number})) for number, row in enumerate(rows, first)]

    async def document(self, delivery: str) -> dict[str, Any]:
        """A delivery with its attempts, as the API shows it. Raises NotFound."""
        record = await self.get(delivery)
        return {**record.document(), "attempts": [attempt.document() for attempt in await self.attempts(delivery)]}

    async def body(self, event: str) -> bytes | None:
        """What was or will be sent for an event."""
        body = await self._redis.get(self._keys.body(event)) or await self._redis.hget(self._keys.event(event), "body")
        return None if body is None else str(body).encode()

    async def list(
        self,
        *,
        status: str | None = None,
        endpoint: str | None = None,
        type: str | None = None,
        since: int | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Delivery]:
        """Newest first. `type` may be a pattern (`job.*`), `since` is ms since the epoch. Raises InvalidInput."""
        wanted = _status(status)
        if type is not None:
            try:
                check_pattern(type)
            except ValueError as error:
                raise InvalidInput(f"type: {error}") from error
        index = await self._index(wanted, endpoint)
        start, score, after = await self._start(index, cursor)
        items: list[Delivery] = []
        last: str | None = None
        for scanned in range(0, MAX_SCANNED, SCAN):
            rows = await self._redis.zrevrange(index, start + scanned, start + scanned + SCAN - 1, withscores=True)
            fresh = [(delivery, int(created)) for delivery, created in rows if not (int(created) == score and delivery >= after)]
            for record, (delivery, created) in zip(await self._read([row[0] for row in fresh]), fresh, strict=True):
                if since is not None and created < since:
                    return Page(items=items, next_cursor=None)
                if record and _fits(record, wanted, endpoint, type):
                    if len(items) == limit:
                        return Page(items=items, next_cursor=last)
                    items.append(record)
                last = f"{created}.{delivery}"
            if len(rows) < SCAN:
                return Page(items=items, next_cursor=None)
        return Page(items=items, next_cursor=last)

    async def sweep(self) -> int:
        """Remove some of what ended longer ago than it is kept; returns how many, 0 when there is nothing left to do."""
        return int(await self._sweep([self._keys.prefix], [self._clock() - self._retention, SWEEP]))

    async def _index(self, status: DeliveryStatus | None, endpoint: str | None) -> str:
        """The smallest sorted set that has all that is asked for."""
        candidates = []
        if status and status is not DeliveryStatus.DELIVERED:
            candidates.append(self._keys.deliveries("status", status.value))
        if endpoint:
            candidates.append(self._keys.deliveries("endpoint", endpoint))
        if not candidates:
            return self._keys.deliveries()
        async with self._redis.pipeline(transaction=False) as pipe:
            for key in candidates:
                pipe.zcard(key)
            sizes = await pipe.execute()
        return min(zip(sizes, candidates, strict=True))[1]

    async def _start(self, index: str, cursor: str | None) -> tuple[int, int, str]:
        """Where to go on, and up to which `(created, id)` everything was seen."""
        if not cursor:
            return 0, -1, ""
        created, _, delivery = cursor.partition(".")
        if not _CREATED.fullmatch(created) or not delivery:
            raise InvalidInput("this is not a cursor of the deliveries; use the nextCursor of a page")
        rank = await self._redis.zrevrank(index, delivery)
        if rank is None:
            # It left this index meanwhile (delivered, say): go on from its time, leaving out what came before it.
            rank = int(await self._redis.zcount(index, f"({created}", "+inf")) - 1
        return rank + 1, int(created), delivery

    async def _read(self, ids: Sequence[str]) -> Sequence[Delivery | None]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for delivery in ids:
                pipe.hgetall(self._keys.delivery(delivery))
            rows = await pipe.execute()
        return [Delivery.parse(delivery, fields) if fields else None for delivery, fields in zip(ids, rows, strict=True)]


def _status(text: str | None) -> DeliveryStatus | None:
    if text is None:
        return None
    try:
        return DeliveryStatus(text)
    except ValueError:
        raise InvalidInput(f"status: {text!r} is none; there are {', '.join(DeliveryStatus)}") from None


def _fits(record: Delivery, status: DeliveryStatus | None, endpoint: str | None, type: str | None) -> bool:
    return (
        (status is None or record.status is status)
        and (endpoint is None or record.endpoint == endpoint)
        and (type is None or matches([type], record.type))
    )
