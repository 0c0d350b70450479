"""The finish transaction: a job's end and its event are both-or-neither, whatever BullMQ's script answers."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from pipeline.config import Config
from pipeline.jobs import calls, events
from pipeline.jobs.attempt import Completed, Failed, read_job
from pipeline.jobs.closing import FINISH
from pipeline.jobs.ending import ending
from pipeline.jobs.fetched import Fetched
from pipeline.jobs.queues import Queues
from pipeline.store.log import Log
from pipeline.store.scripts import bullmq_version, digest, pack, pack_call
from tests.support.jobs import take

QUEUE = "document-processing"
CONFIG = Config()
KEYS = Queues(None, CONFIG).keys(QUEUE)
TOKEN = "t0ken"

CALLED = {
    "addStandardJob": "6f61f23b5d27ad6e",
    "getCounts": "8b92225a199eba16",
    "getStateV2": "7332cc020b73227b",
    "moveJobFromActiveToWait": "ac9546cdd23294a2",
    "moveStalledJobsToWait": "dad86d89b50d825f",
    "moveToActive": "7d35069db0b831af",
    "moveToDelayed": "1a7b9311ef92fd66",
    "moveToFinished": "8e744ec5d65dbe9e",
    "removeJob": "f2acb16fda20ccac",
    "retryJob": "01f75f7604305080",
    "updateJobScheduler": "8c71d358aa62ffb7",
    "updateProgress": "62d0cce017bd552a",
}


@pytest.mark.parametrize("name", CALLED)
def test_the_private_scripts_we_call_are_those_we_know(name: str) -> None:
    assert digest(name) == CALLED[name], (
        f"bullmq {bullmq_version()} changed {name}.lua: compare it with pipeline/jobs/calls.py before you pin the new hash"
    )


async def active_job(redis: Redis, **data: Any) -> Fetched:
    await Queues(redis, CONFIG).add(QUEUE, "process-document", data or {"documentId": "d", "userId": "u"})
    fetched = await take(redis, KEYS, TOKEN)
    assert fetched
    return fetched


async def finish(redis: Redis, fetched: Fetched, *, token: str = TOKEN, outcome: Any = None) -> list[Any]:
    job = read_job(QUEUE, fetched)
    end = ending(
        KEYS,
        CONFIG.queues[QUEUE],
        job,
        outcome or Completed(result='{"ok":true}'),
        token=token,
        stacks=None,
        started=1,
        now=calls.now_ms(),
        random=0.0,
    )
    event = end.event.fields() if end.event else []
    args = [end.kind, pack(pack_call(end.call)), pack(event), job.id, token, 10_000]
    return list(await FINISH(redis, ["hookline:log", *KEYS.keys("active", f"{job.id}:lock")], args))


async def test_a_finish_appends_one_event_with_all_that_its_consumers_need(redis: Redis) -> None:
    fetched = await active_job(redis)
    assert await finish(redis, fetched) == [0, None]
    (event,) = await Log(redis, "hookline:log").after("", limit=10)
    assert (event.type, event.data["queue"], event.data["job"], event.data["jobId"]) == ("job.completed", QUEUE, "process-document", fetched.job_id)
    assert (event.data["documentId"], event.data["userId"], event.data["attempts"], event.data["result"]) == ("d", "u", 1, {"ok": True})
    assert event.id == events.job_completed(read_job(QUEUE, fetched), {}, started=0, now=0).id


async def _job_removed(redis: Redis, job_id: str) -> None:
    await redis.delete(KEYS.key(job_id))


async def _put_back(redis: Redis, job_id: str) -> None:
    """As a stalled check does with a job whose lock ran out."""
    await redis.delete(KEYS.key(f"{job_id}:lock"))
    await redis.lmove(KEYS.key("active"), KEYS.key("wait"))


async def _not_active(redis: Redis, job_id: str) -> None:
    await redis.lrem(KEYS.key("active"), 0, job_id)


async def _children_pending(redis: Redis, job_id: str) -> None:
    await redis.sadd(KEYS.key(f"{job_id}:dependencies"), "bull:other:1")


async def _other_token(redis: Redis, job_id: str) -> None:
    await redis.set(KEYS.key(f"{job_id}:lock"), "another")


async def _children_failed(redis: Redis, job_id: str) -> None:
    await redis.zadd(KEYS.key(f"{job_id}:unsuccessful"), {"bull:other:1": 1})


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(_job_removed, -1), (_put_back, -2), (_not_active, -3), (_children_pending, -4), (_other_token, -6), (_children_failed, -9)],
)
async def test_each_refusal_appends_no_event(redis: Redis, spoil: Callable[[Redis, str], Awaitable[None]], code: int) -> None:
    fetched = await active_job(redis)
    await spoil(redis, fetched.job_id)
    assert (await finish(redis, fetched))[0] == code
    assert await redis.xlen("hookline:log") == 0
    assert await redis.zcard(KEYS.key("completed")) == 0


async def test_a_lock_that_ran_out_while_nobody_took_the_job_keeps_no_outcome_from_being_recorded(redis: Redis) -> None:
    fetched = await active_job(redis)
    await redis.delete(KEYS.key(f"{fetched.job_id}:lock"))
    assert (await finish(redis, fetched))[0] == 0
    assert await redis.xlen("hookline:log") == 1
    assert not await redis.exists(KEYS.key(f"{fetched.job_id}:lock"))


async def test_a_finish_repeated_after_a_lost_reply_appends_nothing_more(redis: Redis) -> None:
    fetched = await active_job(redis)
    assert [(await finish(redis, fetched))[0], (await finish(redis, fetched))[0]] == [0, -2]
    assert await redis.xlen("hookline:log") == 1


async def test_a_retry_appends_no_event_and_the_last_attempt_appends_job_failed(redis: Redis) -> None:
    broken = Failed(reason="no luck", stack="Traceback …", permanent=False)
    fetched = await active_job(redis)
    assert (await finish(redis, fetched, outcome=broken))[0] == 0
    assert await redis.xlen("hookline:log") == 0
    assert await redis.zcard(KEYS.key("delayed")) == 1
    await redis.zadd(KEYS.key("delayed"), {fetched.job_id: 0})
    again = await take(redis, KEYS, TOKEN)
    assert again
    assert (await finish(redis, replace(again, made="2"), outcome=broken))[0] == 0
    (event,) = await Log(redis, "hookline:log").after("", limit=10)
    assert (event.type, event.data["error"], event.data["attempts"]) == ("job.failed", "no luck", 3)
    assert await redis.hget(KEYS.key(fetched.job_id), "failedReason") == "no luck"


async def test_a_script_that_raises_after_the_job_left_active_still_tells_of_its_end(redis: Redis) -> None:
    fetched = await active_job(redis)
    await redis.set(KEYS.key("prioritized"), "not a sorted set")
    code, error = await finish(redis, fetched)
    assert code == 0
    assert "WRONGTYPE" in error
    assert await redis.xlen("hookline:log") == 1


async def test_a_script_that_raises_before_that_ends_nothing(redis: Redis) -> None:
    fetched = await active_job(redis)
    await redis.delete(KEYS.key("stalled"))
    await redis.set(KEYS.key("stalled"), "not a set")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await finish(redis, fetched)
    assert await redis.xlen("hookline:log") == 0
    assert await redis.lrange(KEYS.key("active"), 0, -1) == [fetched.job_id]
