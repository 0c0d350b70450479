"""A job's wait before its next attempt is what BullMQ in Node reckons for the same options."""

from typing import Any

import pytest

from pipeline.jobs.backoff import delay_ms


@pytest.mark.parametrize(
    ("backoff", "attempts_made", "expected"),
    [
        (None, 1, 0),
        (0, 1, 0),
        (250, 3, 250),
        ({"type": "fixed", "delay": 2000}, 3, 2000),
        ({"type": "fixed"}, 1, 0),
        ({"type": "exponential", "delay": 2000}, 1, 2000),
        ({"type": "exponential", "delay": 2000}, 3, 8000),
        ({"type": "exponential", "delay": 1000, "jitter": 0.5}, 2, 1500),
    ],
)
def test_a_known_backoff(backoff: Any, attempts_made: int, expected: int) -> None:
    assert delay_ms(backoff, attempts_made, random=0.5) == expected


@pytest.mark.parametrize(
    "backoff",
    [
        "fast",
        {"type": "custom", "delay": 5},
        {"type": "fixed", "delay": "5s"},
        {"type": "fixed", "delay": [1]},
        {"type": "exponential", "delay": 1e300},
    ],
)
def test_what_only_the_producer_understands_is_left_to_the_queues_own(backoff: Any) -> None:
    assert delay_ms(backoff, 1100) is None
