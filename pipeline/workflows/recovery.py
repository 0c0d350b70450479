"""Looks for what no transaction can cover: jobs removed or finished by foreign hands, runs past their retention, an overlong log."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from pipeline.config import Retention
from pipeline.errors import NotFound
from pipeline.jobs.bridge import Bridge
from pipeline.jobs.calls import now_ms
from pipeline.jobs.finished import finished
from pipeline.jobs.queues import Queues
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.keys import Keys
from pipeline.store.log import Log
from pipeline.workflows.definitions import Definitions
from pipeline.workflows.engine import GROUP
from pipeline.workflows.model import JobEnded, JobLost, Outcome, Run, RunStatus
from pipeline.workflows.transitions import Transitions

EVERY_SECONDS = 15.0
PAGE = 200
GONE_MS = 3_600_000
"""A consumer of the log that has not read for so long is a process that has ended: a living one reads every second."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A dispatched job that is gone or finished, whose event may still be under way."""

    run_id: str
    step: str
    n: int


class Recovery:
    def __init__(
        self,
        redis: Store,
        keys: Keys,
        event_log: Log,
        queues: Queues,
        bridge: Bridge,
        definitions: Definitions,
        transitions: Transitions,
        retention: Retention,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._log = event_log
        self._queues = queues
        self._bridge = bridge
        self._definitions = definitions
        self._transitions = transitions
        self._retention = retention
        self._suspects: dict[_Suspect, str] = {}
        self.held_by: str | None = None
        """The consumer group that keeps the log from being trimmed, if one does."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look(now_ms())
            except STORE_ERRORS as error:
                log.warning("store away", part="recovery", error=str(error))
            except Exception:
                log.exception("recovery failed; it is tried again")
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self, now: int) -> None:
        """One round."""
        self.held_by = await self._log.trim(max_age_ms=self._retention.events, max_bytes=self._retention.log_bytes, now=now)
        await self._log.forget_consumers(idle_ms=GONE_MS)
        await self._forget_runs(now)
        await self._recover_jobs()

    # --- jobs that will not report ----------------------------------------------------------------------------------

    async def _recover_jobs(self) -> None:
        """A missing job is not added again at once: it may have run and been removed, its event waiting in the log.

        So the end of the log is noted; when the engine has acknowledged all up to there and the run still waits, it is true.
        """
        known: dict[_Suspect, str] = {}
        fresh: list[_Suspect] = []
        async for run, step_id in self._unreported():
            suspect = _Suspect(run.id, step_id, run.steps[step_id].n)
            noted = self._suspects.get(suspect)
            if noted is None:
                fresh.append(suspect)
            elif await self._log.acknowledged(GROUP, noted):
                await self._resolve(suspect)
            else:
                known[suspect] = noted
        # Asked for afterwards: whatever ended before it was looked at has its event before this.
        last = await self._log.last() if fresh else ""
        self._suspects = known | dict.fromkeys(fresh, last)

    async def _unreported(self) -> AsyncIterator[tuple[Run, str]]:
        """(run, step id) of each running step whose job is gone or has finished."""
        index = self._keys.runs("status", RunStatus.RUNNING)
        for first in range(0, await self._redis.zcard(index), PAGE):
            ids = await self._redis.zrange(index, first, first + PAGE - 1)
            waiting = [
                (run, step_id)
                for run in await self._transitions.load_many(ids)
                for step_id, step in run.steps.items()
                if step.status.dispatched and step.job_id
            ]
            places = [(run, step_id, *place) for run, step_id in waiting if (place := await self._place(run, step_id))]
            async with self._redis.pipeline(transaction=False) as pipe:
                for _, _, queue, job_id in places:
                    pipe.hmget(self._queues.keys(queue).key(job_id), "timestamp", "finishedOn")
                found = await pipe.execute()
            for (run, step_id, queue, job_id), (timestamp, finished_on) in zip(places, found, strict=True):
                if finished_on is not None and queue in self._queues.external:
                    # Whatever clock its worker has: the log is told at once, and if the run waits in spite of that it is a suspect like others.
                    await self._bridge.tell(queue, [job_id])
                if timestamp is None or finished_on is not None:
                    yield run, step_id

    async def _place(self, run: Run, step_id: str) -> tuple[str, str] | None:
        """Queue and id of a step's job; None for a run whose definition is gone: it cannot be moved."""
        try:
            definition = await self._definitions.pinned(run.digest)
        except NotFound as error:
            log.error("run cannot go on", runId=run.id, reason=error.message)
            return None
        return definition.steps[step_id].queue, str(run.steps[step_id].job_id)

    async def _resolve(self, suspect: _Suspect) -> None:
        loaded = await self._transitions.load(suspect.run_id)
        if not loaded:
            return
        run, _ = loaded
        step = run.steps[suspect.step]
        if not step.status.dispatched or step.n != suspect.n:
            return
        place = await self._place(run, suspect.step)
        if not place:
            return
        queue, job_id = place
        fields = await self._redis.hgetall(self._queues.keys(queue).key(job_id))
        outcome = _outcome(suspect, queue, job_id, fields)
        if outcome:
            log.warning("job recovered", runId=run.id, step=suspect.step, jobId=step.job_id, how=type(outcome).__name__)
            await self._transitions.apply(run.id, outcome, job={"queue": queue, "jobId": job_id})

    # --- retention --------------------------------------------------------------------------------------------------

    async def _forget_runs(self, now: int) -> None:
        cutoff = now - self._retention.runs
        kept = 0
        while ids := await self._redis.zrange(self._keys.runs(), "-inf", cutoff, byscore=True, offset=kept, num=PAGE):
            over = [run for run in await self._transitions.load_many(ids) if run.status.terminal and (run.finished_at or run.created_at) < cutoff]
            for run in over:
                await self._transitions.forget(run)
            kept += len(ids) - len(over)


def _outcome(suspect: _Suspect, queue: str, job_id: str, fields: dict[str, str]) -> Outcome | None:
    """What a job's hash says of a job that did not report: nothing there, or finished by a worker that is not ours."""
    if "timestamp" not in fields:
        return JobLost(step=suspect.step, n=suspect.n)
    end = finished(queue, job_id, fields)
    if end is None:
        return None
    return JobEnded(
        step=suspect.step,
        n=suspect.n,
        result=end.result,
        error=end.error,
        attempts=end.job.attempt,
        started_at=end.started_at,
        finished_at=end.finished_at,
    )
