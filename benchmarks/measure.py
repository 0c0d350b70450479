"""What one round of a benchmark saw (rate, CPU of the program and of the store, memory), and how rounds are summed up."""

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """`cpu` and `store` in microseconds per job, run or request; `rss` in MiB, of the largest process."""

    rate: float
    cpu: float
    store: float
    rss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Median, least and most of some rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        found = sorted(values)
        return cls(median=statistics.median(found), low=found[0], high=found[-1])

    def shown(self, digits: int = 0) -> str:
        return f"{self.median:,.{digits}f} [{self.low:,.{digits}f}–{self.high:,.{digits}f}]"


def quotients(ours: Sequence[Round], theirs: Sequence[Round], what: str = "rate") -> Spread:
    """Ours by theirs, round by round: the rounds of a pair ran one after the other, so what slowed one slowed both."""
    return Spread.of(getattr(one, what) / getattr(other, what) for one, other in zip(ours, theirs, strict=True))


class Meter:
    """Measures from `begin` on; `end` says what `count` jobs took since."""

    def __init__(self, redis: Any, processes: Sequence[psutil.Process]) -> None:
        self._redis = redis
        self._processes = processes
        self._begun = self._cpu = self._store = 0.0

    async def begin(self) -> None:
        self._store, self._cpu = await store_cpu(self._redis), self._own_cpu()
        self._begun = time.perf_counter()

    async def end(self, count: int, *, seconds: float | None = None) -> Round:
        """`seconds`: where somebody else held the watch."""
        taken = seconds or time.perf_counter() - self._begun
        cpu = self._own_cpu() - self._cpu
        store = await store_cpu(self._redis) - self._store
        rss = max(process.memory_info().rss for process in self._processes) / 2**20
        return Round(rate=count / taken, cpu=cpu / count * 1e6, store=store / count * 1e6, rss=rss)

    def _own_cpu(self) -> float:
        return float(sum(sum(process.cpu_times()[:2]) for process in self._processes))


async def store_cpu(redis: Any) -> float:
    """CPU seconds of the store since its start."""
    info = await redis.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
