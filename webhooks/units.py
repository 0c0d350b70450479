"""Durations, rates and times as the wire carries them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h|d)")
_RATE = re.compile(r"([0-9]{1,6})\s*/\s*(\S+)")
MAX_RATE_MS = 24 * 3_600_000
_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` in `per` ms; written `100/1m`."""

    count: int
    per: int

    def __str__(self) -> str:
        return f"{self.count}/{format_duration(self.per)}"


def parse_rate(text: object) -> Rate:
    """Of `100/1m`, also `100/m`. Raises ValueError for what is none, or has a time of less than 1 s or more than a day."""
    if isinstance(text, Rate):
        return text
    match = _RATE.fullmatch(text.strip()) if isinstance(text, str) else None
    per = match and (match[2] if match[2][:1].isdigit() else f"1{match[2]}")
    try:
        rate = Rate(int(match[1]), parse_duration(per)) if match else None
    except ValueError:
        rate = None
    if rate is None or rate.count < 1 or not 1_000 <= rate.per <= MAX_RATE_MS:
        raise ValueError(f"{text!r} is not a rate; write a number, a slash and a time from 1s to 1d, for example 100/1m")
    return rate


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


def ms(text: object) -> int:
    """ms since the epoch of an ISO-8601 time with a zone. Raises ValueError."""
    try:
        time = datetime.fromisoformat(text)  # type: ignore[arg-type]  # what is no text is no time
    except (TypeError, ValueError):
        raise ValueError(f"{text!r} is not a time; write one like 2026-01-31T09:00:00Z") from None
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no zone; add Z or an offset")
    try:
        return round(time.astimezone(UTC).timestamp() * 1000)
    except OverflowError:
        raise ValueError(f"{text!r} lies outside the years 1 to 9999 of UTC") from None
