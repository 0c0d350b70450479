"""A job as it is read from its hash."""

import msgpack
import orjson
import pytest

from pipeline.errors import PermanentFailure
from pipeline.jobs.attempt import keep_of, read_job
from pipeline.jobs.fetched import Fetched


def fetched(opts: str, **fields: str) -> Fetched:
    return Fetched.of("1", "t", {"name": "do", "timestamp": "7", "opts": opts, **fields})


def test_no_job_can_change_the_options_that_others_share() -> None:
    first, second = read_job("q", fetched('{"attempts":3}')), read_job("q", fetched('{"attempts":3}', atm="1"))
    assert (first.attempt, second.attempt, second.attempts) == (1, 2, 3)
    with pytest.raises(TypeError):
        first.opts["attempts"] = 9  # type: ignore[index]
    assert second.opts == {"attempts": 3}


@pytest.mark.parametrize("length", [10, 10_000], ids=["usual", "long"])
def test_options_are_read_alike_whatever_their_length(length: int) -> None:
    opts = {"attempts": 2, "note": "x" * length, "hookline": {"run": "r", "workflow": "w", "step": "s", "n": 1}}
    job = read_job("q", fetched(orjson.dumps(opts).decode()))
    assert (job.attempts, job.opts["note"], job.origin and job.origin.step) == (2, "x" * length, "s")


@pytest.mark.parametrize("opts", ["{", "[]", '{"attempts":"many"}'])
def test_options_that_make_no_sense_do_so_each_time(opts: str) -> None:
    for _ in range(2):
        with pytest.raises(PermanentFailure, match="options"):
            read_job("q", fetched(opts))


@pytest.mark.parametrize("length", [1, 300], ids=["usual", "long"])
def test_what_is_kept_of_a_job_is_its_own_business_or_the_queues(length: int) -> None:
    jobs = [
        read_job("q", fetched(opts)) for opts in ("{}", '{"removeOnComplete":true}', '{"removeOnComplete":{"count":7,"note":"%s"}}' % ("x" * length))
    ]
    assert [keep and msgpack.unpackb(keep) for keep in map(keep_of, jobs)] == [None, {"count": 0}, {"count": 7}]


def test_an_option_that_is_nested_too_deep_to_be_written_bounds_nothing() -> None:
    deep = "[" * 300 + "]" * 300
    jobs = [read_job("q", fetched(opts)) for opts in (f'{{"removeOnComplete":{deep}}}', f'{{"removeOnComplete":{{"count":7,"note":{deep}}}}}')]
    assert [msgpack.unpackb(keep_of(job) or b"") for job in jobs] == [{"count": -1}, {"count": 7}]
