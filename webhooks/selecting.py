"""What of an event an endpoint gets: nothing if its filter is not true of it, else the whole body or a thin one."""

import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import orjson

from webhooks.model import Endpoint, Payload
from webhooks.ports import Compile, Event, Predicate

FILTERED = "filtered"
FAILED = "filter failed: "
"""Begins the reason for what is skipped because the filter can give no answer."""
MAX_REASON = 200
KEPT_FILTERS = 16_384
KEPT_BODIES = 1_024
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
    """One event, which many endpoints may want: the same filter is asked once."""

    def __init__(self, event: Event, compiled: Compile) -> None:
        self._event = event
        self._compiled = compiled
        self._reasons: dict[str, str | None] = {}

    def skipped(self, endpoint: Endpoint) -> str | None:
        """Why the endpoint does not get the event; None if it does."""
        text = endpoint.filter
        if text is None:
            return None
        if text not in self._reasons:
            self._reasons[text] = self._reason(text)
        return self._reasons[text]

    @cached_property
    def _about(self) -> dict[str, Any]:
        return {"id": self._event.id, **self._event.document()}

    def _reason(self, text: str) -> str | None:
        try:
            predicate: Predicate = self._compiled(text)
            return None if predicate(self._about) else FILTERED
        except Exception as error:
            # Whatever is wrong with one filter, also one that an earlier version accepted, the fan-out goes on with all others.
            return (FAILED + str(error))[:MAX_REASON]


class Bodies:
    """What is sent of an event, and signed: its body, or a thin one, which is made once while many endpoints get it."""

    def __init__(self) -> None:
        self._thin: dict[str, bytes] = {}

    def of(self, event: str, body: bytes, payload: Payload) -> bytes:
        """`event` is its id, `body` the full one."""
        if payload is Payload.FULL:
            return body
        if event not in self._thin:
            if len(self._thin) >= KEPT_BODIES:
                del self._thin[next(iter(self._thin))]
            self._thin[event] = body_of(orjson.loads(body), payload)
        return self._thin[event]


def body_of(document: Mapping[str, Any], payload: Payload) -> bytes:
    """Of `{type, timestamp, data}`."""
    return orjson.dumps(document if payload is Payload.FULL else {**document, "data": thin(document["data"])})


def thin(data: Mapping[str, Any]) -> dict[str, Any]:
    """Only what identifies: numbers, truth values and short texts named `id`, `…Id`, `…_id`, lists of them named `ids`, `…Ids`, `…_ids`, and what
    says which job, step or delivery it is about and how that stands. Nothing inside of other objects.
    """
    return {name: value for name, value in data.items() if _IDENTIFIES.fullmatch(name) and _is_short(value)}


def _is_short(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= MAX_ITEMS and not any(isinstance(item, list) or not _is_short(item) for item in value)
    return len(value) <= MAX_TEXT if isinstance(value, str) else not isinstance(value, dict)


def _without(text: str) -> Predicate:
    raise ValueError("this service has no filters")
