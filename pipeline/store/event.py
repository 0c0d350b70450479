"""An event: something that happened, with an id that is computed from what it was, and the form of its entry in the log."""

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.units import iso

_IDENTITY = hashlib.blake2b(digest_size=16)
"""Copied for each event: that takes less than making one."""


@dataclass(kw_only=True, slots=True)
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

    def fields(self) -> list[str]:
        """The entry's fields, flat, as the scripts pass them to XADD."""
        return ["id", self.id, "type", self.type, "ts", str(self.timestamp), "data", orjson.dumps(self.data).decode()]

    @staticmethod
    def parse(cursor: str, fields: dict[str, str]) -> "Event":
        """An entry's event."""
        return _Entry(cursor, fields)


class _Entry(Event):
    """An event as it was read: its data is parsed when somebody asks for it, which of most entries nobody does."""

    __slots__ = ("_text",)

    def __init__(self, cursor: str, fields: dict[str, str]) -> None:
        self.id, self.type, self.timestamp, self._text, self.cursor = fields["id"], fields["type"], int(fields["ts"]), fields["data"], cursor

    def __getattr__(self, name: str) -> Any:
        # `data` until it is set.
        if name != "data":
            raise AttributeError(name)
        self.data = orjson.loads(self._text)
        return self.data


def event_id(type: str, *identity: object) -> str:
    """The id of an event, computed from what happened: its type with run, step and n, or with queue, job, its timestamp and attempt."""
    return event_id_of("\x1f".join((type, *map(str, identity))))


def event_id_of(text: str) -> str:
    """The same where what happened has been written already, as every job's end is: its parts, with U+001F between them."""
    identity = _IDENTITY.copy()
    identity.update(text.encode())
    return "evt_" + identity.hexdigest()
