"""How much of a benchmark is run, in which order the sides take turns, and how it tells of itself."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Side = TypeVar("Side")


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    rounds: int
    concurrencies: tuple[int, ...]
    """Of the no-op jobs' worker."""
    keeps: tuple[str, ...]
    """What happens to them when they are done (`jobs.KEEPS`)."""
    jobs: int
    """No-op jobs a round; an eighth of it where they go one by one."""
    warmup: int
    chains: int
    """Runs, and flows, a round."""
    seconds: float
    """Of requests, and of working off a backlog, a round."""
    waiting: int
    """Jobs of the great backlog."""
    deliveries: int
    """Webhooks a round."""
    pending: int
    """Webhooks of the great backlog."""


FULL = Size(
    rounds=5,
    concurrencies=(1, 10, 50, 200),
    keeps=("removed", "keep 100"),
    jobs=40_000,
    warmup=5_000,
    chains=4_000,
    seconds=5,
    waiting=20_000,
    deliveries=20_000,
    pending=200_000,
)
SMOKE = Size(
    rounds=1, concurrencies=(50,), keeps=("keep 100",), jobs=800, warmup=100, chains=60, seconds=0.5, waiting=3_000, deliveries=400, pending=5_000
)


def alternating(sides: Sequence[Side], number: int) -> Sequence[Side]:
    """Who goes first changes with each round."""
    return sides if number % 2 == 0 else sides[::-1]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
