"""The worker of one queue: fetch a job, run it, end it and fetch the next in one script; drain on request."""

import asyncio
import contextlib
import random
import uuid
from typing import Any, Protocol

import structlog

from pipeline.config import Queue
from pipeline.errors import PermanentFailure
from pipeline.jobs import calls, events, stalled
from pipeline.jobs.attempt import Completed, Dropped, Failed, Interrupted, Outcome, Waiting, read_job
from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.jobs.context import SHUTTING_DOWN, JobContext, stop
from pipeline.jobs.ending import ending
from pipeline.jobs.fetched import Fetched, Idle, parse_fetch
from pipeline.jobs.locks import Locks
from pipeline.jobs.model import Job
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.memory import PAUSE_FETCHING, Memory
from pipeline.store.scripts import Call, Script, composed, lua, pack, pack_call, stock

FINISH = composed(lua("pipeline.jobs", "finish.lua"), "moveToFinished", "moveToDelayed", "retryJob", "moveToActive")
HOLD = composed(lua("pipeline.jobs", "hold.lua"), "moveToDelayed")
FETCH = Script(stock("moveToActive"))
RELEASE = Script(stock("moveJobFromActiveToWait"))
LOCK_MS = 10_000
NOT_OURS = {-1: "the job is gone", -2: "its lock is gone", -3: "it is not active", -6: "another worker has its lock"}
WAITS_FOR_CHILDREN = {-4: "it has pending children", -9: "it has failed children"}
log = structlog.get_logger(__name__)


class Runs(Protocol):
    """Who runs an attempt (`runner.Runner`)."""

    def name_of(self, job_name: str) -> str | None: ...
    async def run(self, job: Job, context: JobContext) -> Outcome: ...


