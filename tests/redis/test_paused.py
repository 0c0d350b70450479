"""A queue that BullMQ 5 has paused: what comes to `wait` meanwhile is kept where its resume finds it; a pause of BullMQ 6 is only a flag."""

import asyncio

import pytest
from redis.asyncio import Redis

from pipeline.config import Config
from pipeline.jobs import stalled
from pipeline.jobs.queues import Queues
from pipeline.store import connection
from tests.support.valkey import Valkey

QUEUES = Queues(None, Config(queues={"work": {"processors": {"do": "x:y"}}}))
KEYS = QUEUES.keys("work")
WAIT, PAUSED, META = KEYS.keys("wait", "paused", "meta")


@pytest.mark.parametrize(
    ("version", "paused", "moves"),
    [("bullmq:5.81.5", [], True), ("bullmq:6.7.0", ["c", "b", "a"], True), ("bullmq:6.7.0", [], False), ("", [], False)],
)
async def test_jobs_that_come_back_are_moved_beside_the_rest(redis: Redis, version: str, paused: list[str], moves: bool) -> None:
    await redis.hset(META, mapping={"paused": 1, "version": version})
    # Lists are served from their ends: `a` has waited longest.
    for key, jobs in ((PAUSED, paused), (WAIT, ["e", "d"])):
        for job in reversed(jobs):
            await redis.lpush(key, job)
    await stalled.KEEP_PAUSED(redis, [WAIT, PAUSED, META], [])
    assert await redis.lrange(PAUSED, 0, -1) == (["e", "d", *paused] if moves else paused)
    assert await redis.lrange(WAIT, 0, -1) == ([] if moves else ["e", "d"])


async def test_a_queue_that_runs_is_left_alone(redis: Redis) -> None:
    await redis.hset(META, "version", "bullmq:5.81.5")
    await redis.lpush(WAIT, "a")
    await stalled.KEEP_PAUSED(redis, [WAIT, PAUSED, META], [])
    assert await redis.lrange(WAIT, 0, -1) == ["a"]


async def test_the_check_for_stalled_jobs_does_it(valkey: Valkey, redis: Redis) -> None:
    client = connection.connect(valkey.socket_url)
    await redis.hset(META, mapping={"paused": 1, "version": "bullmq:5.81.5"})
    await redis.lpush(WAIT, "a")
    task = asyncio.create_task(stalled.run(client, KEYS, interval_ms=20))
    # The list's own signal that the job has come.
    assert await redis.brpoplpush(PAUSED, "taken", 5) == "a"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await client.aclose()
