"""Which endpoints want an event: exact types, `job.*` and `*`, looked up without visiting every endpoint."""

import re
from collections.abc import Iterable, Sequence

OPT_IN = frozenset({"job.progress"})
"""Types so frequent that no pattern matches them; who wants one names it."""
MAX_TYPES = 50
_TYPE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_PATTERN = re.compile(r"([A-Za-z0-9_]+\.)*([A-Za-z0-9_]+|\*)")


def check_pattern(pattern: str) -> None:
    """Raises ValueError, saying how to mend it, for what is neither a type nor a type that ends in `*`."""
    if len(pattern) > 128:
        raise ValueError("is longer than 128 characters")
    if _PATTERN.fullmatch(pattern):
        return
    if "*" in pattern[:-1] or (pattern.endswith("*") and not pattern.endswith(".*")):
        raise ValueError(f"{pattern!r}: `*` stands only at the end and for whole segments, as in `job.*` or `*`")
    raise ValueError(f"{pattern!r} is not an event type; write letters, digits and _ in segments divided by dots, as in `job.completed`")


def matches(patterns: Iterable[str], type: str) -> bool:
    """Whether any of the patterns matches a type; `*` stands for one or more segments."""
    return not _candidates(type).isdisjoint(patterns)


def _candidates(type: str) -> set[str]:
    """Every pattern that would match this type."""
    if type in OPT_IN:
        return {type}
    segments = type.split(".")
    return {type, "*", *(".".join(segments[:end]) + ".*" for end in range(1, len(segments)))}


class Router:
    """Patterns of many endpoints, answering for one type in time that does not depend on how many do not want it."""

    def __init__(self) -> None:
        self._by_pattern: dict[str, set[str]] = {}
        self._patterns: dict[str, tuple[str, ...]] = {}

    def put(self, endpoint: str, patterns: Sequence[str]) -> None:
        """Replace what an endpoint wants."""
        self.drop(endpoint)
        self._patterns[endpoint] = tuple(patterns)
        for pattern in patterns:
            self._by_pattern.setdefault(pattern, set()).add(endpoint)

    def drop(self, endpoint: str) -> None:
        for pattern in self._patterns.pop(endpoint, ()):
            endpoints = self._by_pattern[pattern]
            endpoints.discard(endpoint)
            if not endpoints:
                del self._by_pattern[pattern]

    def route(self, type: str) -> list[str]:
        """Ids of the endpoints that want an event of this type, in a stable order."""
        if not self._by_pattern:
            return []
        found: set[str] = set()
        for pattern in _candidates(type):
            found |= self._by_pattern.get(pattern, set())
        return sorted(found)