class Worker:
    """Runs the jobs of one queue, `settings.concurrency` at a time, until `stop`."""

    def __init__(
        self, redis: Store, blocking: Store, keys: QueueKeys, settings: Queue, runner: Runs, *, log_key: str, name: str, lock_ms: int = LOCK_MS
    ) -> None:
        """`blocking` is a client of its own for the wait for markers, which would hold up other commands."""
        self._redis = redis
        self._blocking = blocking
        self._keys = keys
        self._settings = settings
        self._runner = runner
        self._log_key = log_key
        self._name = name
        self._lock_ms = lock_ms
        self._locks = Locks(redis, keys, duration_ms=lock_ms)
        self._memory = Memory(redis)
        self._free = asyncio.Semaphore(settings.concurrency)
        self._active: dict[str, tuple[JobContext, asyncio.Task[Outcome]]] = {}
        self._slots: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._fetcher: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[Fetched | Idle] | None = None

    async def run(self) -> None:
        """Work until `stop` was called and the last job is out."""
        self._fetcher = asyncio.create_task(self._fetch_loop(), name=f"fetch {self._keys.queue}")
        upkeep = [asyncio.create_task(self._locks.run()), asyncio.create_task(stalled.run(self._redis, self._keys))]
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._fetcher
            while self._slots:
                await asyncio.wait(self._slots)
        finally:
            for task in upkeep:
                task.cancel()
            await asyncio.gather(*upkeep, return_exceptions=True)

    async def stop(self, seconds: float) -> None:
        """Fetch no more, let running jobs end within `seconds`, then hand back those that did not."""
        self._stopping = True
        if self._fetcher and not self._fetcher.done():
            self._fetcher.cancel()
            await asyncio.wait([self._fetcher])
        if self._fetching:
            # It was shielded: a job that came while the worker was told to stop is locked already, so it is run.
            with contextlib.suppress(*STORE_ERRORS):
                found = await self._fetching
                if isinstance(found, Fetched):
                    self._start(found)
        with contextlib.suppress(*STORE_ERRORS):
            # The cancelled wait may have taken the marker that tells of a job: put one there for whoever waits next.
            await self._redis.zadd(self._keys.key("marker"), {"0": 0})
        if self._slots:
            await asyncio.wait(self._slots, timeout=seconds)
        for context, task in self._active.values():
            stop(context, task, SHUTTING_DOWN)

    # --- fetching ----------------------------------------------------------------------------------------------------

    async def _fetch_loop(self) -> None:
        pause = 0.1
        while True:
            await self._free.acquire()
            held = True
            try:
                if await self._memory.share() >= PAUSE_FETCHING:
                    log.warning("store nearly full: fetching paused", queue=self._keys.queue)
                    found: Fetched | Idle = Idle(1.0, limited=True)
                else:
                    self._fetching = asyncio.create_task(self._fetch())
                    found = await asyncio.shield(self._fetching)
                    self._fetching = None
                if isinstance(found, Fetched):
                    self._start(found)
                    held = False
                pause = 0.1
            except STORE_ERRORS as error:
                log.warning("store away", queue=self._keys.queue, error=str(error), retry_in=pause)
                found = Idle(pause, limited=True)
                pause = min(pause * 2, 2.0)
            finally:
                if held:
                    self._free.release()
            if isinstance(found, Idle):
                await self._wait(found)

    async def _fetch(self) -> Fetched | Idle:
        call, token = self._next()
        return parse_fetch(await FETCH(self._redis, *call), token, now_ms())

    def _next(self) -> tuple[Call, str]:
        token = uuid.uuid4().hex
        return calls.move_to_active(self._keys, token=token, lock_ms=self._lock_ms, worker=self._name), token

    async def _wait(self, idle: Idle) -> None:
        if idle.limited:
            await asyncio.sleep(idle.seconds)
            return
        with contextlib.suppress(*STORE_ERRORS):
            # 0 would block for ever.
            await self._blocking.bzpopmin(self._keys.key("marker"), max(idle.seconds, 0.001))

    # --- running -----------------------------------------------------------------------------------------------------

    def _start(self, fetched: Fetched) -> None:
        slot = asyncio.create_task(self._slot(fetched), name=f"slot {self._keys.queue}")
        self._slots.add(slot)
        slot.add_done_callback(self._slots.discard)

    async def _slot(self, fetched: Fetched | None) -> None:
        """Run one job after another, as long as ending one brings the next."""
        try:
            while fetched:
                fetched = await self._process(fetched)
        except Exception:
            # The job keeps its lock until it runs out and is then put back as stalled.
            log.exception("worker slot failed", queue=self._keys.queue, jobId=fetched.job_id if fetched else None)
        finally:
            self._free.release()

    async def _process(self, fetched: Fetched) -> Fetched | None:
        started = now_ms()
        try:
            job = read_job(self._keys.queue, fetched.job_id, fetched.fields)
        except PermanentFailure as failure:
            job = Job(id=fetched.job_id, queue=self._keys.queue, name=fetched.fields.get("name", ""), data=None, attempt=1, attempts=1, timestamp=0)
            unreadable: Outcome | None = Failed(reason=failure.message, stack="", permanent=True)
        else:
            deferred = fetched.fields.get("defa")
            unreadable = Failed(reason=deferred, stack="", permanent=True) if deferred else None
        bound = log.bind(**_where(job), processor=self._runner.name_of(job.name))
        context = JobContext(self._redis, self._keys, self._log_key, job, bound)
        self._locks_held(fetched, job, context)
        try:
            outcome = unreadable or await self._attempt(fetched, job, context)
            while isinstance(outcome, Waiting):
                if await self._hold(fetched, job, outcome, bound):
                    return None
                # The callback was quicker than we: the processor finds its answer.
                outcome = await self._attempt(fetched, job, context)
            return await self._end(fetched, job, outcome, started, bound)
        finally:
            self._locks.release(fetched.token)

    def _locks_held(self, fetched: Fetched, job: Job, context: JobContext) -> None:
        def told_to_stop(reason: str) -> None:
            running = self._active.get(fetched.token)
            if running:
                stop(context, running[1], reason)

        self._locks.hold(job.id, fetched.token, told_to_stop)

    async def _attempt(self, fetched: Fetched, job: Job, context: JobContext) -> Outcome:
        task = asyncio.create_task(self._runner.run(job, context))
        self._active[fetched.token] = (context, task)
        try:
            await asyncio.wait([task])
            # Cancelled before its first step: nothing ran.
            return Interrupted() if task.cancelled() else task.result()
        finally:
            del self._active[fetched.token]

    # --- ending ------------------------------------------------------------------------------------------------------

    async def _hold(self, fetched: Fetched, job: Job, waiting: Waiting, bound: Any) -> bool:
        """Give up the slot until the callback; False if its answer is already there."""
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

    async def _end(self, fetched: Fetched, job: Job, outcome: Completed | Failed | Dropped | Interrupted, started: int, bound: Any) -> Fetched | None:
        match outcome:
            case Dropped():
                bound.warning("outcome dropped", reason="the lock was lost")
                return None
            case Interrupted():
                code = await self._until_answered(job, RELEASE, *calls.release(self._keys, job_id=job.id, token=fetched.token))
                bound.info("job handed back", code=code)
                return None
        end = ending(
            self._keys,
            self._settings,
            job,
            outcome,
            token=fetched.token,
            stacks=fetched.fields.get("stacktrace"),
            started=started,
            now=now_ms(),
            random=random.random(),
        )
        next_call, token = self._next() if await self._wants_more() else (None, "")
        event = end.event.fields() if end.event else []
        keys = [self._log_key, *self._keys.keys("active", f"{job.id}:lock")]
        args = [
            end.kind,
            pack(pack_call(end.call)),
            pack(event),
            pack(pack_call(next_call) if next_call else []),
            job.id,
            fetched.token,
            self._lock_ms,
        ]
        code, found, error = await self._until_answered(job, FINISH, keys, args)
        self._report(bound, job, outcome, end.kind, int(code), now_ms() - started)
        if error:
            log.error("error after the end of a job", queue=self._keys.queue, error=error)
        next_job = parse_fetch(found, token, now_ms()) if found else None
        return next_job if isinstance(next_job, Fetched) else None

    async def _wants_more(self) -> bool:
        """Whether the next job may come with the end of this one."""
        try:
            return await self._memory.share() < PAUSE_FETCHING and not self._stopping
        except STORE_ERRORS:
            return False

    async def _until_answered(self, job: Job, script: Script, keys: list[str], args: list[Any]) -> Any:
        """The script's answer, however long the store is away. Repeating it is safe: what was applied before is refused the second time."""
        pause = 0.1
        while True:
            try:
                return await script(self._redis, keys, args)
            except STORE_ERRORS as error:
                log.warning("store away: outcome kept", queue=job.queue, jobId=job.id, error=str(error), retry_in=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)

    def _report(self, bound: Any, job: Job, outcome: Completed | Failed, kind: str, code: int, ms: int) -> None:
        if code in NOT_OURS:
            # Also what a repeated call answers when the first one was applied and its reply lost.
            bound.warning("outcome dropped", reason=NOT_OURS[code], code=code)
        elif code in WAITS_FOR_CHILDREN:
            bound.error("job not finished", reason=WAITS_FOR_CHILDREN[code], code=code)
        elif code < 0:
            bound.error("job not finished", code=code)
        elif isinstance(outcome, Completed):
            bound.info("job completed", ms=ms, attempt=job.attempt)
        elif kind == "finish":
            bound.error("job failed", ms=ms, attempt=job.attempt, reason=outcome.reason)
        else:
            bound.warning("attempt failed", ms=ms, attempt=job.attempt, attempts=job.attempts, reason=outcome.reason)


def _where(job: Job) -> dict[str, Any]:
    where: dict[str, Any] = {"queue": job.queue, "jobId": job.id}
    return where | {"runId": job.origin.run, "step": job.origin.step} if job.origin else where
