"""The scenarios of the harness by name, and what each of them is given to work with."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import psutil

from tests.faults.server import Delivery, Server

_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    group: str
    promise: str
    """What must hold, as one sentence: its row of the scoreboard."""
    run: Callable[["Bench"], Awaitable[str | None]]
    """Raises AssertionError where the promise is broken; returns what was seen, if there is a figure to tell."""
    kills: bool = False
    """It needs a server of its own."""

    @property
    def id(self) -> str:
        return self.run.__name__


SCENARIOS: list[Scenario] = []


Run = Callable[["Bench"], Awaitable[str | None]]


def scenario(group: str, promise: str, *, kills: bool = False) -> Callable[[Run], Run]:
    def note(run: Run) -> Run:
        SCENARIOS.append(Scenario(group=group, promise=promise, run=run, kills=kills))
        return run

    return note


@dataclass(kw_only=True)
class Bench:
    """One running server."""

    server: Server
    full: bool = False
    """At full size, with the server's shipped time limits."""
    type: str = field(default_factory=lambda: f"faults.n{next(_numbers)}")
    """An event type of this scenario's own, so that no other's endpoint hears of it."""

    @property
    def patience(self) -> float:
        """Seconds that an attempt may take."""
        return 15.0 if self.full else 1.0

    async def settled(self, endpoint: str, events: Sequence[str], *, attempts: int = 1, seconds: float) -> dict[str, Delivery]:
        """What is said of the events once each had so many attempts; fails after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = {one.event: one for one in await self.server.deliveries(endpoint)}
                    if all(event in found and (found[event].attempts >= attempts or found[event].status == "skipped") for event in events):
                        return found
                    # From outside there is nothing else to wait for.
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"no record of an attempt within {seconds:g} s") from None

    async def said(self, endpoint: str, event: str, status: str, *, seconds: float = 20.0) -> Delivery:
        """The record once it has this status."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for one in await self.server.deliveries(endpoint):
                        if one.event == event and one.status == status:
                            return one
                    # Likewise.
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not {status} within {seconds:g} s") from None


class Memory:
    """The most memory that what sends had, as far as samples tell."""

    def __init__(self, server: Server) -> None:
        self._processes = server.processes("sender")
        self._before = self._now()
        self._most = self._before
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Memory":
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task
        self._task.cancel()
        self._most = max(self._most, self._now())

    @property
    def growth(self) -> float:
        """MiB."""
        return (self._most - self._before) / (1 << 20)

    def _now(self) -> int:
        total = 0
        for process in self._processes:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total

    async def _watch(self) -> None:
        while True:
            self._most = max(self._most, self._now())
            # It samples.
            await asyncio.sleep(0.02)
