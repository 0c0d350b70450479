"""How full the store is: above one mark new runs and events are refused, above another no job is fetched; finishing always goes on."""

import time

from pipeline.store.connection import Store

REFUSE_NEW = 0.70
PAUSE_FETCHING = 0.85


class Memory:
    """The share of `maxmemory` in use, asked for at most once a second; 0 where there is no limit."""

    def __init__(self, redis: Store) -> None:
        self._redis = redis
        self._share = 0.0
        self._asked = 0.0

    async def share(self) -> float:
        now = time.monotonic()
        if now - self._asked >= 1.0:
            self._asked = now
            info = await self._redis.info("memory")
            limit = int(info.get("maxmemory") or 0)
            self._share = int(info["used_memory"]) / limit if limit else 0.0
        return self._share
