"""The next job of a BullMQ job scheduler: when it is due, and that it is added once, however often it is asked for."""

import datetime
from typing import Any

import msgpack
import pytest
from redis.asyncio import Redis

from pipeline.jobs import schedulers
from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.jobs.model import Job

KEYS = QueueKeys("bull", "work")
MARCH = round(datetime.datetime(2026, 3, 28, 12, tzinfo=datetime.UTC).timestamp() * 1000)
OCTOBER = round(datetime.datetime(2026, 10, 24, 12, tzinfo=datetime.UTC).timestamp() * 1000)
"""Noon (UTC) before the nights in which the clocks of Berlin go forward and back."""
HOUR = 3_600_000


def job(repeat: dict[str, Any], **opts: Any) -> Job:
    opts = {"repeatJobKey": "often", "repeat": {"count": 1, **repeat}, **opts}
    return Job(id=f"repeat:often:{MARCH}", queue="work", name="do", data={}, attempt=1, attempts=1, timestamp=MARCH, opts=opts)


@pytest.mark.parametrize(
    ("repeat", "opts", "minutes"),
    [
        ({"pattern": "30 14 * * *"}, {}, 150),
        ({"pattern": "0 15 12 * * *"}, {}, 15),
        ({"pattern": "0 * * * *"}, {"prevMillis": MARCH + 5 * HOUR}, 360),
        ({"pattern": "0 * * * *", "startDate": "2026-03-29T00:30:00Z"}, {}, 780),
        ({"pattern": "@daily"}, {}, 720),
        ({"pattern": "0 * * * *", "limit": 2, "endDate": MARCH}, {}, 60),
        ({"pattern": "0 * * * *", "limit": 1}, {}, None),
        ({"pattern": "0 * * * *", "endDate": MARCH - 1}, {}, None),
    ],
)
def test_when_the_next_is_due(repeat: dict[str, Any], opts: dict[str, Any], minutes: int | None) -> None:
    call = schedulers.next_job(KEYS, job(repeat, **opts), MARCH)
    if minutes is None:
        assert call is None
        return
    assert call
    at, packed = call[1][0], call[1][3]
    assert isinstance(packed, bytes)
    assert at == MARCH + minutes * 60_000
    written = msgpack.unpackb(packed)
    assert (written["delay"], written["repeat"]["count"], written["prevMillis"]) == (minutes * 60_000, 2, at)


@pytest.mark.parametrize(
    ("pattern", "base", "hours"),
    [
        # What Node's cron-parser answers; twice a year croniter alone is an hour off.
        ("30 12 * * *", MARCH, (22.5, 46.5)),
        ("30 14 * * *", MARCH, (1.5, 24.5, 48.5)),
        ("30 2 * * *", MARCH, (13.5, 36.5)),
        ("30 12 * * *", OCTOBER, (23.5, 47.5)),
        ("30 14 * * *", OCTOBER, (0.5, 25.5)),
        ("30 2 * * *", OCTOBER, (12.5, 37.5)),
        ("0 * * * *", OCTOBER + 11 * HOUR, (1, 2, 3, 4)),
    ],
)
def test_the_clocks_change(pattern: str, base: int, hours: tuple[float, ...]) -> None:
    now, found = base, []
    for _ in hours:
        call = schedulers.next_job(KEYS, job({"pattern": pattern, "tz": "Europe/Berlin"}), now)
        assert call
        now = int(call[1][0])
        found.append((now - base) / HOUR)
    assert tuple(found) == hours


async def test_it_is_added_once_and_not_at_all_when_the_scheduler_is_gone(redis: Redis) -> None:
    await redis.zadd(KEYS.key("repeat"), {"often": MARCH})
    await redis.hset(KEYS.key("repeat:often"), mapping={"name": "do", "data": '{"n":1}', "every": 60_000, "ic": 1})
    one = job({"every": 60_000}, priority=3, attempts=2)
    for _ in range(3):
        await schedulers.go_on(redis, KEYS, one)
    (next_id,) = await redis.zrange(KEYS.key("delayed"), 0, -1)
    assert int(next_id.rpartition(":")[2]) > now_ms() - 1
    fields = await redis.hgetall(KEYS.key(next_id))
    assert (fields["name"], fields["data"], fields["rjk"], fields["priority"]) == ("do", '{"n":1}', "often", "3")
    await redis.delete(KEYS.key("repeat"), KEYS.key("repeat:often"), KEYS.key("delayed"))
    await schedulers.go_on(redis, KEYS, one)
    assert await redis.zcard(KEYS.key("delayed")) == 0


async def test_a_pattern_that_makes_no_sense_costs_no_job(redis: Redis) -> None:
    for repeat in ({"pattern": "every tuesday"}, {"pattern": "* * * * *", "tz": "Nowhere/At-all"}, {"every": 1, "limit": "many"}):
        await schedulers.go_on(redis, KEYS, job(repeat))
    assert await redis.keys("*") == []
