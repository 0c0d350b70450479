"""The workflow engine: reads the ends of jobs from the event log and moves their runs, each entry exactly once in effect."""

import asyncio
from collections import defaultdict, deque
from typing import Any

import structlog

from pipeline.store.connection import STORE_ERRORS
from pipeline.store.event import Event
from pipeline.store.group import Group
from pipeline.workflows.commits import TOGETHER
from pipeline.workflows.model import Broken, JobEnded, JobHeld
from pipeline.workflows.transitions import JOB_ENDS, Entry, Transitions

GROUP = "engine"
TYPES = frozenset({*JOB_ENDS, "workflow.step.waiting"})
"""Of the events that move a run; a job of no run has such, too."""
BATCH = 200
AT_ONCE = 3
"""Batches under way."""
RAISES = 5
"""After an entry was handed out this often without being acknowledged, its run is failed instead of blocking the log."""
Told = tuple[str, deque[tuple[Event, JobEnded | JobHeld]]]
"""A run's id, and what a batch tells of it."""
log = structlog.get_logger(__name__)


class Engine:
    """One consumer of the log; any number may run beside each other."""

    def __init__(self, group: Group, transitions: Transitions) -> None:
        self._group = group
        self._transitions = transitions
        self._batches: deque[asyncio.Task[None]] = deque()
        self._last: dict[str, asyncio.Task[Any]] = {}
        """By run, the last batch under way that tells of it."""

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; entries that were read are handled to their end."""
        pause = 0.1
        while not stop.is_set():
            try:
                events = await self._group.read(count=BATCH, block_ms=1000)
                # While the store commits one batch, the next is decided.
                self._start(events)
                while len(self._batches) >= AT_ONCE:
                    await self._batches.popleft()
                pause = 0.1
            except STORE_ERRORS as error:
                log.warning("store away", part="engine", error=str(error), retry_in=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
        # What could not be committed stays unacknowledged, for whoever comes next.
        await asyncio.gather(*self._batches, return_exceptions=True)

    def _start(self, events: list[Event]) -> None:
        if events:
            self._batches.append(asyncio.create_task(self.handle(events)))

    async def handle(self, events: list[Event]) -> None:
        """Move the runs that a batch concerns: those of one run in order, different runs side by side."""
        by_run: dict[str, deque[tuple[Event, JobEnded | JobHeld]]] = defaultdict(deque)
        others: list[str] = []
        for event in events:
            outcome = outcome_of(event)
            if outcome:
                by_run[event.data["runId"]].append((event, outcome))
            else:
                others.append(event.cursor)
        earlier = {run_id: self._last[run_id] for run_id in by_run if run_id in self._last}
        task = asyncio.current_task()
        assert task
        self._last.update(dict.fromkeys(by_run, task))
        free = [(run_id, ends) for run_id, ends in by_run.items() if run_id not in earlier]
        held = [(run_id, ends) for run_id, ends in by_run.items() if run_id in earlier]
        moves = [self._move(free[first : first + TOGETHER]) for first in range(0, len(free), TOGETHER)]
        try:
            ends = await asyncio.gather(self._group.ack(others), *moves, self._move_after(set(earlier.values()), held), return_exceptions=True)
        finally:
            for run_id in by_run:
                if self._last.get(run_id) is task:
                    del self._last[run_id]
        for error in ends:
            if isinstance(error, BaseException):
                raise error

    async def _move_after(self, earlier: set["asyncio.Task[Any]"], held: list[Told]) -> None:
        """What an earlier batch does to the same runs comes first."""
        if held:
            await asyncio.wait(earlier)
        for first in range(0, len(held), TOGETHER):
            await self._move(held[first : first + TOGETHER])

    async def _move(self, runs: list[Told]) -> None:
        while runs:
            first = [(run_id, *ends.popleft()) for run_id, ends in runs]
            news = [(run_id, outcome, Entry(group=self._group.group, event=event)) for run_id, event, outcome in first]
            errors = await self._transitions.apply_all(news)
            for (run_id, _, entry), error in zip(news, errors, strict=True):
                if error:
                    await self._failed(run_id, entry, error)
            # Left unacknowledged, an entry comes again; later entries of its run wait behind it no longer than that.
            runs = [told for told, error in zip(runs, errors, strict=True) if told[1] and not error]

    async def _failed(self, run_id: str, entry: Entry, error: Exception) -> None:
        log.error("transition failed", runId=run_id, cursor=entry.event.cursor, exc_info=error)
        if await self._group.deliveries(entry.event.cursor) >= RAISES:
            await self._give_up(run_id, entry, error)

    async def _give_up(self, run_id: str, entry: Entry, error: Exception) -> None:
        reason = f"the engine failed {RAISES} times on {entry.event.type} of step {entry.event.data.get('step')!r}: {error}"
        try:
            await self._transitions.apply(run_id, Broken(reason=reason), entry=entry)
        except STORE_ERRORS:
            raise
        except Exception:
            log.exception("run cannot be failed either: its entry is acknowledged and the run left as it is", runId=run_id)
            await self._group.ack([entry.event.cursor])


def outcome_of(event: Event) -> JobEnded | JobHeld | None:
    """What an event means to a run, if it tells of a run's job."""
    data = event.data
    if event.type == "workflow.step.waiting":
        return JobHeld(step=data["step"], n=data["n"])
    if event.type not in JOB_ENDS or "runId" not in data:
        return None
    return JobEnded(
        step=data["step"],
        n=data["n"],
        result=data.get("result"),
        error=None if event.type == "job.completed" else str(data.get("error") or "failed"),
        attempts=data.get("attempts", 1),
        started_at=data.get("startedAt"),
        finished_at=data.get("finishedAt"),
    )
