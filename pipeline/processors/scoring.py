"""How a score comes about: what each broken rule takes from 100, so that the result can show it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

WHOLE = 100
"""The score of a document without findings."""
LIMIT = 4
"""A rule costs at most this many times its weight, however often it is broken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What one rule took: `weight` for its first finding, half a weight more each time their number doubles, at most LIMIT weights."""

    rule: str
    findings: int
    weight: int
    lost: float
    """Rounded to two decimals."""


def losses(broken: Iterable[str], weights: Mapping[str, int]) -> list[Loss]:
    """One for each rule among `broken`, where a rule stands once for each of its findings; the costliest first, then by id."""
    found = [
        Loss(rule=rule, findings=count, weight=weights[rule], lost=round(weights[rule] * min(1 + math.log2(count) / 2, LIMIT), 2))
        for rule, count in Counter(broken).items()
    ]
    return sorted(found, key=lambda loss: (-loss.lost, loss.rule))


def remaining(lost: Sequence[Loss]) -> int:
    """The score: what is left of 100, rounded down, never below 0."""
    # A sum of decimals may be a hair above the whole number that it stands for.
    return max(0, WHOLE - math.ceil(round(sum(loss.lost for loss in lost), 2)))
