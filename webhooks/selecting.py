"""What of an event an endpoint gets: nothing if its filter is not true of it, else the whole body or a thin one."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from webhooks.model import Endpoint, Payload
from webhooks.ports import Compile, Event, Predicate

FILTERED = "filtered"
FAILED = "filter failed: "
"""Begins the reason for what is skipped because the filter can give no answer."""
MAX_REASON = 200
KEPT_FILTERS = 16_384
_IDENTIFIES = re.compile(r"id|ids|\w+(Id|Ids|_id|_ids)|queue|job|workflow|step|n|version|status|endpoint|delivery|eventType")
MAX_TEXT = 256
MAX_ITEMS = 100


class Filters:
    """The filters of all endpoints, each text compiled once."""

    def __init__(self, compile: Compile | None = None) -> None:
        """`compile`: None where this service has no filters."""
        self._compiled = lru_cache(maxsize=KEPT_FILTERS)(compile or _without)

    def check(self, text: str) -> None:
        """Raises ValueError for what is no filter."""
        self._compiled(text)

    def of(self, event: Event) -> "Selection":
        return Selection(event, self._compiled)


class Selection:
    """One event, asked for by many endpoints: what several of them need is made once."""

    def __init__(self, event: Event, compiled: Compile) -> None:
        self._document = event.document()
        self._about = {"id": event.id, **self._document}
        self._compiled = compiled
        self._reasons: dict[str, str | None] = {}
        self._bodies: dict[Payload, bytes] = {}

    def skipped(self, endpoint: Endpoint) -> str | None:
        """Why the endpoint does not get the event; None if it does."""
        text = endpoint.filter
        if text is None:
            return None
        if text not in self._reasons:
            self._reasons[text] = _reason(self._compiled, text, self._about)
        return self._reasons[text]

    def body(self, payload: Payload) -> bytes:
        """What is sent, and signed."""
        if payload not in self._bodies:
            document = self._document if payload is Payload.FULL else self._document | {"data": thin(self._document["data"])}
            self._bodies[payload] = orjson.dumps(document)
        return self._bodies[payload]


def thin(data: Mapping[str, Any]) -> dict[str, Any]:
    """Only what identifies: numbers, truth values and short texts named `id`, `…Id`, `…_id`, lists of them named `ids`, `…Ids`, `…_ids`, and what
    says which job, step or delivery it is about and how that stands. Nothing inside of other objects.
    """
    return {name: value for name, value in data.items() if _IDENTIFIES.fullmatch(name) and _is_short(value)}


def _is_short(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= MAX_ITEMS and not any(isinstance(item, list) or not _is_short(item) for item in value)
    return len(value) <= MAX_TEXT if isinstance(value, str) else not isinstance(value, dict)


def _reason(compiled: Compile, text: str, event: Mapping[str, Any]) -> str | None:
    try:
        predicate: Predicate = compiled(text)
        return None if predicate(event) else FILTERED
    except Exception as error:
        # Whatever is wrong with one filter, also one that an earlier version accepted, the fan-out goes on with all others.
        return (FAILED + str(error))[:MAX_REASON]


def _without(text: str) -> Predicate:
    raise ValueError("this service has no filters")
