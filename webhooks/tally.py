"""Counts of attempts by endpoint and time: added up here, kept in the store by `stats.lua`, read as rates and percentiles."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BOUNDS_MS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000, 7_000, 10_000, 15_000, 30_000)
"""Upper bounds of the buckets that durations are counted in; a last one has what took longer."""
ALL, OTHER = "(all)", "(other)"
"""In the place of an endpoint's id: all of them, and those beyond the ones that are shown each by itself. No endpoint can be called so."""


@dataclass(kw_only=True, slots=True)
class Counts:
    delivered: int = 0
    failed: int = 0
    """Attempts that did not succeed, those of a later success included."""
    exhausted: int = 0
    ms: int = 0
    """Of all attempts together."""
    last_success: int = 0
    last_failure: int = 0
    """ms since the epoch; 0: none."""
    buckets: dict[int, int] = field(default_factory=dict)
    """Attempts by the index of their bound."""

    def count(self, delivered: bool, exhausted: bool, duration: int, at: int) -> None:
        """One attempt of so many ms that ended at `at`."""
        if delivered:
            self.delivered += 1
            self.last_success = at
        else:
            self.failed += 1
            self.exhausted += exhausted
            self.last_failure = at
        self.ms += duration
        bucket = bucket_of(duration)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def packed(self) -> list[Any]:
        buckets = [number for pair in self.buckets.items() for number in pair]
        return [self.delivered, self.failed, self.exhausted, self.ms, self.last_success, self.last_failure, buckets]


class Tally:
    """What one process has counted since it was last taken."""

    def __init__(self) -> None:
        self._counts: dict[str, Counts] = {}

    def count(self, endpoint: str, *, delivered: bool, exhausted: bool, duration: int, at: int) -> None:
        if (counts := self._counts.get(endpoint)) is None:
            counts = self._counts[endpoint] = Counts()
        counts.count(delivered, exhausted, duration, at)

    def take(self) -> dict[str, Counts]:
        """By endpoint, and of ALL."""
        counts, self._counts = self._counts, {}
        return counts | {ALL: _total(counts.values())} if counts else counts


def _total(counts: Collection[Counts]) -> Counts:
    return Counts(
        delivered=sum(one.delivered for one in counts),
        failed=sum(one.failed for one in counts),
        exhausted=sum(one.exhausted for one in counts),
        ms=sum(one.ms for one in counts),
        last_success=max(one.last_success for one in counts),
        last_failure=max(one.last_failure for one in counts),
        buckets=merged(one.buckets for one in counts),
    )


def bucket_of(duration: int) -> int:
    return bisect_left(BOUNDS_MS, duration)


def merged(slots: Iterable[Mapping[int, int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for buckets in slots:
        for bucket, count in buckets.items():
            found[bucket] = found.get(bucket, 0) + count
    return found


def percentile(buckets: Mapping[int, int], share: float) -> int | None:
    """The bound (ms) that this share of the attempts did not exceed; None where there were none. Beyond the last bound, the last bound."""
    wanted, seen = share * sum(buckets.values()), 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= wanted > 0:
            return BOUNDS_MS[min(bucket, len(BOUNDS_MS) - 1)]
    return None


def cumulative(buckets: Mapping[int, int], bounds: Sequence[int]) -> list[int]:
    """For each of `bounds` (some of BOUNDS_MS), how many attempts took no longer."""
    return [sum(count for bucket, count in buckets.items() if bucket < len(BOUNDS_MS) and BOUNDS_MS[bucket] <= bound) for bound in bounds]
