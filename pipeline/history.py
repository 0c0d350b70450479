"""The event log looked back on, as the webhooks explain and repair by it: `webhooks.ports.History`."""

from collections.abc import Sequence
from datetime import datetime

import orjson

from pipeline.errors import Gone
from pipeline.jobs.calls import now_ms
from pipeline.store.connection import Store
from pipeline.store.event import Event
from pipeline.store.keys import Keys
from pipeline.store.log import Log

SEARCHED = 200_000
"""Entries that the search for one id goes through: half a second of the store's time, in small parts."""
PER_RUN = 1_000
"""Events of a run that are looked at."""
PAGE = 500
PAGES_PER_RUN = 20
SLACK_MS = 1_000
"""Between an event and its entry in the log: clocks differ."""
_LAST = 2**63 - 1


class History:
    def __init__(self, redis: Store, keys: Keys, log: Log, group: str) -> None:
        """`group`: the consumer group of the fan-out."""
        self._redis = redis
        self._keys = keys
        self._log = log
        self._group = group

    async def find(self, event: str) -> Event | None:
        return await self._log.find(event, most=SEARCHED)

    async def of_run(self, run: str) -> Sequence[Event]:
        """From its timeline, which outlives the log, and from the log of that time, which has its jobs' events too."""
        rows = [orjson.loads(row) for row in await self._redis.lrange(self._keys.timeline(run), 0, PER_RUN - 1)]
        if not rows:
            return []
        told = [Event(id=row["id"], type=row["type"], timestamp=_ms(row["timestamp"]), data=row["data"]) for row in rows]
        logged = await self._of_run_in_log(run, told[0].timestamp, told[-1].timestamp)
        found = {event.id: event for event in told} | {event.id: event for event in logged}
        return sorted(found.values(), key=lambda event: event.timestamp)[:PER_RUN]

    async def after(self, cursor: str, *, limit: int) -> Sequence[Event]:
        try:
            return await self._log.after(cursor, limit=limit)
        except Gone:
            return await self._log.after("", limit=limit)

    def cursor_at(self, at: int) -> str:
        return f"{max(at - 1, 0)}-{_LAST}"

    async def start(self) -> int | None:
        earliest = await self._log.earliest()
        return None if earliest is None else int(earliest.partition("-")[0])

    async def fanned_out(self, cursor: str) -> bool:
        return await self._log.acknowledged(self._group, cursor)

    async def behind(self) -> int:
        return (await self._log.behind(now_ms())).get(self._group, 0)

    async def _of_run_in_log(self, run: str, first: int, last: int) -> list[Event]:
        found: list[Event] = []
        cursor = self.cursor_at(first - SLACK_MS)
        for _ in range(PAGES_PER_RUN):
            page = await self.after(cursor, limit=PAGE)
            found += [event for event in page if event.data.get("runId") == run]
            if len(page) < PAGE or page[-1].timestamp > last + SLACK_MS:
                break
            cursor = page[-1].cursor
        return found


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
