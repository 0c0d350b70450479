"""Job schedulers made by BullMQ's own client: each iteration that our worker takes brings the next."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from bullmq import Queue as BullQueue
from redis.asyncio import Redis

from pipeline.jobs.calls import QueueKeys
from pipeline.jobs.model import Context, Job
from pipeline.jobs.schedulers import next_iteration
from tests.redis.test_worker import QUEUE, Bench, config
from tests.support.events import count, events_until
from tests.support.valkey import Valkey

NOON = 1_764_158_400_000
"""2025-11-26T12:00:00Z"""


@pytest.fixture
async def bench(valkey: Valkey, redis: Redis) -> AsyncIterator[Bench]:
    made = Bench(valkey.socket_url, config())
    yield made
    await made.blocking.aclose()
    await made.redis.aclose()


@pytest.mark.parametrize("repeat", [{"every": 100, "limit": 4}, {"pattern": "* * * * * *", "limit": 2}], ids=["every", "pattern"])
async def test_a_scheduler_fires_until_its_limit(bench: Bench, redis: Redis, repeat: dict[str, Any]) -> None:
    queue = BullQueue(QUEUE, {"connection": redis})
    ran: list[tuple[Any, int]] = []

    async def run(job: Job, context: Context) -> None:
        ran.append((job.data, job.opts["repeat"]["count"]))

    async with bench.working(run):
        await queue.upsertJobScheduler("mine", repeat, "do", {"n": 7})
        told = await events_until(bench.log, count("job.completed", repeat["limit"]))
        # Nothing more is due once the last has been taken.
        assert await bench.queues.counts(QUEUE) == {**await bench.queues.counts(QUEUE), "delayed": 0, "waiting": 0}
    assert ran == [({"n": 7}, number) for number in range(1, repeat["limit"] + 1)]
    assert len({event.id for event in told}) == repeat["limit"]


async def test_a_scheduler_whose_pattern_makes_no_sense_stops_and_its_job_is_run(bench: Bench, redis: Redis) -> None:
    queue = BullQueue(QUEUE, {"connection": redis})
    await queue.upsertJobScheduler("mine", {"every": 50}, "do")
    (job_id,) = await redis.zrange(bench.keys.key("delayed"), 0, -1) or await redis.lrange(bench.keys.key("wait"), 0, -1)
    opts = (await redis.hget(bench.keys.key(job_id), "opts")).replace('"every":50', '"pattern":"every now and then"')
    await redis.hset(bench.keys.key(job_id), "opts", opts)

    async def run(job: Job, context: Context) -> None: ...

    async with bench.working(run):
        await events_until(bench.log, count("job.completed", 1))
    assert await redis.zcard(bench.keys.key("delayed")) == 0


def job(**repeat: Any) -> Job:
    return Job(id="repeat:s:1", queue="q", name="do", data=None, attempt=1, attempts=1, timestamp=NOON, opts={"repeat": repeat})


@pytest.mark.parametrize(
    ("repeat", "due"),
    [
        ({"pattern": "0 3 * * *"}, NOON + 15 * 3_600_000),
        ({"pattern": "30 0 12 * * *"}, NOON + 30_000),
        ({"pattern": "0 3 * * *", "tz": "Europe/Berlin"}, NOON + 14 * 3_600_000),
        ({"pattern": "0 13 * * *", "startDate": "2025-11-27T00:00:00Z"}, NOON + 25 * 3_600_000),
        ({"pattern": "0 13 * * *", "limit": 3, "count": 2}, NOON + 3_600_000),
        ({"pattern": "0 13 * * *", "limit": 3, "count": 3}, None),
        ({"pattern": "0 13 * * *", "endDate": NOON - 1}, None),
    ],
)
def test_when_the_next_iteration_is_due(repeat: dict[str, Any], due: int | None) -> None:
    call = next_iteration(QueueKeys("bull", "q"), job(**repeat), "s", NOON)
    assert (call[1][0] if call else None) == due


@pytest.mark.parametrize("repeat", [{"pattern": "tomorrow"}, {"pattern": "* * * * *", "tz": "Mars/Base"}, {}, {"pattern": "* * * * *", "limit": "many"}])
def test_what_no_scheduler_has_is_a_clear_error(repeat: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        next_iteration(QueueKeys("bull", "q"), job(**repeat), "s", NOON)
