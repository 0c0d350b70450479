"""What a process knows of the endpoints: all of them, kept up to date by what has changed since."""

from webhooks import hashes, records
from webhooks.keys import Keys
from webhooks.matching import Router
from webhooks.model import Endpoint
from webhooks.scripts import Store

PER_READ = 500
FORGOTTEN = ""
"""Stands among the changes for deletions that are no longer there, with the version of the last of them."""


class Directory:
    def __init__(self, redis: Store, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._endpoints: dict[str, Endpoint] = {}
        self._router = Router()
        self.version = 0
        """Of the endpoints as we know them."""

    async def refresh(self) -> set[str]:
        """Read what has changed since the last time; returns which endpoints have, or are gone."""
        version = int(await self._redis.get(self._keys.version) or 0)
        changed = await self._redis.zrange(self._keys.changes, f"({self.version}", "+inf", byscore=True)
        gone = set[str]()
        # Beneath what we know: the store was emptied, or restored from a backup.
        if version < self.version or FORGOTTEN in changed:
            changed = await self._redis.zrange(self._keys.changes, 0, -1)
            gone = self._endpoints.keys() - set(changed)
        for endpoint in gone:
            self._put(endpoint, {})
        for start in range(0, len(changed), PER_READ):
            ids = changed[start : start + PER_READ]
            for endpoint, fields in zip(ids, await hashes.read(self._redis, map(self._keys.endpoint, ids)), strict=True):
                self._put(endpoint, fields)
        # The version from before the reading: what changed during it is read again, not missed.
        self.version = version
        return gone.union(changed)

    @property
    def empty(self) -> bool:
        """Whether there are no endpoints, as far as we know."""
        return not self._endpoints

    def get(self, endpoint: str) -> Endpoint | None:
        return self._endpoints.get(endpoint)

    def route(self, type: str) -> list[Endpoint]:
        """Those that want an event of this type, whatever their status."""
        return [self._endpoints[endpoint] for endpoint in self._router.route(type)]

    def _put(self, endpoint: str, fields: dict[str, str]) -> None:
        self._router.drop(endpoint)
        self._endpoints.pop(endpoint, None)
        if not fields:
            return
        self._endpoints[endpoint] = records.parse(endpoint, fields)
        self._router.put(endpoint, self._endpoints[endpoint].types)
