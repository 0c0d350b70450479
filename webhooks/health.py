"""How an endpoint does: its breaker, what it failed, and until when it is left alone. The rules are in health.lua."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from webhooks.units import iso


class Breaker(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    """Nothing is sent: too many attempts in a row failed."""
    HALF_OPEN = "half-open"
    """One attempt at a time finds out whether it is well again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """All times in ms since the epoch; None where there is none."""

    failures: int = 0
    """Attempts in a row that failed."""
    failing_since: int | None = None
    """When the first attempt after the last success began."""
    last_success: int | None = None
    open_until: int | None = None
    """Of the breaker; it stays once it is over, until a probe succeeds."""
    held_until: int | None = None
    """The receiver asked for quiet."""

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> "Health":
        ill = orjson.loads(fields["health"]) if fields.get("health") else {}
        return cls(
            failures=ill.get("failures", 0),
            failing_since=ill.get("failingSince"),
            last_success=_time(fields, "lastSuccess"),
            open_until=_time(fields, "openUntil"),
            held_until=_time(fields, "heldUntil"),
        )

    def breaker(self, now: int) -> Breaker:
        if self.open_until is None:
            return Breaker.CLOSED
        return Breaker.OPEN if now < self.open_until else Breaker.HALF_OPEN

    def document(self, now: int) -> dict[str, Any]:
        return {
            "state": self.breaker(now).value,
            "failures": self.failures,
            "failingSince": _shown(self.failing_since),
            "lastSuccessAt": _shown(self.last_success),
            "openUntil": _shown(self.open_until),
            "heldUntil": _shown(self.held_until if self.held_until and self.held_until > now else None),
        }


def _time(fields: Mapping[str, str], name: str) -> int | None:
    return int(fields[name]) if fields.get(name) else None


def _shown(time: int | None) -> str | None:
    return None if time is None else iso(time)
