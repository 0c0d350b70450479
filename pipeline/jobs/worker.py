"""The worker of one queue: keeps its slots filled, trades ended jobs for new ones, drains on request."""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Coroutine
from typing import Any

import structlog

from pipeline.config.queues import Queue
from pipeline.jobs import stalled
from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.jobs.closing import refused
from pipeline.jobs.context import where
from pipeline.jobs.markers import Markers
from pipeline.jobs.slots import Runs, Slots
from pipeline.jobs.trade import ALONE, TRADE, Desk, Ended, Traded, parse
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
        self._desk = Desk(keys, settings, log_key=log_key, lock_ms=lock_ms, worker=name)
        self._slots = Slots(
            redis, keys, settings, runner, self._desk, log_key=log_key, lock_ms=lock_ms, ended=self._job_ended, freed=self._slot_freed
        )
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
        self._beside: set[asyncio.Task[None]] = set()
        """Exchanges, above all."""
        self._markers = Markers(redis, keys, ask=self._kick, room=lambda: self._free > 0)
        self._watching = False
        self._kicked = False
        self._stopping = False
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
            asyncio.create_task(self._slots.locks.run()),
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
            tasks = [*upkeep, *self._beside]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, *self._slots.close(), return_exceptions=True)

    async def stop(self, seconds: float) -> None:
        """Fetch no more, let running jobs end within `seconds`, then hand back those that did not."""
        self._stopping = True
        if not self._watching:
            return  # it has not begun, and will not
        self._run_beside(self._stop_watching())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        self._slots.hand_back()

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
        if self._stopping and not (self._flights or self._slots.busy or self._ended or self._watching):
            self._over.set()

    def _run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def _job_ended(self, end: Ended) -> None:
        self._ended.append(end)
        if not self._kicked:
            self._kick()

    def _slot_freed(self) -> None:
        self._free += 1
        # Its end may have made room in the queue's global concurrency; unlike an exchange it has brought no other job.
        self._markers.dry = False
        self._kick()

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
                self._slots.run(fetched)
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
                self._slots.complete_alone(end)
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
                return parse(await TRADE.once(self._redis, *self._desk.call(ends, want=want, token=token, again=again)))
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
            named = where(end.job, end.processor)
            if answer == ALONE or isinstance(answer, str):
                if answer != ALONE:
                    # Alone, it is tried again until it works: an error of the store is no reason to run the job twice.
                    log.error("job not completed; it is tried alone", **named, error=answer)
                self._slots.complete_alone(end)
                held += 1
                continue
            self._slots.locks.release(end.fetched.token)
            if answer == 0:
                named["ms"], named["attempt"] = now - end.started, end.job.attempt
                completed.append(named)
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
