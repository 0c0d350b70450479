"""Jobs added together leave what BullMQ's script leaves of each, one after the other; what goes wrong with one queue concerns no other."""

from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from pipeline.jobs import calls
from pipeline.jobs.calls import QueueKeys
from pipeline.jobs.model import Origin
from pipeline.jobs.plain import ADD, ADD_ALL, Plain, plain
from pipeline.store.scripts import composed, pack, pack_call

TOGETHER = composed(ADD_ALL + "return cjson.encode({addAll(cmsgpack.unpack(ARGV[1]))})", "addStandardJob")
ALONE = composed(ADD + "local call = cmsgpack.unpack(ARGV[1]) return add(call[1], call[2])", "addStandardJob")
NOW = 1_764_150_000_000
KEEP = {"attempts": 3, "backoff": {"type": "exponential", "delay": 1000}, "removeOnComplete": {"count": 100}, "removeOnFail": False}
JOBS: list[tuple[str, dict[str, Any]]] = [
    *((f"r{number}_one_1", {"data": {"n": number, "text": "“ü”\n"}}) for number in range(3)),
    ("other", {"queue": "second", "data": None}),
    ("r1_one_1", {"data": {"again": True}}),
    ("external", {"data": [1.5, []], "opts": {"removeOnComplete": False, "removeOnFail": False, "hookline": calls.KEPT}}),
    ("last", {"queue": "second", "data": "x" * 10_000}),
]
METAS = {
    "new": {},
    "known": {"opts.maxLenEvents": "3", "version": "bullmq:6.7.0"},
    "paused": {"paused": "1"},
    "paused by BullMQ 5": {"paused": "1", "version": "bullmq:5.81.5"},
    "limited": {"concurrency": "2"},
}


def opts(job_id: str, more: dict[str, Any]) -> dict[str, Any]:
    mark = Origin(run="run_1", workflow="w", step="one", n=1, user=None, document="d").mark()
    return {**KEEP, "jobId": job_id, "hookline": mark, **more}


async def everything(redis: Redis, prefix: str) -> dict[str, Any]:
    """All keys below a prefix; of options what they say, for they are JSON of two writers."""
    found: dict[str, Any] = {}
    for key in await redis.keys(f"{prefix}:*"):
        name, kind = key.removeprefix(prefix), await redis.type(key)
        if kind == "hash":
            fields = await redis.hgetall(key)
            found[name] = fields | {"opts": orjson.loads(fields["opts"])} if "opts" in fields else fields
        elif kind == "stream":
            found[name] = [fields for _, fields in await redis.xrange(key)]
        elif kind == "list":
            found[name] = await redis.lrange(key, 0, -1)
        elif kind == "zset":
            found[name] = await redis.zrange(key, 0, -1, withscores=True)
        else:
            found[name] = await redis.get(key)
    return found


@pytest.mark.parametrize("meta", METAS.values(), ids=METAS)
@pytest.mark.parametrize("repeated", [True, False], ids=["an id twice", "each id once"])
async def test_the_same_is_left(redis: Redis, meta: dict[str, str], repeated: bool) -> None:
    jobs = JOBS if repeated else [(job_id, job) for job_id, job in JOBS if "again" not in str(job)]
    together: list[Plain] = []
    for prefix in ("one", "all"):
        if meta:
            await redis.hset(f"{prefix}:first:meta", mapping=meta)
    for job_id, job in jobs:
        settings, data, queue = opts(job_id, job.get("opts", {})), job["data"], job.get("queue", "first")
        call = calls.add_standard(QueueKeys("one", queue), name="do", data=data, opts=settings, job_id=job_id, now=NOW)
        assert await ALONE(redis, [], [pack(pack_call(call))]) == job_id
        together.append(plain(QueueKeys("all", queue), name="do", data=data, opts=orjson.dumps(settings), job_id=job_id, now=NOW))
    assert await TOGETHER(redis, [], [pack(together[:2])]) == "[{}]"
    assert await TOGETHER(redis, [], [pack(together[2:])]) == "[{}]"
    assert await everything(redis, "all") == await everything(redis, "one")


async def test_a_queue_that_cannot_be_added_to_holds_up_no_other(redis: Redis) -> None:
    await redis.set("all:first:wait", "not a list")
    jobs = [plain(QueueKeys("all", queue), name="do", data=1, opts=orjson.dumps(KEEP), job_id=queue, now=NOW) for queue in ("first", "second")]
    (reasons,) = orjson.loads(await TOGETHER(redis, [], [pack(jobs)]))
    assert "WRONGTYPE" in str(reasons)
    assert await redis.lrange("all:second:wait", 0, -1) == ["second"]
