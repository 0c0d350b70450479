"""An event: something that happened, with an id that is computed from what it was, and the form of its entry in the log."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.units import iso

_IDENTITY = hashlib.blake2b(digest_size=16)
"""Copied for each event: that takes less than making one."""


@dataclass(slots=True)
class Event:
    """Something that happened, in the past tense."""

    id: str
    """`evt_<hash>` of what happened, so the same on every delivery and every re-execution: receivers deduplicate on it."""
    type: str
    """Dot-delimited, for example `job.completed`."""
    timestamp: int
    """When it happened, ms since the epoch."""
    data: dict[str, Any]
    cursor: str = ""
    """The stream id once it is in the log; only a position, never an identity."""

    def document(self) -> dict[str, Any]:
        """The body that subscribers receive: `{type, timestamp, data}`."""
        return {"type": self.type, "timestamp": iso(self.timestamp), "data": self.data}

    def fields(self) -> list[str | bytes]:
        """The entry's field and its value, as the scripts pass them to XADD."""
        return [self.type, told(self.id, self.timestamp, self.data)]

    @staticmethod
    def parse(cursor: str, fields: Sequence[str]) -> "Event":
        """An entry's event, its fields as `fields` gives them."""
        type, id, timestamp, data = _parted(fields)
        return Event(id, type, int(timestamp), orjson.loads(data), cursor)

    @staticmethod
    def unread(cursor: str, fields: Sequence[str]) -> "Event":
        """The same for who need not know what is in it: its data is parsed when it is asked for."""
        return _Unread(cursor, fields)

    @staticmethod
    def type_of(fields: Sequence[str]) -> str:
        """Its type alone, without looking at the rest."""
        return fields[0] if len(fields) == 2 else fields[3]


def _parted(fields: Sequence[str]) -> tuple[str, str, str, str]:
    """Type, id, time and data of an entry."""
    if len(fields) == 2:
        id, timestamp, data = fields[1].split(" ", 2)
        return fields[0], id, timestamp, data
    # Of before 2026-11-26: each was a field of its own.
    _, id, _, type, _, timestamp, _, data = fields
    return type, id, timestamp, data


class _Unread(Event):
    """What makes an attribute on demand is slower in all others."""

    __slots__ = ("_text",)

    def __init__(self, cursor: str, fields: Sequence[str]) -> None:
        self.type, self.id, timestamp, self._text = _parted(fields)
        self.timestamp, self.cursor = int(timestamp), cursor

    def __getattr__(self, name: str) -> Any:
        # `data` until it is set.
        if name != "data":
            raise AttributeError(name)
        self.data = orjson.loads(self._text)
        return self.data


def told(id: str, timestamp: int, data: dict[str, Any]) -> bytes:
    """All of an event but its type, in one piece: each field of an entry costs the store, and who reads it, as much as a short event."""
    return f"{id} {timestamp} ".encode() + orjson.dumps(data)


def event_id(type: str, *identity: object) -> str:
    """The id of an event, computed from what happened: its type with run, step and n, or with queue, job, its timestamp and attempt."""
    return event_id_of("\x1f".join((type, *map(str, identity))))


def event_id_of(text: str) -> str:
    """The same where what happened has been written already, as every job's end is: its parts, with U+001F between them."""
    identity = _IDENTITY.copy()
    identity.update(text.encode())
    return "evt_" + identity.hexdigest()
