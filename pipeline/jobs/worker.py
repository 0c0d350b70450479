"""The worker of one queue: keeps its slots filled, trades ended jobs for new ones, drains on request."""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

import structlog

from pipeline.config import Queue
from pipeline.errors import PermanentFailure
from pipeline.jobs import schedulers, stalled
from pipeline.jobs.attempt import Completed, Dropped, Failed, Interrupted, Outcome, Waiting, read_job
from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.jobs.closing import Closer, refused
from pipeline.jobs.context import SHUTTING_DOWN, JobContext, stop, where
from pipeline.jobs.fetched import Fetched
from pipeline.jobs.locks import Locks
from pipeline.jobs.markers import Markers
from pipeline.jobs.model import Job
from pipeline.jobs.trade import ALONE, NOT_PLAIN, TRADE, Desk, Ended, Traded, ended, parse
from pipeline.jobs.watchdog import TASK_PREFIX
from pipeline.logs import info_many
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.memory import PAUSE_FETCHING, Memory

LOCK_MS = 10_000
FLIGHTS = 2
"""Exchanges under way at once: while the store does one, the jobs of the other run."""
LARGEST_TRADE = 64
"""Jobs; a script holds up everybody else's commands for as long as it takes."""
LONGEST_PAUSE = 2.0
log = structlog.get_logger(__name__)


class Runs(Protocol):
    """Who runs an attempt (`runner.Runner`)."""

    def name_of(self, job_name: str) -> str | None: ...
    async def run(self, job: Job, context: JobContext) -> Outcome: ...


