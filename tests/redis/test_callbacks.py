"""Callback records on a real store: each window between the request, the 202, the hold and the answer."""

from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline.config import Config
from pipeline.jobs import calls
from pipeline.jobs.attempt import read_job
from pipeline.jobs.callbacks import CALLBACK, Callbacks, Links, callback_id
from pipeline.jobs.calls import now_ms
from pipeline.jobs.closing import HOLD
from pipeline.jobs.model import Job
from pipeline.jobs.queues import Queues
from pipeline.store.scripts import Script, pack, pack_call, stock
from tests.support.jobs import take

QUEUE = "document-processing"
CONFIG = Config()
KEYS = Queues(None, CONFIG).keys(QUEUE)


async def fetched(redis: Redis) -> Job:
    await Queues(redis, CONFIG).add(QUEUE, "process-document", {})
    taken = await take(redis, KEYS)
    assert taken
    return read_job(QUEUE, taken)


async def hold(redis: Redis, job: Job, record: str) -> list[Any]:
    call = calls.move_to_delayed(KEYS, job_id=job.id, token="t", delay_ms=60_000, fields={}, skip_attempt=True)
    keys = [record, "hookline:log", *KEYS.keys("active", f"{job.id}:lock")]
    return list(await HOLD(redis, keys, [pack(pack_call(call)), pack([]), job.id, "t", 10_000]))


@pytest.fixture
def callbacks(redis: Redis) -> Callbacks:
    return Callbacks(redis, prefix="hookline", bull_prefix="bull")


async def test_a_held_job_is_put_back_by_its_answer_without_counting_an_attempt(redis: Redis, callbacks: Callbacks) -> None:
    job = await fetched(redis)
    record = await callbacks.open(job, now_ms() + 60_000)
    assert (record.sent, record.answer) == (False, None)
    assert await hold(redis, job, record.key) == [0, 0]
    assert await redis.zcard(KEYS.key("delayed")) == 1
    assert await callbacks.answer(callback_id(job), {"result": 1}, now_ms()) == "accepted"
    assert await redis.lrange(KEYS.key("wait"), 0, -1) == [job.id]
    assert await redis.hget(KEYS.key(job.id), "atm") is None
    again = await callbacks.open(job, now_ms() + 999_000)
    assert (again.sent, again.answer, again.deadline) == (True, {"result": 1}, record.deadline)


async def test_a_lock_that_ran_out_does_not_cost_the_hold_but_anothers_does(redis: Redis, callbacks: Callbacks) -> None:
    job = await fetched(redis)
    record = await callbacks.open(job, now_ms() + 60_000)
    await redis.set(KEYS.key(f"{job.id}:lock"), "another")
    assert await hold(redis, job, record.key) == [0, -6]
    await redis.delete(KEYS.key(f"{job.id}:lock"))
    assert await hold(redis, job, record.key) == [0, 0]
    assert await hold(redis, job, record.key) == [0, -2]  # the same again, after a lost reply
    assert await redis.zcard(KEYS.key("delayed")) == 1


async def test_an_answer_that_is_quicker_than_the_hold_is_found_by_it(redis: Redis, callbacks: Callbacks) -> None:
    job = await fetched(redis)
    record = await callbacks.open(job, now_ms() + 60_000)
    assert await callbacks.answer(callback_id(job), {"result": 1}, now_ms()) == "accepted"
    assert await hold(redis, job, record.key) == [1, 0]
    assert await redis.lrange(KEYS.key("active"), 0, -1) == [job.id]


async def test_an_answer_to_an_attempt_that_failed_does_not_hurry_the_next_one(redis: Redis, callbacks: Callbacks) -> None:
    job = await fetched(redis)
    await callbacks.open(job, now_ms() + 60_000)
    keys, args = calls.move_to_delayed(KEYS, job_id=job.id, token="t", delay_ms=60_000, fields={"failedReason": "reset by peer"})
    assert await Script(stock("moveToDelayed"))(redis, keys, args) == 0
    assert await callbacks.answer(callback_id(job), {"result": 1}, now_ms()) == "over"
    assert await redis.zcard(KEYS.key("delayed")) == 1


async def test_an_answer_to_a_job_that_has_ended_is_refused_though_its_hash_is_kept(redis: Redis, callbacks: Callbacks) -> None:
    job = await fetched(redis)
    await callbacks.open(job, now_ms() + 60_000)
    keys, args = calls.move_to_finished(
        KEYS, job_id=job.id, token="t", completed=True, value="1", keep={"count": 100}, attempts=3, attempts_made=0, opts={}
    )
    assert await Script(stock("moveToFinished"))(redis, keys, args) == 0
    assert await redis.exists(KEYS.key(job.id))
    assert await callbacks.answer(callback_id(job), {"result": 1}, now_ms()) == "over"


async def test_an_answer_to_a_job_that_is_to_fail_at_the_next_renewal_is_refused(redis: Redis, callbacks: Callbacks) -> None:
    job = await fetched(redis)
    await callbacks.open(job, now_ms() + 60_000)
    await redis.hset(KEYS.key(job.id), "defa", "its run was cancelled")
    assert await callbacks.answer(callback_id(job), {"result": 1}, now_ms()) == "gone"


