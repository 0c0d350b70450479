"""What a processor may return, and how it is written."""

import math
from typing import Any

import orjson
from pydantic import BaseModel

from pipeline.errors import PermanentFailure

RESULT_LIMIT = 64 * 1024
"""Bytes of JSON: a result is copied into the job, the run, the event log and every webhook."""

_JSON = frozenset({dict, list, str, int, float, bool})
_PLAIN = frozenset({str, int, bool, type(None)})


def check_result(value: Any) -> str:
    """The result as JSON.

    Raises PermanentFailure for one that is not JSON (a set, a NaN, a key that is no string …) or larger than RESULT_LIMIT:
    another attempt would return the same.
    """
    if value is None:
        return "null"
    # Asking whether something is a model costs more than writing it.
    if type(value) not in _JSON and isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True)
    try:
        # orjson writes NaN as null and knows types that JSON does not: what a subscriber gets would silently differ.
        if (wrong := _not_json(value, "result", 0)) is not None:
            raise PermanentFailure(f"the processor's result is not JSON: {wrong}")
        text = orjson.dumps(value)
    except (TypeError, ValueError) as error:
        raise PermanentFailure(f"the processor's result is not JSON: {error}") from error
    if len(text) > RESULT_LIMIT:
        raise PermanentFailure(
            f"the processor's result has {len(text):,} bytes of JSON; the limit is {RESULT_LIMIT:,} (64 KiB): "
            "put bulk into the storage and return its path"
        )
    return text.decode()


_DEEPEST = 100
_WIDEST = RESULT_LIMIT
"""More items than bytes are allowed need not be looked at."""


def _not_json(value: Any, path: str, depth: int) -> str | None:
    """Where and why a value is not JSON; None if it is."""
    if value is None or isinstance(value, (str, int)):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{path} is {value}, which JSON cannot say"
    if depth >= _DEEPEST:
        return f"{path[:200]} is nested more than {_DEEPEST} deep"
    if isinstance(value, (list, tuple)):
        return next((wrong for n, item in enumerate(value[:_WIDEST]) if (wrong := _not_json(item, f"{path}[{n}]", depth + 1))), None)
    if isinstance(value, dict):
        for n, (key, item) in enumerate(value.items()):
            if n > _WIDEST:
                break
            if not isinstance(key, str):
                return f"{path} has the key {key!r}, which is no text"
            # Most items are: none of them needs a path.
            if type(item) in _PLAIN:
                continue
            if wrong := _not_json(item, f"{path}.{key}", depth + 1):
                return wrong
        return None
    return f"{path} is a {type(value).__name__}"
