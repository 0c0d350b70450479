"""Jobs that would be lost: those of a dead worker, active without a lock, and those that wait where a resume of BullMQ 5 would not find them."""

import asyncio

import structlog

from pipeline.jobs import calls
from pipeline.jobs.calls import QueueKeys
from pipeline.jobs.fetched import Fetched
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.scripts import Script, lua, stock

MOVE_STALLED = Script(stock("moveStalledJobsToWait"))
KEEP_PAUSED = Script(lua("pipeline.jobs", "paused.lua") + "keepPaused(KEYS[1], KEYS[2], KEYS[3])")
INTERVAL_MS = 3_000
MAX_STALLED = 10
"""Put back this often, a job is not put back for another run: the next worker that fetches it fails it."""
TOO_OFTEN = "job stalled more than allowable limit"
"""BullMQ's words."""
log = structlog.get_logger(__name__)


async def recover(redis: Store, keys: QueueKeys, *, interval_ms: int = INTERVAL_MS, max_stalled: int = MAX_STALLED) -> list[str]:
    """One check; returns the ids of the jobs put back. A job is put back by the second check that finds it without a lock."""
    # A hair less than the interval: the script refuses a second check within it, and timers are not that exact.
    stalled = await MOVE_STALLED(redis, *calls.move_stalled(keys, max_stalled=max_stalled, interval_ms=max(interval_ms - 50, 1)))
    for job_id in stalled:
        log.warning("stalled job put back", queue=keys.queue, jobId=job_id)
    return [str(job_id) for job_id in stalled]


def endless(fetched: Fetched) -> str | None:
    """Why a job is not to be run again although BullMQ's script would have it so: that spares the jobs of schedulers for ever."""
    return TOO_OFTEN if fetched.scheduler is not None and int(fetched.stalls or 0) > MAX_STALLED else None


async def run(redis: Store, keys: QueueKeys, *, interval_ms: int = INTERVAL_MS, max_stalled: int = MAX_STALLED) -> None:
    away = False
    loop = asyncio.get_running_loop()
    while True:
        try:
            asked = loop.time()
            await redis.ping()
            # One that stood still lets locks run out as well as one that was away.
            away = away or loop.time() - asked > 2 * interval_ms / 1000
            if away:
                # Nobody could renew a lock meanwhile: this check only marks, so that the workers take theirs again first.
                await redis.delete(keys.key("stalled"))
            await recover(redis, keys, interval_ms=interval_ms, max_stalled=max_stalled)
            # Retried, delayed and stalled jobs come back to `wait` during a pause as well.
            await KEEP_PAUSED(redis, keys.keys("wait", "paused", "meta"), [])
            away = False
        except STORE_ERRORS as error:
            away = True
            log.warning("stalled jobs not checked", queue=keys.queue, error=str(error))
        except Exception:
            log.exception("stalled jobs not checked; it is tried again", queue=keys.queue)
        await asyncio.sleep(interval_ms / 1000)
