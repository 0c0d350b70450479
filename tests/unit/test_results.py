"""What may be a job's result."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, Field

from pipeline.errors import PermanentFailure
from pipeline.jobs.results import RESULT_LIMIT, check_result


class Channel(StrEnum):
    EMAIL = "email"


class Sent(BaseModel):
    sent_at: str = Field(alias="sentAt")


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "", "é\n", [], {}, {"a": [1, {"b": None}]}, [[1], "x" * 1000]])
def test_json_is_kept_as_it_is(value: Any) -> None:
    assert orjson.loads(check_result(value)) == value


def test_models_and_enums_are_written_as_json() -> None:
    assert check_result(Sent(sentAt="now")) == '{"sentAt":"now"}'
    assert check_result({"channel": Channel.EMAIL, "pair": (1, 2)}) == '{"channel":"email","pair":[1,2]}'


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [0, float("nan")]}, "result.a[1] is nan"),
        (float("inf"), "result is inf"),
        ({1: "a"}, "result has the key 1"),
        ({"s": {1, 2}}, "result.s is a set"),
        ({"at": datetime(2026, 1, 1)}, "result.at is a datetime"),
        ({"b": b"bytes"}, "result.b is a bytes"),
        (object(), "result is a object"),
        (2**70, "exceeds 64-bit range"),
        ("\udcff", "not valid UTF-8"),
    ],
)
def test_what_is_not_json_fails_for_good_and_says_where(value: Any, where: str) -> None:
    with pytest.raises(PermanentFailure, match="is not JSON") as caught:
        check_result(value)
    assert where in caught.value.message


def test_one_that_contains_itself_fails_instead_of_recurring() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(PermanentFailure, match="nested more than 100 deep"):
        check_result(value)


def test_the_limit_counts_bytes_of_json() -> None:
    assert len(check_result("x" * (RESULT_LIMIT - 2))) == RESULT_LIMIT
    with pytest.raises(PermanentFailure, match=r"65,537 bytes of JSON; the limit is 65,536 \(64 KiB\)"):
        check_result("x" * (RESULT_LIMIT - 1))
    with pytest.raises(PermanentFailure, match="the limit is"):
        check_result("é" * (RESULT_LIMIT // 2))
