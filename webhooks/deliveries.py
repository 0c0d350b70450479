"""The deliveries as they are looked at: lists, one with its attempts; and how long they are kept."""

from collections.abc import Callable
from typing import Any

import orjson

from webhooks.criteria import criteria
from webhooks.errors import NotFound
from webhooks.keys import Keys
from webhooks.listing import Listing
from webhooks.model import Attempt, Delivery, Page
from webhooks.scripts import Script, Store

SWEEP = 200


class Deliveries:
    def __init__(self, redis: Store, keys: Keys, retention: int, clock: Callable[[], int]) -> None:
        """`retention`: ms after its end that a delivery is kept; what is pending is kept for as long as that lasts."""
        self._redis = redis
        self._keys = keys
        self._retention = retention
        self._clock = clock
        self._sweep = Script(redis, "sweep")
        self.listing = Listing(redis, keys)

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
        self, *, status: str | None = None, type: str | None = None, cursor: str | None = None, limit: int = 50, **more: str | int | None
    ) -> Page[Delivery]:
        """Newest first. `type` may be a pattern (`job.*`); what else can be asked for is in `Criteria`. Raises InvalidInput."""
        wanted = criteria(statuses=() if status is None else (status,), types=() if type is None else (type,), **more)  # type: ignore[arg-type]
        return await self.listing.page(wanted, cursor=cursor, limit=limit)

    async def known_since(self) -> int:
        """ms since the epoch: of what was created before, the record may have been and be gone; also as retention was before it was changed."""
        return max(self._clock() - self._retention, int(await self._redis.get(self._keys.swept) or 0))

    async def sweep(self) -> int:
        """Remove some of what ended longer ago than it is kept; returns how many, 0 when there is nothing left to do."""
        return int(await self._sweep([self._keys.prefix], [self._clock() - self._retention, SWEEP]))
