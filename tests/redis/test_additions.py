"""Jobs that are added together leave what BullMQ's script leaves, one after the other; each caller is answered for its own."""

import asyncio
import json
import random
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from pipeline.config import Config
from pipeline.errors import Conflict, NotFound
from pipeline.jobs import additions, calls
from pipeline.jobs.additions import TOGETHER, TOGETHER_BYTES
from pipeline.jobs.plain import ADD
from pipeline.jobs.queues import Queues
from pipeline.store.idempotency import JOB, Answer, Claim
from pipeline.store.keys import Keys
from pipeline.store.scripts import composed
from tests.support.contents import contents

QUEUES = {"work": {"processors": {"do": "x:y"}}, "theirs": {"processors": {"do": "external"}}}
STOCK = composed(ADD + "return add(KEYS, ARGV)", "addStandardJob")
NOW = 1_764_150_000_000
META = {
    "as it comes": {},
    "paused": {"paused": 1},
    "paused by BullMQ 5": {"paused": 1, "version": "bullmq:5.81.5"},
    "a concurrency for all": {"concurrency": 2},
    "a concurrency for all, used up": {"concurrency": 1},
    "events cut": {"opts.maxLenEvents": 10},
}
ANSWER = Answer(status=201, headers={"Location": f"/x/{JOB}"}, body='{"jobId":"@job@"}')


def queues(redis: Redis, prefix: str = "bull") -> Queues:
    return Queues(redis, Config(queues=QUEUES, bullmq={"prefix": prefix}))


def claim(key: str, body: str = "") -> Claim:
    return Claim(key=f"hookline:idempotency:{key}", fingerprint=body)


async def below(redis: Redis, prefix: str) -> dict[str, Any]:
    """Two JSON texts are the same if they say the same."""
    found = await contents(redis, prefix)
    return {
        key: value | {"opts": json.loads(value["opts"])} if isinstance(value, dict) and "opts" in value else value for key, value in found.items()
    }


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("case", META)
async def test_jobs_added_together_leave_the_keys_fields_and_events_of_single_calls(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, case: str, queue: str
) -> None:
    for module in (additions, calls):
        monkeypatch.setattr(module, "now_ms", lambda: NOW)
    together, single = queues(redis, "together"), queues(redis, "single")
    for side in (together, single):
        await redis.lpush(side.keys(queue).key("active"), "a")
        if META[case]:
            await redis.hset(side.keys(queue).key("meta"), mapping=META[case])
    chance = random.Random(case)
    for _ in range(12):
        jobs = [{"n": chance.random(), "text": "ä" * chance.randrange(9)} for _ in range(chance.choice([1, 2, 7, TOGETHER + 1]))]
        added = await asyncio.gather(*(together.add(queue, "do", data) for data in jobs))
        ids = []
        for data in jobs:
            ids.append(await STOCK(redis, *single.add_call(queue, "do", data)))
        assert [one.job_id for one in added] == ids
        await redis.delete(*await redis.keys("hookline:once:*"))
        assert await below(redis, "together") == await below(redis, "single")
        # A worker takes some.
        for side in (together, single):
            await redis.delete(side.keys(queue).key("marker"))
            await redis.rpop(side.keys(queue).key("wait"), 3)


