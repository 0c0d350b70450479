"""Durations and sizes as people write them (`2s`, `5m`, `64KiB`), and times as the wire carries them."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s?(B|KiB|MiB|GiB|kB|MB|GB)")
_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_duration(text: object) -> int:
    """Milliseconds of `500ms`, `2s`, `1.5h`, `7d`.

    Raises ValueError for anything without a unit: a bare number is a mistake waiting to happen.
    """
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match:
        raise ValueError(f"{text!r} is not a duration; write a number with a unit (ms, s, m, h, d), for example 30s")
    return round(float(match[1]) * _MS[match[2]])


def format_duration(ms: int) -> str:
    """The shortest exact writing of a duration: `90000` → `90s`, `3600000` → `1h`."""
    for unit in ("d", "h", "m", "s"):
        if ms and ms % _MS[unit] == 0:
            return f"{ms // _MS[unit]}{unit}"
    return f"{ms}ms" if ms else "0s"


def parse_size(text: object) -> int:
    """Bytes of `64KiB`, `1MiB`, `100 MB`. Raises ValueError for anything without a unit."""
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match:
        raise ValueError(f"{text!r} is not a size; write a number with a unit (B, KiB, MiB, GiB), for example 64KiB")
    return round(float(match[1]) * _BYTES[match[2]])


def format_size(size: int) -> str:
    """A size for people, to one decimal: `1.1 GiB`, `512 MiB`, `900 B`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size >= _BYTES[unit]:
            return f"{size / _BYTES[unit]:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"


@lru_cache(maxsize=1024)
def iso(ms: int) -> str:
    """ISO-8601 UTC with milliseconds, as every time on the wire is written: `2026-01-31T09:30:00.000Z`."""
    return f"{_second(ms // 1000)}.{ms % 1000:03}Z"


# Of a thousand runs under way each has its own millisecond, but few have their own second.
@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


Duration = Annotated[
    int,
    BeforeValidator(lambda value: value if type(value) is int and value == 0 else parse_duration(value)),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "pattern": f"^({_DURATION.pattern})$", "examples": ["30s"]}),
]
"""A pydantic field written as a duration in configuration and held in milliseconds."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(lambda size: f"{size}B"),
    WithJsonSchema({"type": "string", "pattern": f"^({_SIZE.pattern})$", "examples": ["64KiB"]}),
]
"""A pydantic field written as a size in configuration and held in bytes."""
