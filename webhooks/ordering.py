"""In which line a delivery stands where its endpoint wants an order, and where in it."""

import hashlib

import orjson

from webhooks.ports import Event

HASH = 16
"""Hexadecimal digits; prelude.lua knows the number."""


def line_of(path: str | None, event: Event) -> str | None:
    """The ordering key hashed, and the event's place in the log, such that places sort as texts; None where there is nothing to order by.

    `path` is the endpoint's, for example `data.documentId`. An event that lacks the key, or has null there, stands in no line.
    """
    if path is None:
        return None
    value: object = {"id": event.id, **event.document()}
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return None
    key = hashlib.blake2b(path.encode() + b"\x1f" + orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=HASH // 2).hexdigest()
    ms, _, sequence = event.cursor.partition("-")
    return f"{key}{int(ms or 0):012x}{int(sequence or 0):08x}"