class Worker:
    """Runs the jobs of one queue, `settings.concurrency` at a time, until `stop`."""

    def __init__(
        self,
        redis: Store,
        keys: QueueKeys,
        settings: Queue,
        runner: Runs,
        *,
        log_key: str,
        name: str,
        lock_ms: int = LOCK_MS,
        stalled_ms: int = stalled.INTERVAL_MS,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._settings = settings
        self._runner = runner
        self._log_key = log_key
        self._desk = Desk(keys, settings, log_key=log_key, lock_ms=lock_ms, worker=name)
        self._closer = Closer(redis, keys, settings, log_key=log_key, lock_ms=lock_ms)
        self._locks = Locks(redis, keys, duration_ms=lock_ms, stop=self._told_to_stop)
        self._memory = Memory(redis)
        self._stalled_ms = stalled_ms
        # So that one exchange can be under way while the jobs of another run.
        self._trade_size = min(-(-settings.concurrency // FLIGHTS), LARGEST_TRADE)
        self._id = secrets.token_hex(8)
        self._trades = 0
        self._flights = 0
        self._free = settings.concurrency
        """Slots that have no job and for which none was asked."""
        self._ended: deque[Ended] = deque()
        """Completed jobs; each keeps its slot until the store knows."""
        self._attempts: dict[str, asyncio.Task[None]] = {}
        """By token."""
        self._running: dict[str, JobContext] = {}
        """Those of the attempts whose processor is at work."""
        self._beside: set[asyncio.Task[None]] = set()
        """Exchanges, above all."""
        self._markers = Markers(redis, keys, ask=self._kick, room=lambda: self._free > 0)
        self._watching = False
        self._kicked = False
        self._stopping = False
        self._hand_back = False
        self._ending = False
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Work until `stop` was called and the last job is out. Raises what ends its upkeep: without that it would only look alive."""
        if self._stopping:
            return
        self._loop = asyncio.get_running_loop()
        self._watching = True
        self._markers.start()
        upkeep = [
            asyncio.create_task(self._locks.run()),
            asyncio.create_task(stalled.run(self._redis, self._keys, interval_ms=self._stalled_ms)),
            asyncio.create_task(self._over.wait()),
        ]
        self._kick()
        try:
            ended, _ = await asyncio.wait(upkeep, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            self._ending = True
            self._markers.cancel()
            tasks = [*upkeep, *self._attempts.values(), *self._beside]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self, seconds: float) -> None:
        """Fetch no more, let running jobs end within `seconds`, then hand back those that did not."""
        self._stopping = True
        if not self._watching:
            return  # it has not begun, and will not
        self._run_beside(self._stop_watching())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        self._hand_back = True
        for token in [*self._running]:
            self._told_to_stop(token, SHUTTING_DOWN)

    async def _stop_watching(self) -> None:
        await self._markers.stop()
        self._watching = False
        self._kick()

    # --- trading -----------------------------------------------------------------------------------------------------

    def _kick(self) -> None:
        """Start the exchanges that are due, once this tick's jobs have ended."""
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._start_trades)

    def _start_trades(self) -> None:
        self._kicked = False
        while self._flights < FLIGHTS and not self._ending:
            ends = self._next_ends()
            room = 0 if self._stopping or self._markers.closed else min(self._free + len(ends), LARGEST_TRADE)
            want = room if ends or not self._markers.dry else 0
            if not ends and not want:
                break
            self._free -= max(want - len(ends), 0)
            self._flights += 1
            self._run_beside(self._trade(ends, want))
        if self._stopping and not (self._flights or self._attempts or self._ended or self._watching):
            self._over.set()

    def _run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def _next_ends(self) -> list[Ended]:
        """A trade's worth of ended jobs, all of one retention."""
        ends: list[Ended] = []
        while self._ended and len(ends) < self._trade_size and (not ends or self._ended[0].keep == ends[0].keep):
            ends.append(self._ended.popleft())
        return ends

    async def _trade(self, ends: list[Ended], want: int) -> None:
        slots = max(len(ends), want)
        markers = self._markers.taken
        try:
            if want and await self._store_is_full():
                want = 0
            traded = await self._exchange(ends, want) if ends or want else None
            if traded is None:
                return
            for fetched in traded.jobs:
                slots -= 1
                self._start(fetched, self._attempt(fetched))
            slots -= self._settle(ends, traded.answers)
            if traded.unsettled:
                log.error("error after the ends of jobs", queue=self._keys.queue, error=traded.unsettled)
            if traded.error:
                log.error("error in fetching jobs", queue=self._keys.queue, error=traded.error)
                self._markers.close(1.0)
            elif want:
                # A marker that came meanwhile may tell of a job that this answer could not know of.
                self._markers.dry = len(traded.jobs) < want and not traded.more and markers == self._markers.taken
                if self._markers.dry:
                    self._markers.wait(traded.idle)
        except Exception:
            log.exception("exchange with the queue failed", queue=self._keys.queue)
            for end in ends:
                self._start(end.fetched, self._complete_alone(end))
            slots -= len(ends)
            self._markers.close(1.0)
        finally:
            self._flights -= 1
            self._free += slots
            self._kick()

    async def _exchange(self, ends: list[Ended], want: int) -> Traded | None:
        """The store's answer, however long it is away; None where there was nothing to lose in giving up."""
        self._trades += 1
        token = f"{self._id}:{self._trades}"
        pause, again = 0.1, False
        while True:
            try:
                return parse(await TRADE.once(self._redis, *self._desk.call(ends, want=want, token=token, again=again)), token)
            except STORE_ERRORS as error:
                log.warning("store away", queue=self._keys.queue, outcomes_kept=len(ends), error=str(error), retry_in=pause)
            again = True
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _settle(self, ends: list[Ended], answers: list[Any]) -> int:
        """Note what became of completed jobs; returns how many still hold their slots."""
        completed: list[dict[str, Any]] = []
        held, now = 0, now_ms()
        for end, answer in zip(ends, answers, strict=True):
            job, named = end.job, where(end.job, self._runner.name_of(end.job.name))
            if answer == ALONE or isinstance(answer, str):
                if answer != ALONE:
                    # Alone, it is tried again until it works: an error of the store is no reason to run the job twice.
                    log.error("job not completed; it is tried alone", **named, error=answer)
                self._start(end.fetched, self._complete_alone(end))
                held += 1
                continue
            self._locks.release(end.fetched.token)
            if answer == 0:
                completed.append({**named, "ms": now - end.started, "attempt": job.attempt})
            else:
                refused(log.bind(**named), answer)
        info_many("job completed", completed)
        return held

    async def _store_is_full(self) -> bool:
        try:
            if await self._memory.share() < PAUSE_FETCHING:
                return False
            log.warning("store nearly full: fetching paused", queue=self._keys.queue)
        except STORE_ERRORS as error:
            log.warning("store away", queue=self._keys.queue, error=str(error))
        self._markers.close(1.0)
        return True

    # --- running -----------------------------------------------------------------------------------------------------

    def _start(self, fetched: Fetched, attempt: Coroutine[Any, Any, None]) -> None:
        named = f"{TASK_PREFIX}{self._runner.name_of(fetched.fields.get('name', ''))} {self._keys.queue} {fetched.job_id}"
        self._attempts[fetched.token] = self._loop.create_task(attempt, name=named)

    async def _attempt(self, fetched: Fetched) -> None:
        """From a locked job to its end; one that is plainly completed keeps its slot until the next exchange has recorded it."""
        started, kept = now_ms(), False
        try:
            job, spoilt = self._read(fetched)
            context = JobContext(self._redis, self._keys, self._log_key, job, self._runner.name_of(job.name))
            self._locks.hold(job.id, fetched.token)
            if schedulers.KEY in job.opts:
                await schedulers.go_on(self._redis, self._keys, job)
            outcome = spoilt or await self._outcome(fetched, job, context)
            if isinstance(outcome, Completed) and NOT_PLAIN.isdisjoint(fetched.fields):
                self._ended.append(ended(self._settings, fetched, job, outcome, started=started, now=now_ms()))
                kept = True
            else:
                await self._in_spite_of_cancels(self._end(fetched, job, context, outcome, started))
        except Exception:
            # The job keeps its lock until it runs out and is then put back as stalled.
            log.exception("worker slot failed", queue=self._keys.queue, jobId=fetched.job_id)
        finally:
            self._over_with(fetched, keeps_slot=kept)

    async def _complete_alone(self, end: Ended) -> None:
        try:
            await self._closer.end(end.fetched, end.job, Completed(result=end.result), end.started, self._bound(end.job))
        finally:
            self._over_with(end.fetched, keeps_slot=False)

    def _over_with(self, fetched: Fetched, *, keeps_slot: bool) -> None:
        self._attempts.pop(fetched.token, None)
        if not keeps_slot:
            self._locks.release(fetched.token)
            self._free += 1
            # Its end may have made room in the queue's global concurrency; unlike an exchange it has brought no other job.
            self._markers.dry = False
        self._kick()

    def _read(self, fetched: Fetched) -> tuple[Job, Failed | None]:
        """The job, and why it is not to be run, if it is not."""
        deferred = fetched.fields.get("defa") or stalled.endless(fetched.fields)
        try:
            job = read_job(self._keys.queue, fetched.job_id, fetched.fields)
        except PermanentFailure as failure:
            job = Job(id=fetched.job_id, queue=self._keys.queue, name=fetched.fields.get("name", ""), data=None, attempt=1, attempts=1, timestamp=0)
            return job, Failed(reason=failure.message, stack="", permanent=True)
        return job, Failed(reason=deferred, stack="", permanent=True) if deferred else None

    async def _outcome(self, fetched: Fetched, job: Job, context: JobContext) -> Outcome:
        if self._hand_back:
            return Interrupted()
        self._running[fetched.token] = context
        try:
            return await self._runner.run(job, context)
        finally:
            del self._running[fetched.token]

    async def _end(self, fetched: Fetched, job: Job, context: JobContext, outcome: Outcome, started: int) -> None:
        while isinstance(outcome, Waiting):
            if await self._closer.hold(fetched, job, outcome, context.log):
                return
            # The callback was quicker than we: the processor finds its answer.
            outcome = await self._outcome(fetched, job, context)
        match outcome:
            case Dropped():
                context.log.warning("outcome dropped", reason="the lock was lost")
            case Interrupted():
                code = await self._closer.release(fetched, job)
                context.log.info("job handed back", code=code)
            case _:
                await self._closer.end(fetched, job, outcome, started, context.log)

    async def _in_spite_of_cancels(self, work: Coroutine[Any, Any, None]) -> None:
        """A processor may have asked for its task to be cancelled and be gone by then: what it came to is recorded all the same."""
        task = self._loop.create_task(work)
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if self._ending:
                    task.cancel()
                    raise
        task.result()

    def _told_to_stop(self, token: str, reason: str) -> None:
        if context := self._running.get(token):
            stop(context, self._attempts[token], reason)

    def _bound(self, job: Job) -> Any:
        return log.bind(**where(job, self._runner.name_of(job.name)))
