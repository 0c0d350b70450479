"""The same key and body get the first answer; another body, or work under way, gets a conflict."""

import asyncio
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from pipeline.errors import Conflict, InFlight, InvalidInput
from pipeline.store.idempotency import SECONDS, Answer, Claim, Idempotency, check_key, fingerprint, parse, record

CLAIM = Claim(key="hookline:idempotency:user%3Aalice:POST:k", fingerprint=fingerprint('{"a":1}'))
ANSWER = Answer(status=201, headers={"Location": "/x/1"}, body='{"id":"1"}')


async def _begun(store: Idempotency, claim: Claim = CLAIM) -> Claim:
    held = await store.begin(claim)
    assert isinstance(held, Claim)
    return held


async def test_a_finished_request_gets_its_first_answer_again(redis: Redis) -> None:
    store = Idempotency(redis)
    held = await _begun(store)
    await store.finish(held, ANSWER)
    assert await store.begin(CLAIM) == ANSWER
    assert await store.peek(CLAIM) == ANSWER
    assert SECONDS - 5 <= await redis.ttl(CLAIM.key) <= SECONDS


async def test_of_many_at_once_one_may_work_and_the_others_are_told_to_wait(redis: Redis) -> None:
    store = Idempotency(redis)
    outcomes = await asyncio.gather(*(store.begin(CLAIM) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(outcome, Claim) for outcome in outcomes) == 1
    waiting = [outcome for outcome in outcomes if isinstance(outcome, InFlight)]
    assert len(waiting) == 9
    assert all(error.retry_after > 0 for error in waiting)


async def test_another_body_is_a_conflict_before_and_after_the_answer(redis: Redis) -> None:
    store = Idempotency(redis)
    other = replace(CLAIM, fingerprint=fingerprint('{"a":2}'))
    held = await _begun(store)
    with pytest.raises(Conflict, match="another body"):
        await store.begin(other)
    await store.finish(held, ANSWER)
    with pytest.raises(Conflict, match="another body"):
        await store.begin(other)
    with pytest.raises(Conflict, match="another body"):
        await store.peek(other)


async def test_abandoned_work_may_be_tried_again(redis: Redis) -> None:
    store = Idempotency(redis)
    await store.abandon(await _begun(store))
    await store.finish(await _begun(store), ANSWER)


async def test_work_that_is_never_finished_frees_its_key_with_the_lease(redis: Redis) -> None:
    await _begun(Idempotency(redis, lease_seconds=60))
    assert 55 <= await redis.ttl(CLAIM.key) <= 60


async def test_who_lost_the_lease_changes_neither_the_marker_nor_the_answer_of_the_next(redis: Redis) -> None:
    store = Idempotency(redis)
    late = await _begun(store)
    await redis.delete(CLAIM.key)  # the lease ran out
    current = await _begun(store)
    await store.abandon(late)
    await store.finish(late, replace(ANSWER, body="late"))
    with pytest.raises(InFlight):
        await store.begin(CLAIM)
    await store.finish(current, ANSWER)
    await store.finish(late, replace(ANSWER, body="late"))
    assert await store.peek(CLAIM) == ANSWER


async def test_an_answer_after_the_lease_is_still_kept(redis: Redis) -> None:
    store = Idempotency(redis)
    held = await _begun(store)
    await redis.delete(CLAIM.key)
    await store.finish(held, ANSWER)
    assert await store.peek(CLAIM) == ANSWER


async def test_peek_finds_nothing_where_nothing_was_asked(redis: Redis) -> None:
    assert await Idempotency(redis).peek(CLAIM) is None


def test_placeholders_are_filled_in_headers_and_body() -> None:
    answer = Answer(status=201, headers={"Location": "/runs/@run@"}, body='{"jobId":"@job@","runId":"@run@","status":"@status@"}')
    filled = answer.filled(run="r1", status="running", job=None)
    assert filled == Answer(status=201, headers={"Location": "/runs/r1"}, body='{"jobId":"@job@","runId":"r1","status":"running"}')
    assert parse(record(CLAIM, filled).replace("@job@", "7"), CLAIM).body == '{"jobId":"7","runId":"r1","status":"running"}'


def test_a_fingerprint_keeps_its_parts_apart() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint("a") == fingerprint(b"a")


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "snow☃", "line\n"])
def test_a_key_that_cannot_be_one_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="1 to 255 printable"):
        check_key(key)


@pytest.mark.parametrize("key", ["a", "x" * 255, "5f0c9b5e-7d41 ~!"])
def test_a_printable_key_is_taken_as_it_is(key: str) -> None:
    assert check_key(key) == key