async def test_an_answer_to_a_removed_job_does_not_hurry_another_under_its_id(redis: Redis, callbacks: Callbacks) -> None:
    job = await fetched(redis)
    record = await callbacks.open(job, now_ms() + 60_000)
    assert await hold(redis, job, record.key) == [0, 0]
    await redis.hset(KEYS.key(job.id), "timestamp", job.timestamp + 1)
    assert await callbacks.answer(callback_id(job), {"result": 1}, now_ms()) == "gone"
    assert await redis.zcard(KEYS.key("delayed")) == 1


async def test_an_attempt_ends_with_the_answer_or_without_it_but_never_both(redis: Redis, callbacks: Callbacks) -> None:
    job = await fetched(redis)
    record = await callbacks.open(job, now_ms() + 60_000)
    assert await callbacks.close(record) is None
    # Whatever the clock of the machine that is called says.
    assert await callbacks.answer(callback_id(job), {"result": 1}, record.deadline - 1) == "over"
    # The worker died before it recorded that end: the attempt is executed again, and so is its link good again.
    record = await callbacks.open(job, now_ms())
    assert await callbacks.answer(callback_id(job), {"result": 2}, now_ms()) == "accepted"
    assert await callbacks.close(record) == {"result": 2}
    assert await redis.pexpiretime(record.key) > record.deadline


@pytest.mark.parametrize("again", [{"result": 2}, {"error": "no", "retry": True}])
async def test_the_first_answer_stands(redis: Redis, callbacks: Callbacks, again: dict[str, Any]) -> None:
    job = await fetched(redis)
    record = await callbacks.open(job, now_ms() + 60_000)
    id = callback_id(job)
    assert [await callbacks.answer(id, {"result": 1}, now_ms()), await callbacks.answer(id, again, now_ms())] == ["accepted", "repeated"]
    assert await callbacks.close(record) == {"result": 1}


async def test_a_call_that_is_sent_again_after_a_lost_reply_is_accepted_again(
    redis: Redis, callbacks: Callbacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    async def recorded(*call: Any) -> Any:
        sent.append(call)
        return await CALLBACK(*call)

    monkeypatch.setattr("pipeline.jobs.callbacks.CALLBACK", recorded)
    job = await fetched(redis)
    record = await callbacks.open(job, now_ms() + 60_000)
    assert await hold(redis, job, record.key) == [0, 0]
    assert await callbacks.answer(callback_id(job), {"result": 1}, now_ms()) == "accepted"
    assert await CALLBACK(*sent[0]) == "accepted"
    assert await redis.lrange(KEYS.key("wait"), 0, -1) == [job.id]
    assert await callbacks.answer(callback_id(job), {"result": 1}, now_ms()) == "repeated"


async def test_late_and_unknown_answers_and_those_for_a_removed_job_change_nothing(redis: Redis, callbacks: Callbacks) -> None:
    job = await fetched(redis)
    record = await callbacks.open(job, now_ms() + 1000)
    assert await callbacks.answer(callback_id(job), {"result": 1}, record.deadline + 1) == "late"
    assert await callbacks.answer("nobody", {"result": 1}, now_ms()) == "unknown"
    await redis.delete(KEYS.key(job.id))
    assert await callbacks.answer(callback_id(job), {"result": 1}, now_ms()) == "gone"
    assert (await callbacks.open(job, now_ms())).answer is None


def test_links_are_signed_by_the_first_key_and_checked_by_all() -> None:
    old, new = Links("https://h/", [b"o" * 32]), Links("https://h", [b"n" * 32, b"o" * 32])
    signature = old.url("abc").partition("signature=")[2]
    assert old.url("abc").startswith("https://h/api/callbacks/abc?signature=")
    assert new.genuine("abc", signature)
    assert not Links("https://h", [b"n" * 32]).genuine("abc", signature)
    for forged in ("", "x", signature[:-1], signature + "x", "ü"):
        assert not new.genuine("abc", forged)
    assert not new.genuine("abd", signature)


def test_a_link_is_hidden_in_what_others_say() -> None:
    links = Links("https://h", [b"n" * 32, b"o" * 32])
    for link in (links.url("abc"), Links("https://h", [b"o" * 32]).url("abc")):
        signature = link.partition("signature=")[2]
        assert links.hidden(f"no: {link}!", "abc") == "no: https://h/api/callbacks/abc?signature=…!"
        assert signature in links.hidden(link, "another")


def test_the_id_of_a_callback_is_that_of_an_attempt() -> None:
    job = Job(id="1", queue="q", name="n", data={}, attempt=1, attempts=3, timestamp=7)
    same = Job(id="1", queue="q", name="n", data={"other": 1}, attempt=1, attempts=3, timestamp=7)
    later = Job(id="1", queue="q", name="n", data={}, attempt=2, attempts=3, timestamp=7)
    assert callback_id(job) == callback_id(same) != callback_id(later)
