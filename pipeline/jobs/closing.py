"""Ends or holds one attempt by BullMQ's scripts, however long the store is away: what does not go by the batch (`trade.py`)."""

import asyncio
import random
from typing import Any

import structlog

from pipeline.config.queues import Queue
from pipeline.jobs import calls, events
from pipeline.jobs.attempt import Completed, Failed, Waiting
from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.jobs.ending import ending
from pipeline.jobs.fetched import Fetched
from pipeline.jobs.model import Job
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.scripts import Script, composed, lua, pack, pack_call, stock

FINISH = composed(lua("pipeline.jobs", "finish.lua"), "moveToFinished", "moveToDelayed", "retryJob")
HOLD = composed(lua("pipeline.jobs", "hold.lua"), "moveToDelayed")
RELEASE = Script(stock("moveJobFromActiveToWait"))
NOT_OURS = {-1: "the job is gone", -2: "its lock is gone", -3: "it is not active", -6: "another worker has its lock"}
"""Also what a repeated call answers when the first one was applied and its reply lost."""
WAITS_FOR_CHILDREN = {-4: "it has pending children", -9: "it has failed children"}
LONGEST_PAUSE = 2.0
log = structlog.get_logger(__name__)


class Closer:
    """Ends attempts at the jobs of one queue."""

    def __init__(self, redis: Store, keys: QueueKeys, settings: Queue, *, log_key: str, lock_ms: int) -> None:
        self._redis = redis
        self._keys = keys
        self._settings = settings
        self._log_key = log_key
        self._lock_ms = lock_ms

    async def hold(self, fetched: Fetched, job: Job, waiting: Waiting, bound: Any) -> bool:
        """Give the job up until its callback; False if its answer is already there."""
        now = now_ms()
        delay = max(waiting.deadline - now, 1)
        call = calls.move_to_delayed(self._keys, job_id=job.id, token=fetched.token, delay_ms=delay, fields={}, skip_attempt=True, now=now)
        event = events.step_waiting(job, waiting.deadline, now=now)
        keys = [waiting.record, self._log_key, *self._keys.keys("active", f"{job.id}:lock")]
        args = [pack(pack_call(call)), pack(event.fields() if event else []), job.id, fetched.token, self._lock_ms]
        answered, code = await self._until_answered(job, HOLD, keys, args)
        if answered:
            return False
        if int(code) < 0:
            bound.warning("outcome dropped", reason=NOT_OURS.get(int(code), "the job cannot be held"), code=int(code))
        else:
            bound.info("job waits for its callback", seconds=round(delay / 1000))
        return True

    async def release(self, fetched: Fetched, job: Job) -> int:
        """Hand the job back without counting an attempt."""
        return int(await self._until_answered(job, RELEASE, *calls.release(self._keys, job_id=job.id, token=fetched.token)))

    async def end(self, fetched: Fetched, job: Job, outcome: Completed | Failed, started: int, bound: Any) -> None:
        """Complete the job, fail it, or put it back for another attempt."""
        end = ending(
            self._keys,
            self._settings,
            job,
            outcome,
            token=fetched.token,
            stacks=fetched.stacks,
            started=started,
            now=now_ms(),
            random=random.random(),
        )
        event = end.event.fields() if end.event else []
        keys = [self._log_key, *self._keys.keys("active", f"{job.id}:lock")]
        args = [end.kind, pack(pack_call(end.call)), pack(event), job.id, fetched.token, self._lock_ms]
        code, error = await self._until_answered(job, FINISH, keys, args)
        if error:
            log.error("error after the end of a job", queue=self._keys.queue, jobId=job.id, error=error)
        ms = now_ms() - started
        if int(code) < 0:
            refused(bound, int(code))
        elif isinstance(outcome, Completed):
            bound.info("job completed", ms=ms, attempt=job.attempt)
        elif end.kind == "finish":
            bound.error("job failed", ms=ms, attempt=job.attempt, reason=outcome.reason)
        else:
            bound.warning("attempt failed", ms=ms, attempt=job.attempt, attempts=job.attempts, reason=outcome.reason)

    async def _until_answered(self, job: Job, script: Script, keys: list[str], args: list[Any]) -> Any:
        """The script's answer. Repeating it is safe: what was applied before is refused the second time.

        An error of the script keeps the outcome too: it is ours or the store's, and no reason to run the job again.
        """
        pause = 0.1
        while True:
            try:
                return await script(self._redis, keys, args)
            except STORE_ERRORS as error:
                log.warning("store away: outcome kept", queue=job.queue, jobId=job.id, error=str(error), retry_in=pause)
            except Exception:
                log.exception("outcome cannot be recorded; it is kept and tried again", queue=job.queue, jobId=job.id, retry_in=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def refused(bound: Any, code: int) -> None:
    """Log an outcome that BullMQ's script did not take."""
    if code in NOT_OURS:
        bound.warning("outcome dropped", reason=NOT_OURS[code], code=code)
    else:
        bound.error("job not finished", reason=WAITS_FOR_CHILDREN.get(code, "BullMQ refused it"), code=code)
