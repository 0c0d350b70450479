"""The bridge to foreign workers: tells the event log, once each, of the jobs that they end on external queues."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import structlog

from pipeline.config.queues import Queue
from pipeline.jobs import calls
from pipeline.jobs.calls import now_ms
from pipeline.jobs.finished import Finished, finished
from pipeline.jobs.queues import Queues
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.keys import Keys
from pipeline.store.scripts import Argument, Script, composed, lua, pack

TELL = composed(lua("pipeline.jobs", "tell.lua"), "removeJob")
UNTOLD = Script(lua("pipeline.jobs", "untold.lua"))
State = Literal["completed", "failed"]
ENDS: tuple[State, ...] = ("completed", "failed")
"""Both the sets that BullMQ keeps ended jobs in, and the events that tell of them."""
EVERY_SECONDS = 15.0
BLOCK_MS = 1000
PAGE = 200
OVERLAP_MS = 300_000
"""How far the clocks of foreign workers may be apart: a job is filed under the time of the one that ended it."""
MARK_SECONDS = 7 * 86_400
log = structlog.get_logger(__name__)


class Bridge:
    """BullMQ's event streams are hints, which may be trimmed or deleted; the hashes of ended jobs are what counts. Any number may run."""

    def __init__(self, redis: Store, keys: Keys, queues: Queues) -> None:
        self._redis = redis
        self._keys = keys
        self._queues = queues

    async def open(self) -> None:
        """Remember since when each external queue is one: what ended before was told by our own workers, or is nobody's business."""
        external = self._queues.external
        for queue in self._queues.names:
            if queue in external:
                await self._redis.hsetnx(self._keys.bridge(queue), "since", now_ms())
            else:
                await self._redis.delete(self._keys.bridge(queue))

    # --- the hint: BullMQ's event streams ---------------------------------------------------------------------------

    async def follow(self) -> None:
        """Until cancelled: tell of jobs within moments of their end."""
        pause = 0.1
        positions: dict[str, str] = {}
        while True:
            try:
                positions = positions or await self._positions()
                await self._read(positions)
                pause = 0.1
            except STORE_ERRORS as error:
                log.warning("store away", part="bridge", error=str(error), retry_in=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
            except Exception:
                # An entry that cannot be read would be met again and again; the look through the hashes misses nothing.
                log.exception("events of external queues cannot be read: followed from now on")
                await asyncio.sleep(1.0)
                positions = dict.fromkeys(self._queues.external, "$")

    async def _positions(self) -> dict[str, str]:
        """Where to go on reading each queue's stream, whose ids are times."""
        found: dict[str, str] = {}
        for queue in self._queues.external:
            stream, since = await self._redis.hmget(self._keys.bridge(queue), "stream", "since")
            found[queue] = stream or f"{since or now_ms()}-0"
        return found

    async def _read(self, positions: dict[str, str]) -> None:
        """Wait for entries, tell of the jobs that they name, and move the positions on."""
        streams = {self._queues.keys(queue).key("events"): queue for queue in positions}
        found = await self._redis.xread({key: positions[queue] for key, queue in streams.items()}, count=PAGE, block=BLOCK_MS)
        for key, entries in _by_stream(found):
            queue = streams[key]
            await self.tell(queue, (fields["jobId"] for _, fields in entries if fields.get("event") in ENDS and "jobId" in fields))
            positions[queue] = entries[-1][0]
            await self._redis.hset(self._keys.bridge(queue), "stream", positions[queue])

    # --- the truth: hashes of ended jobs ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: look for what the streams did not tell."""
        while True:
            try:
                await self.look(now_ms())
            except STORE_ERRORS as error:
                log.warning("store away", part="bridge", error=str(error))
            except Exception:
                log.exception("external queues cannot be looked through; it is tried again")
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self, now: int) -> None:
        """Tell of every ended job that is still there and was not told of."""
        for queue in self._queues.external:
            for state in ENDS:
                await self._look_through(queue, state, now)

    async def _look_through(self, queue: str, state: State, now: int) -> None:
        since, reached = await self._redis.hmget(self._keys.bridge(queue), "since", state)
        low = max(int(since or now), int(reached or 0) - OVERLAP_MS)
        seen: set[str] = set()
        # Jobs leave the set meanwhile, so the next page begins at a time and not at a count.
        while rows := await self._redis.zrange(
            self._queues.keys(queue).key(state), low, "+inf", byscore=True, offset=0, num=PAGE + len(seen), withscores=True
        ):
            fresh = [str(job_id) for job_id, _ in rows if job_id not in seen]
            if not fresh:
                break
            await self.tell(queue, fresh)
            last = int(rows[-1][1])
            seen = {str(job_id) for job_id, at in rows if int(at) == last} | (seen if last == low else set())
            low = last
        # A clock that is ahead must not hide what the others end.
        await self._redis.hset(self._keys.bridge(queue), state, min(low, now))

    async def tell(self, queue: str, job_ids: Iterable[str]) -> None:
        """Tell of those of the jobs that have ended and were not told of."""
        ids = list(dict.fromkeys(job_ids))
        prefix: list[Argument] = [self._queues.keys(queue).base, self._keys.done(queue)]
        untold: Sequence[str] = await UNTOLD(self._redis, [], [*prefix, *ids]) if ids else ()
        ends = await asyncio.gather(*(self._tell(queue, job_id) for job_id in untold), return_exceptions=True)
        for job_id, error in zip(untold, ends, strict=True):
            if isinstance(error, (*STORE_ERRORS, asyncio.CancelledError)):
                raise error
            if error is not None:
                # One job that makes no sense holds up nobody else's.
                log.error("the end of an external job cannot be told", queue=queue, jobId=job_id, error=repr(error))

    async def _tell(self, queue: str, job_id: str) -> None:
        keys = self._queues.keys(queue)
        fields = await self._redis.hgetall(keys.key(job_id))
        end = finished(queue, job_id, fields)
        if end is None:
            return
        made = fields.get("atm", "")
        state: State = "completed" if end.error is None else "failed"
        told = await TELL(
            self._redis,
            [self._keys.done(queue, job_id, made), self._keys.log, keys.key(job_id), self._keys.kept(queue, state)],
            [fields["finishedOn"], made, pack(end.event.fields()), MARK_SECONDS, _keep(self._queues.settings(queue), end, state), keys.base, job_id],
        )
        if told:
            log.info("external job ended", queue=queue, jobId=job_id, state=state, **({"runId": end.job.origin.run} if end.job.origin else {}))


def _keep(settings: Queue, end: Finished, state: State) -> Argument:
    """How many such jobs the queue keeps, or '': the engine removes a run's job, and whoever adds others says how long they stay."""
    kept = getattr(settings.keep, state)
    return int(kept) if end.job.opts.get("hookline") == calls.KEPT and kept >= 0 else ""


def _by_stream(found: Any) -> list[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """The entries of an XREAD answer by stream; RESP3 gives a map, and the entries one level deeper."""
    pairs = found.items() if isinstance(found, dict) else found or []
    return [(key, rows[0] if isinstance(rows[0], list) and isinstance(rows[0][0], list | tuple) else rows) for key, rows in pairs if rows]
