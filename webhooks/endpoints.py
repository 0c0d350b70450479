"""The endpoints: created, listed, changed and deleted by API, declared by config.yaml."""

import secrets as random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from webhooks import hashes, records
from webhooks.errors import Conflict, InvalidInput, NotFound, ReadOnly
from webhooks.guard import Guard
from webhooks.inputs import DEFAULT_OVERLAP_MS, Declared, EndpointChanges, NewEndpoint, Rotation, parse
from webhooks.keyring import MAX_SECRETS, Keyring
from webhooks.keys import Keys
from webhooks.mailbox import lease_for
from webhooks.model import Endpoint, EndpointStatus, Page
from webhooks.scripts import Script, Store
from webhooks.selecting import Filters
from webhooks.signing import generate_secret

ORPHANS = 500
REMOVED = "it was removed from config.yaml"
_MAX_TRIES = 20


class Endpoints:
    def __init__(self, redis: Store, keys: Keys, guard: Guard, keyring: Keyring, filters: Filters, clock: Callable[[], int]) -> None:
        self._redis = redis
        self._keys = keys
        self._guard = guard
        self.keyring = keyring
        self._filters = filters
        self._clock = clock
        self._script = Script(redis, "endpoints")

    # --- read -------------------------------------------------------------------------------------------------------

    async def get(self, endpoint: str) -> Endpoint:
        """Raises NotFound."""
        fields = await self._redis.hgetall(self._keys.endpoint(endpoint))
        if not fields:
            raise NotFound(f"there is no endpoint {endpoint}")
        return records.parse(endpoint, fields)

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[Endpoint]:
        """Oldest first. Raises InvalidInput where the cursor is not one of ours."""
        start = 0
        if cursor:
            rank = await self._redis.zrank(self._keys.endpoints, cursor)
            if rank is None:
                raise InvalidInput("this cursor names no endpoint, or it was deleted since; list again from the start")
            start = rank + 1
        ids = await self._redis.zrange(self._keys.endpoints, start, start + limit)
        rows = await hashes.read(self._redis, map(self._keys.endpoint, ids[:limit]))
        items = [records.parse(endpoint, fields) for endpoint, fields in zip(ids, rows, strict=False) if fields]
        return Page(items=items, next_cursor=ids[limit - 1] if len(ids) > limit else None)

    # --- by API -----------------------------------------------------------------------------------------------------

    async def create(self, document: Mapping[str, Any]) -> tuple[Endpoint, str]:
        """The endpoint and its secret, which is not shown again. Raises InvalidInput, RefusedAddress."""
        given = parse(NewEndpoint, document, self._filters)
        await self._guard.check_url(given.url)
        endpoint = self._new("ep_" + random.token_hex(10), given, "api")
        secret = given.secret.get_secret_value() if given.secret else generate_secret()
        saved = await self._save(self.keyring.first(endpoint, secret))
        if saved is None:
            raise Conflict("an endpoint with this id exists already; try again")
        return saved, secret

    async def patch(self, endpoint: str, document: Mapping[str, Any]) -> Endpoint:
        """Raises InvalidInput, RefusedAddress, NotFound, ReadOnly."""
        changes = parse(EndpointChanges, document, self._filters)
        if changes.url is not None:
            await self._guard.check_url(changes.url)
        given = {name: getattr(changes, name) for name in changes.model_fields_set}
        if "headers" in given:
            given |= self.keyring.sealed_headers(endpoint, given["headers"])
        return await self._change(endpoint, lambda present: replace(_writable(present), **given))

    async def delete(self, endpoint: str) -> None:
        """Its pending deliveries end as skipped: some at once, of very many the rest in the upkeep. Raises NotFound, ReadOnly."""
        present = await self.get(endpoint)
        if not present.removed:
            _writable(present)
        await self._script([self._keys.prefix], [self._clock(), "delete", endpoint])
        await self._bury(endpoint)

    async def enable(self, endpoint: str) -> Endpoint:
        """What its mailbox holds goes on at once. Raises NotFound, and Conflict for one that is no longer in config.yaml."""

        def enabled(present: Endpoint) -> Endpoint:
            if present.removed:
                raise Conflict(f"{endpoint} {REMOVED.removeprefix('it ')}; add it there again")
            return replace(present, status=EndpointStatus.ENABLED, reason=None)

        return await self._change(endpoint, enabled)

    async def pause(self, endpoint: str) -> Endpoint:
        """Hold its deliveries until it is enabled again; events go on filling its mailbox. Raises NotFound."""
        return await self._change(
            endpoint, lambda present: present if present.removed else replace(present, status=EndpointStatus.PAUSED, reason=None)
        )

    async def rotate_secret(self, endpoint: str, document: Mapping[str, Any] | None = None) -> tuple[Endpoint, str]:
        """A secret of `{secret?, overlap?}` or a new one, which is not shown again; a key pair is replaced too.

        Raises InvalidInput, NotFound, ReadOnly, and Conflict where so many overlap that one would have to go before its time.
        """
        given = parse(Rotation, document or {})
        secret = given.secret.get_secret_value() if given.secret else generate_secret()

        def rotated(present: Endpoint) -> Endpoint:
            wanted = self.keyring.rotated(_writable(present), secret, self._clock(), given.overlap)
            if max(len(wanted.secrets), len(wanted.pairs)) > MAX_SECRETS:
                raise Conflict(f"{MAX_SECRETS} secrets of {endpoint} sign already", hint="wait until one has ended, or give a shorter overlap (0s)")
            return wanted

        return await self._change(endpoint, rotated), secret

    # --- by config.yaml ---------------------------------------------------------------------------------------------

    async def declare(self, declared: Sequence[Declared]) -> None:
        """Make the endpoints of config.yaml what it says, and pause those that it no longer names.

        Raises InvalidInput or RefusedAddress, before anything is changed, naming the endpoint.
        """
        wanted = {one.id: one.checked(self._filters) for one in declared}
        if len(wanted) < len(declared):
            raise InvalidInput("two endpoints of config.yaml have the same id")
        for endpoint, given in wanted.items():
            try:
                await self._guard.check_url(given.url)
            except InvalidInput as error:
                raise type(error)(f"the endpoint {endpoint}: {error.message}", hint=error.hint) from None
        for endpoint, given in wanted.items():
            await self._declare(endpoint, given)
        for endpoint in await self._redis.zrange(self._keys.endpoints, 0, -1):
            if endpoint not in wanted:
                await self._withdraw(endpoint)

    async def _declare(self, endpoint: str, given: NewEndpoint) -> None:
        assert given.secret
        secret = given.secret.get_secret_value()
        fresh = self.keyring.first(self._new(endpoint, given, "config"), secret)

        def declared(present: Endpoint) -> Endpoint:
            # Its state is not the file's business, but for the pause that its removal from the file caused.
            status, reason = (EndpointStatus.ENABLED, None) if present.removed else (present.status, present.reason)
            kept = replace(
                fresh, created=present.created, version=present.version, secrets=present.secrets, pairs=present.pairs, status=status, reason=reason
            )
            if given.headers == self.keyring.headers(present):
                # Sealing differs each time; the same headers are no change.
                kept = replace(kept, headers=present.headers)
            return kept if self.keyring.holds(present, secret) else self.keyring.rotated(kept, secret, self._clock(), DEFAULT_OVERLAP_MS)

        if await self._save(fresh) is None:
            await self._change(endpoint, declared)

    async def _withdraw(self, endpoint: str) -> None:
        def withdrawn(present: Endpoint) -> Endpoint:
            if present.source != "config" or present.removed:
                return present
            return replace(present, removed=True, status=EndpointStatus.PAUSED, reason=REMOVED)

        try:
            await self._change(endpoint, withdrawn)
        except NotFound:
            return  # deleted meanwhile

    # --- upkeep -----------------------------------------------------------------------------------------------------

    async def bury(self) -> None:
        """Mark what deleted endpoints had pending as skipped, in steps; a crash leaves the rest to the next call."""
        for endpoint in await self._redis.smembers(self._keys.orphans):
            while await self._bury(endpoint):
                pass

    # --- within -----------------------------------------------------------------------------------------------------

    async def _bury(self, endpoint: str) -> int:
        """Returns how many were marked."""
        return int(await self._script([self._keys.prefix], [self._clock(), "orphan", endpoint, ORPHANS]))

    def _new(self, endpoint: str, given: NewEndpoint, source: str) -> Endpoint:
        return Endpoint(
            id=endpoint,
            url=given.url,
            types=given.types,
            secrets=(),
            schedule=given.schedule,
            timeout=given.timeout,
            concurrency=given.concurrency,
            rate=given.rate,
            ordering=given.ordering,
            filter=given.filter,
            payload=given.payload,
            asymmetric=given.asymmetric,
            description=given.description,
            source=source,
            created=self._clock(),
            since=self._clock(),
            **self.keyring.sealed_headers(endpoint, given.headers),
        )

    async def _change(self, endpoint: str, change: Callable[[Endpoint], Endpoint]) -> Endpoint:
        """Apply a change to what the endpoint is at present, again where somebody else was quicker."""
        for _ in range(_MAX_TRIES):
            present = await self.get(endpoint)
            wanted = change(present)
            if wanted == present:
                return present
            since = present.since if wanted.status is present.status else self._clock()
            # What a receiver asked for and failed is not another URL's; and a person who changes the status has looked at it.
            anew = (wanted.url, wanted.status) != (present.url, present.status)
            if saved := await self._save(replace(wanted, since=since), anew=anew):
                return saved
        raise Conflict(f"{endpoint} is being changed by others all the time; try again")

    async def _save(self, endpoint: Endpoint, *, anew: bool = True) -> Endpoint | None:
        """Write it, if it still has the version that it was read with; None if not."""
        endpoint = self.keyring.completed(endpoint, self._clock())
        version = await self._script(
            [self._keys.prefix],
            [
                self._clock(), "save", endpoint.id, endpoint.version, records.definition(endpoint), endpoint.created,
                endpoint.concurrency, lease_for(endpoint.timeout), endpoint.status.value, endpoint.reason or "", random.token_hex(8),
                f"{endpoint.rate.count}/{endpoint.rate.per}" if endpoint.rate else "", endpoint.since or "",
                "1" if anew else "",
            ],
        )  # fmt: skip
        return None if int(version) < 0 else replace(endpoint, version=int(version))


def _writable(endpoint: Endpoint) -> Endpoint:
    if endpoint.source == "config":
        raise ReadOnly(f"{endpoint.id} is declared in config.yaml", hint="change it there and restart the service")
    return endpoint
