"""Lists of deliveries: each record once, in order, whatever is created, settled or removed meanwhile."""

import re
from collections.abc import Callable, Sequence

import msgpack

from webhooks import hashes
from webhooks.criteria import Criteria
from webhooks.errors import InvalidInput
from webhooks.keys import Keys
from webhooks.model import Delivery, DeliveryStatus, Page, delivery_id
from webhooks.scripts import Script, Store

SCAN = 200
MAX_SCANNED = 5_000
"""Records that one page looks at; where few of them match, it is shorter than asked for and has a cursor all the same."""
_CURSOR = re.compile(r"([0-9]{1,15})\.([A-Za-z0-9_]{1,64})")

Position = tuple[int, str]
"""When a delivery was created (ms since the epoch) and its id: where it stands in every index, for good."""


class Listing:
    def __init__(self, redis: Store, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._page = Script(redis, "page")

    async def page(
        self,
        wanted: Criteria,
        *,
        cursor: str | None = None,
        limit: int = 50,
        newest_first: bool = True,
        also: Callable[[Delivery], bool] = lambda record: True,
    ) -> Page[Delivery]:
        """What fits, and passes `also`. Raises InvalidInput where the cursor is none of ours."""
        position = parse_cursor(cursor)
        items: list[Delivery] = []
        scanned, count = 0, limit + 1
        while True:
            found = await self.after(wanted, position, count=count, newest_first=newest_first)
            for place, record in found:
                if record and wanted.fits(record) and also(record):
                    if len(items) == limit:
                        return Page(items=items, next_cursor=_cursor(position))
                    items.append(record)
                position = place
            scanned += len(found)
            if len(found) < count:
                return Page(items=items, next_cursor=None)
            if scanned >= MAX_SCANNED:
                return Page(items=items, next_cursor=_cursor(position))
            count = SCAN

    async def after(
        self, wanted: Criteria, position: Position | None, *, count: int, newest_first: bool = False
    ) -> list[tuple[Position, Delivery | None]]:
        """The next `count` candidates beyond a position, in order, to be tested by `wanted.fits`; fewer: there are no more.

        The record is None where it was removed meanwhile.
        """
        if wanted.event is not None:
            return await self._of_event(wanted, position, count, newest_first)
        indexes = await self._indexes(wanted)
        places = await self._places(indexes, wanted, position, count, newest_first)
        return list(zip(places, await self.read([delivery for _, delivery in places]), strict=True))

    async def read(self, ids: Sequence[str]) -> list[Delivery | None]:
        """The records; None for one that does not exist."""
        rows = await hashes.read(self._redis, map(self._keys.delivery, ids))
        return [Delivery.parse(delivery, fields) if fields else None for delivery, fields in zip(ids, rows, strict=True)]

    async def _places(self, indexes: Sequence[str], wanted: Criteria, position: Position | None, count: int, newest_first: bool) -> list[Position]:
        asked = {
            "indexes": indexes,
            "newest": newest_first,
            "count": count,
            # As text: Lua would write them with an exponent.
            "since": None if wanted.since is None else str(wanted.since),
            "until": None if wanted.until is None else str(wanted.until),
            "after": None if position is None else [str(position[0]), position[1]],
        }
        packed: bytes = msgpack.packb({name: value for name, value in asked.items() if value is not None}, use_bin_type=False)
        rows = await self._page([self._keys.prefix], [packed])
        return sorted(zip(map(int, rows[1::2]), rows[::2], strict=True), reverse=newest_first)[:count]

    async def _indexes(self, wanted: Criteria) -> Sequence[str]:
        """The smallest indexes that have all that is asked for."""
        candidates: list[list[str]] = []
        if wanted.statuses and DeliveryStatus.DELIVERED not in wanted.statuses:
            candidates.append([self._keys.deliveries("status", status.value) for status in sorted(wanted.statuses)])
        if wanted.endpoint is not None:
            candidates.append([self._keys.deliveries("endpoint", wanted.endpoint)])
        if wanted.run is not None:
            candidates.append([self._keys.deliveries("run", wanted.run)])
        if len(candidates) < 2:
            return candidates[0] if candidates else [self._keys.deliveries()]
        async with self._redis.pipeline(transaction=False) as pipe:
            for keys in candidates:
                for key in keys:
                    pipe.zcard(key)
            sizes = iter(await pipe.execute())
        return min(candidates, key=lambda keys: sum(next(sizes) for _ in keys))

    async def _of_event(self, wanted: Criteria, position: Position | None, count: int, newest_first: bool) -> list[tuple[Position, Delivery | None]]:
        """An event needs no index: the ids of its deliveries are computed from those of all endpoints that ever were."""
        assert wanted.event is not None
        endpoints = [wanted.endpoint] if wanted.endpoint is not None else await self._redis.zrange(self._keys.changes, 0, -1)
        ids = [delivery_id(wanted.event, endpoint) for endpoint in endpoints]
        found: list[tuple[Position, Delivery | None]] = []
        for start in range(0, len(ids), SCAN):
            found += [((record.created, record.id), record) for record in await self.read(ids[start : start + SCAN]) if record]
        found.sort(key=lambda one: one[0], reverse=newest_first)
        if position is not None:
            found = [one for one in found if (one[0] < position if newest_first else one[0] > position)]
        return found[:count]


def parse_cursor(cursor: str | None) -> Position | None:
    """Raises InvalidInput."""
    if not cursor:
        return None
    match = _CURSOR.fullmatch(cursor)
    if not match:
        raise InvalidInput("this is not a cursor of the deliveries; use the nextCursor of a page")
    return int(match[1]), match[2]


def _cursor(position: Position | None) -> str | None:
    return None if position is None else f"{position[0]}.{position[1]}"
