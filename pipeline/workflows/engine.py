"""The workflow engine: reads the ends of jobs from the event log and moves their runs, each entry exactly once in effect."""

import asyncio
from collections import defaultdict, deque

import structlog

from pipeline.store.connection import STORE_ERRORS
from pipeline.store.log import Event, Group
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
log = structlog.get_logger(__name__)


class Engine:
    """One consumer of the log; any number may run beside each other."""

    def __init__(self, group: Group, transitions: Transitions) -> None:
        self._group = group
        self._transitions = transitions
        self._batches: deque[asyncio.Task[None]] = deque()
        self._last: dict[str, asyncio.Task[None]] = {}
        """By run, what was last begun with it."""

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
        await asyncio.gather(*self._batches)

    def _start(self, events: list[Event]) -> None:
        if events:
            self._batches.append(asyncio.create_task(self.handle(events)))

    async def handle(self, events: list[Event]) -> None:
        """Move the runs that a batch concerns: those of one run in order, different runs side by side."""
        by_run: dict[str, list[tuple[Event, JobEnded | JobHeld]]] = defaultdict(list)
        others: list[str] = []
        for event in events:
            outcome = outcome_of(event)
            if outcome:
                by_run[event.data["runId"]].append((event, outcome))
            else:
                others.append(event.cursor)
        moves = [self._in_order(run_id, ends) for run_id, ends in by_run.items()]
        await asyncio.gather(self._group.ack(others), *moves)

    def _in_order(self, run_id: str, ends: list[tuple[Event, JobEnded | JobHeld]]) -> "asyncio.Task[None]":
        """After what an earlier batch does to the same run."""
        earlier = self._last.get(run_id)

        async def move() -> None:
            if earlier:
                await asyncio.wait([earlier])
            await self._move(run_id, ends)

        task = asyncio.create_task(move())
        self._last[run_id] = task
        task.add_done_callback(lambda done: self._last.pop(run_id) if self._last.get(run_id) is done else None)
        return task

    async def _move(self, run_id: str, ends: list[tuple[Event, JobEnded | JobHeld]]) -> None:
        for event, outcome in ends:
            entry = Entry(group=self._group.group, event=event)
            try:
                await self._transitions.apply(run_id, outcome, entry=entry)
            except STORE_ERRORS:
                raise
            except Exception as error:
                # Left unacknowledged, the entry comes again; later entries of this run wait behind it no longer than that.
                log.exception("transition failed", runId=run_id, cursor=event.cursor)
                if await self._group.deliveries(event.cursor) >= RAISES:
                    await self._give_up(run_id, entry, error)
                return

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