async def test_jobs_of_one_tick_are_one_call_and_many_or_large_ones_several(redis: Redis) -> None:
    async def sent(count: int, size: int) -> int:
        await asyncio.gather(*(one.add("work", "do", "x" * size) for _ in range(count)))
        keys = await redis.keys("hookline:once:*")
        await redis.delete(*keys)
        return len(keys)

    one = queues(redis)
    assert await sent(TOGETHER, 10) == 1
    assert await sent(TOGETHER + 1, 10) == 2
    assert await sent(4, TOGETHER_BYTES // 2) == 2
    assert await redis.llen("bull:work:wait") == 2 * TOGETHER + 5


async def test_a_key_that_comes_twice_in_one_call_adds_one_job(redis: Redis) -> None:
    one = queues(redis)
    asked = ["k", "", "k", "other", "k"]
    added = await asyncio.gather(*(one.add("work", "do", {}, claim=claim(key) if key else None, answer=ANSWER) for key in asked))
    assert [found.job_id for found in added] == ["1", "2", "", "3", ""]
    assert added[2].replay == Answer(status=201, headers={"Location": "/x/1"}, body='{"jobId":"1"}')
    again = await one.add("work", "do", {}, claim=claim("k"), answer=ANSWER)
    assert again.replay == added[2].replay
    assert await redis.llen("bull:work:wait") == 3


async def test_another_body_under_a_key_is_refused_and_takes_no_other_along(redis: Redis) -> None:
    one = queues(redis)
    adding = (one.add("work", "do", {}, claim=claim("k", body), answer=ANSWER) for body in ("a", "b"))
    first, second, third = await asyncio.gather(*adding, one.add("work", "do", {}), return_exceptions=True)
    assert isinstance(second, Conflict)
    assert not isinstance(first, BaseException)
    assert not isinstance(third, BaseException)
    assert await redis.lrange("bull:work:wait", 0, -1) == ["2", "1"]


RECORDS = {
    "hers": {"userId": "alice", "filename": "a", "sha256": ""},
    "his": {"userId": "bob", "filename": "a", "sha256": ""},
    "erased": {"userId": "alice", "filename": "a", "sha256": "", "erasing": NOW},
    "marked": {"userId": None, "filename": "", "sha256": "", "erasing": NOW},
}


@pytest.mark.parametrize(
    ("documents", "user", "refused"),
    [
        (["hers"], "alice", None), (["his"], "alice", "his"), (["his"], None, None), (["erased"], "alice", "erased"), (["erased"], None, "erased"),
        (["marked"], None, "marked"), (["unknown"], "alice", None), (["unknown", "his"], "alice", "his"), (["hers", "unknown"], "alice", None),
        (["broken"], "alice", "broken"),
    ],
)  # fmt: skip
async def test_a_job_that_may_not_name_a_document_is_not_added_and_takes_no_other_along(
    redis: Redis, documents: list[str], user: str | None, refused: str | None
) -> None:
    one = queues(redis)
    for name, record in RECORDS.items():
        await redis.set(Keys().document(name), orjson.dumps(record).decode())
    await redis.set(Keys().document("broken"), "no JSON")
    asked = one.add("work", "do", {"n": 1}, claim=claim("k"), answer=ANSWER, documents=documents, user=user)
    found, other = await asyncio.gather(asked, one.add("work", "do", {"n": 2}), return_exceptions=True)
    assert not isinstance(other, BaseException)
    if refused is None:
        assert not isinstance(found, BaseException)
        assert await redis.llen("bull:work:wait") == 2
        return
    assert isinstance(found, NotFound)
    assert refused in found.message
    assert await redis.lrange("bull:work:wait", 0, -1) == [other.job_id]
    assert not await redis.exists("hookline:idempotency:k")


async def test_a_queue_that_is_broken_answers_each_of_its_callers_and_no_other(redis: Redis) -> None:
    await redis.set("bull:work:wait", "no list")
    one = queues(redis)
    *failed, good = await asyncio.gather(*(one.add(queue, "do", {}) for queue in ("work", "work", "theirs")), return_exceptions=True)
    assert [type(error) for error in failed] == [ResponseError, ResponseError]
    assert not isinstance(good, BaseException)
    assert good.job_id == "1"


async def test_a_store_that_is_full_takes_none_of_a_call(redis: Redis) -> None:
    one = queues(redis)
    await one.add("work", "do", {}, claim=claim("k"), answer=ANSWER)
    await redis.config_set("maxmemory", 1)
    try:
        asked = (one.add("work", "do", {}, claim=claim(key), answer=ANSWER) for key in ("a", "b"))
        assert [type(error) for error in await asyncio.gather(*asked, return_exceptions=True)] == [OutOfMemoryError] * 2
        # What was accepted before stays accepted.
        assert (await one.add("work", "do", {}, claim=claim("k"), answer=ANSWER)).replay
    finally:
        await redis.config_set("maxmemory", 0)
    assert await redis.llen("bull:work:wait") == 1
    assert await redis.get("bull:work:id") == "1"


async def test_a_caller_that_goes_away_disturbs_no_other(redis: Redis) -> None:
    one = queues(redis)
    tasks = [asyncio.create_task(one.add("work", "do", {})) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[1], asyncio.CancelledError)
    assert [one.job_id for one in found if not isinstance(one, BaseException)] == ["1", "3"]
    assert await redis.llen("bull:work:wait") == 3
