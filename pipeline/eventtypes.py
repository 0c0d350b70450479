"""Event types of a team's own: registered in the store, and what is published held against them."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from pipeline import schemas
from pipeline.catalogue import RESERVED
from pipeline.errors import Conflict, Fault, InvalidInput, NotFound, TooLarge
from pipeline.store.connection import Store
from pipeline.store.keys import Keys
from pipeline.store.scripts import Script
from pipeline.yamlsource import suggestion

MAX_TYPES = 500
MAX_DESCRIPTION = 500
MAX_DATA = 262_144
"""Bytes of an event's `data` as JSON."""
QUICK = 16_384
"""Bytes of data that are checked at once; what is larger is checked beside the event loop."""
_TYPE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")

_PUT = Script("""
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return -1 end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """A type as it was registered."""

    type: str
    description: str
    schema: Mapping[str, Any] | None
    """JSON Schema (2020-12) of its `data`; None: whatever."""
    example: Mapping[str, Any] | None
    updated: int
    """When it was registered last, ms since the epoch."""
    schema_text: bytes | None


def check_type(text: str) -> None:
    """Raises ValueError for what cannot be a type of one's own."""
    if len(text) > 128 or not _TYPE.fullmatch(text):
        raise ValueError("must be segments of A-Z a-z 0-9 _ joined by dots, for example invoice.paid")
    if f"{text}.".startswith(RESERVED):
        reserved = f"{', '.join(RESERVED[:-1])} or {RESERVED[-1]}"
        raise ValueError(f"must not begin with {reserved}: those are Hookline's own")


class EventTypes:
    """Read from the store each time, so that every process goes by what was registered last; compiled once for each text."""

    def __init__(self, redis: Store, keys: Keys, *, strict: bool) -> None:
        """`strict`: only registered types may be published."""
        self._redis = redis
        self._key = keys.event_types
        self._strict = strict
        self._aside = asyncio.Lock()

    async def all(self) -> list[Registered]:
        """By name."""
        return [_parse(type, text) for type, text in sorted((await self._redis.hgetall(self._key)).items())]

    async def get(self, type: str) -> Registered:
        """Raises NotFound."""
        text = await self._redis.hget(self._key, type)
        if text is None:
            raise NotFound(f"the event type {type!r} is not registered")
        return _parse(type, text)

    async def put(
        self, type: str, *, description: str, schema: Mapping[str, Any] | None, example: Mapping[str, Any] | None, now: int
    ) -> tuple[Registered, bool]:
        """Register a type, or replace what was; and whether it is new. Raises InvalidInput with every fault, Conflict where there are too many."""
        try:
            check_type(type)
        except ValueError as error:
            raise InvalidInput(f"the event type {type!r} {error}") from error
        if len(orjson.dumps(example)) > schemas.MAX_BYTES:
            raise TooLarge(f"the example has more than {schemas.MAX_BYTES:,} bytes as JSON")
        text = orjson.dumps({"description": description, "schema": schema, "example": example, "updated": now}).decode()
        registered = _parse(type, text)
        faults = [_below("schema", fault) for fault in schemas.check(schema)] if schema is not None else []
        if not faults and registered.schema_text and example is not None:
            faults = [_below("example", fault) for fault in schemas.faults(registered.schema_text, example)]
        if faults:
            raise InvalidInput(f"the {faults[0].path.split('.')[0]} does not fit: {faults[0].message}", faults=tuple(faults))
        added = int(await _PUT(self._redis, [self._key], [type, text, MAX_TYPES]))
        if added < 0:
            raise Conflict(f"there are {MAX_TYPES} event types already", hint="delete those that are no longer published")
        return registered, added > 0

    async def delete(self, type: str) -> None:
        """Raises NotFound."""
        await self.get(type)
        await self._redis.hdel(self._key, type)

    async def check(self, events: Sequence[tuple[str, Mapping[str, Any]]], at: Sequence[str]) -> None:
        """Whether events, as type and data, may be published; `at` says where each stands in the request.

        Raises TooLarge, and InvalidInput with every fault.
        """
        sizes = [len(orjson.dumps(data)) for _, data in events]
        for where, size in zip(at, sizes, strict=True):
            if size > MAX_DATA:
                said = f"has {size:,} bytes as JSON; an event has at most {MAX_DATA:,}"
                path = f"{where}.data" if where else "data"
                hint = "publish what identifies it, and let receivers fetch the rest"
                raise TooLarge(f"{path} {said}", faults=(Fault(path, said),), hint=hint)
        known = await self._known({type for type, _ in events})
        if sum(sizes) <= QUICK:
            faults = _faults(events, at, known)
        else:
            # One at a time: several threads would leave the loop too small a share of the interpreter.
            async with self._aside:
                faults = await asyncio.to_thread(_faults, events, at, known)
        if self._strict:
            faults += await self._unknown(events, at, known)
        if faults:
            raise InvalidInput(f"the data does not fit its type: {faults[0]}", faults=tuple(faults), hint="GET /api/events/types has the schemas")

    async def _known(self, types: set[str]) -> dict[str, Registered]:
        names = sorted(types)
        texts = await self._redis.hmget(self._key, names)
        return {type: _parse(type, text) for type, text in zip(names, texts, strict=True) if text is not None}

    async def _unknown(self, events: Sequence[tuple[str, Mapping[str, Any]]], at: Sequence[str], known: Mapping[str, Registered]) -> list[Fault]:
        missing = [(type, where) for (type, _), where in zip(events, at, strict=True) if type not in known]
        names = list(await self._redis.hkeys(self._key)) if missing else []
        return [
            Fault(
                f"{where}.type" if where else "type", f"the type {type!r} is not registered, which `events.strict` asks for{suggestion(type, names)}"
            )
            for type, where in missing[: schemas.MAX_FAULTS]
        ]


def _faults(events: Sequence[tuple[str, Mapping[str, Any]]], at: Sequence[str], known: Mapping[str, Registered]) -> list[Fault]:
    found: list[Fault] = []
    for (type, data), where in zip(events, at, strict=True):
        schema = known[type].schema_text if type in known else None
        if schema is not None:
            found += [_below(f"{where}.data" if where else "data", fault) for fault in schemas.faults(schema, data)]
        if len(found) >= schemas.MAX_FAULTS:
            break
    return found[: schemas.MAX_FAULTS]


def _below(where: str, fault: Fault) -> Fault:
    joint = "" if not fault.path or fault.path.startswith("[") else "."
    return Fault(f"{where}{joint}{fault.path}", fault.message)


@lru_cache(maxsize=1024)
def _parse(type: str, text: str) -> Registered:
    stored = orjson.loads(text)
    schema = stored["schema"]
    return Registered(
        type=type,
        description=stored["description"],
        schema=schema,
        example=stored["example"],
        updated=stored["updated"],
        schema_text=None if schema is None else orjson.dumps(schema),
    )
