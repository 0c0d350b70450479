"""The event log: one Redis Stream that the workflow engine and the webhook fan-out read as consumer groups."""

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.units import iso


@dataclass(frozen=True, kw_only=True, slots=True)
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

    @classmethod
    def parse(cls, cursor: str, fields: dict[str, str]) -> "Event":
        return cls(id=fields["id"], type=fields["type"], timestamp=int(fields["ts"]), data=orjson.loads(fields["data"]), cursor=cursor)


def event_id(type: str, *identity: object) -> str:
    """The id of an event, computed from what happened: its type with run, step and n, or with queue, job, its timestamp and attempt."""
    text = "\x1f".join((type, *map(str, identity)))
    return "evt_" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
