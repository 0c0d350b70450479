"""Durations and times as the wire carries them."""

import re
from datetime import UTC, datetime

_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h|d)")
_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_duration(text: object) -> int:
    """Milliseconds of `500ms`, `2s`, `1.5h`. Raises ValueError for anything without a unit."""
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


def iso(ms: int) -> str:
    """ISO-8601 UTC with milliseconds: `2026-01-31T09:30:00.000Z`."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
