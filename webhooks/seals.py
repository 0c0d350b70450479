"""Which endpoints have something sealed with a former encryption key, and sealing it again, so that the key can be dropped."""

from collections import Counter
from collections.abc import Callable, Sequence

from webhooks import hashes, records
from webhooks.errors import MissingKey
from webhooks.keyring import Keyring
from webhooks.keys import Keys
from webhooks.scripts import Script, Store

PER_READ = 200


class Seals:
    """Remembers what it has seen: the first look reads all endpoints, a later one those that changed since."""

    def __init__(self, redis: Store, keys: Keys, keyring: Keyring, clock: Callable[[], int]) -> None:
        self._redis = redis
        self._keys = keys
        self._keyring = keyring
        self._clock = clock
        self._script = Script(redis, "reseal")
        self._version = 0
        """Of the endpoints as we have seen them."""
        self._former: dict[str, set[str]] = {}
        """Endpoint → ids of the former keys that it needs."""

    async def look(self) -> Counter[str]:
        """How many endpoints need which former key, by the key's id; nothing: every former key can be dropped."""
        version = int(await self._redis.get(self._keys.version) or 0)
        if version < self._version:
            # The store was emptied, or restored from a backup.
            self._version = 0
            self._former.clear()
        changed = await self._redis.zrange(self._keys.changes, f"({self._version}", "+inf", byscore=True, withscores=True)
        for start in range(0, len(changed), PER_READ):
            batch = changed[start : start + PER_READ]
            await self._read([endpoint for endpoint, _ in batch])
            self._version = int(batch[-1][1])
        # Sealing again is no change: what another process has done shows only here.
        known = list(self._former)
        for start in range(0, len(known), PER_READ):
            await self._read(known[start : start + PER_READ])
        return Counter(key for needed in self._former.values() for key in needed)

    async def warnings(self) -> list[str]:
        """For the operator: each former key that is still needed, also one that is not configured."""
        return [
            f"secrets of {count} endpoints are encrypted with the former key {key}: keep it until they are encrypted again"
            if self._keyring.knows(key)
            else f"secrets of {count} endpoints are encrypted with the key {key}, which is not configured: nothing can be sent to them"
            for key, count in sorted((await self.look()).items())
        ]

    async def renew(self) -> int:
        """Seal again what can be opened; returns of how many endpoints.

        One at a time and if nobody changes it meanwhile; whatever stops this leaves each endpoint as it was or done, and the rest to the
        next call, here or in another process.
        """
        await self.look()
        return sum([await self._renew(endpoint) for endpoint in list(self._former)])

    async def _read(self, ids: Sequence[str]) -> None:
        for endpoint, fields in zip(ids, await hashes.read(self._redis, map(self._keys.endpoint, ids)), strict=True):
            former = self._keyring.former(records.parse(endpoint, fields), self._clock()) if fields else set()
            if former:
                self._former[endpoint] = former
            else:
                self._former.pop(endpoint, None)

    async def _renew(self, endpoint: str) -> bool:
        fields = await self._redis.hgetall(self._keys.endpoint(endpoint))
        if not fields:
            return False
        definition = fields["definition"]
        try:
            for former, current in self._keyring.renewals(records.parse(endpoint, fields), self._clock()):
                # In the text, so that what a newer version of this service has written beside it stays.
                definition = definition.replace(former, current)
        except MissingKey:
            return False
        return bool(await self._script([self._keys.prefix], [endpoint, fields["definition"], definition]))
