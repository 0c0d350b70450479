"""A queue in which a million jobs wait: its worker is no slower for it and no larger, and each job is done once."""

import statistics
from typing import Any

import pytest

from benchmarks.hookline import QUEUE
from benchmarks.measure import quotients
from benchmarks.size import alternating
from benchmarks.waiting import FEW, Backlog, backlog
from pipeline.store.keys import Keys
from pipeline.store.log import Log
from tests.support.soak import FULL, report, size

WAITING = size(20_000, 1_000_000)
ROUNDS = size(5, 9)
SECONDS = 2.0 if FULL else 0.4
LEAST = 0.8 if FULL else 0.5
"""In CI the cores are shared with other tests, and a turn is short."""
STILL = 0.9 if FULL else 0.5
"""Of the backlog, how much waited at all times: who fills it up again may be paused for as long as the worker needs for thousands."""
MIB = 150
PART = 5_000


async def _told(redis: Any) -> tuple[int, int]:
    """How many ends the log tells of, and of how many jobs."""
    log, told, ids, cursor = Log(redis, Keys().log), 0, set(), ""
    while events := await log.after(cursor, limit=PART):
        cursor = events[-1].cursor
        told += len(events)
        ids |= {event.data["jobId"] for event in events if event.type == "job.completed" and event.data["queue"] == QUEUE}
    return told, len(ids)


async def _all_done_once(one: Backlog) -> int:
    await one.finish(seconds=600)
    added = int(await one.redis.get(f"bull:{QUEUE}:id"))
    assert await _told(one.redis) == (added, added)
    return added


@pytest.mark.soak
@pytest.mark.timeout(1800 if FULL else 180)
async def test_a_backlog_slows_no_worker_and_makes_none_larger() -> None:
    async with backlog(FEW) as few, backlog(WAITING) as many:
        turns = {one.waiting: [] for one in (few, many)}
        for number in range(ROUNDS):
            for one in alternating((few, many), number):
                turns[one.waiting].append(await one.turn(SECONDS))
        done = [await _all_done_once(one) for one in (few, many)]
    ratio = quotients(turns[WAITING], turns[FEW])
    rates = {waiting: statistics.median(turn.rate for turn in found) for waiting, found in turns.items()}
    rss = max(turn.rss for turn in turns[WAITING])
    report(
        f"{WAITING:,} jobs waiting" if FULL else "jobs waiting",
        [
            f"{rates[WAITING]:,.0f} jobs/s while {WAITING:,} waited (never fewer than {many.least:,}), {rates[FEW]:,.0f} while {FEW:,} did",
            f"ratio {ratio.shown(2)}, of {ROUNDS} pairs of turns of {SECONDS:g} s each, on stores that are up at the same time",
            f"the worker's process had at most {rss:.0f} MiB",
            f"{done[0]:,} and {done[1]:,} jobs were added, each was completed once and told of once",
        ],
    )
    assert rss < MIB
    assert many.least > WAITING * STILL
    assert ratio.median >= LEAST
