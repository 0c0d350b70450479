"""The pace of a replay: never more in any stretch of time than its rate allows and one burst, and no less in the end."""

import pytest

from webhooks.pacing import BURST_MS, allowed, earliest, spend
from webhooks.units import Rate, parse_rate


@pytest.mark.parametrize("text", ["1/1s", "7/1s", "100/1m", "50/1s", "5000/1s", "3/1d"])
def test_in_no_stretch_of_time_more_than_the_rate_and_one_burst(text: str) -> None:
    rate, now, paid = parse_rate(text), 1_767_225_600_000, 0.0
    begun: list[int] = []
    while len(begun) < 300:
        count = min(allowed(rate, paid, now), 300 - len(begun))
        paid = spend(rate, paid, now, count)
        begun += [now] * count
        assert earliest(rate, paid) > now or len(begun) == 300
        now = max(earliest(rate, paid), now + 1)
    burst = max(1, BURST_MS * rate.count // rate.per)
    for first in range(0, 300, 7):
        for last in range(first, 300, 11):
            stretch = begun[last] - begun[first]
            assert last - first + 1 <= stretch * rate.count / rate.per + burst + 1e-3
    assert begun[-1] - begun[0] <= (300 - burst) * rate.per / rate.count + 300, "nor is it slower than it may be"


def test_an_idle_time_saves_nothing_up() -> None:
    rate = Rate(10, 1000)
    assert allowed(rate, 0.0, 5_000) == allowed(rate, 0.0, 5_000_000) == 1
    assert allowed(rate, spend(rate, 0.0, 5_000, 1), 5_099) == 0
    assert allowed(rate, spend(rate, 0.0, 5_000, 1), 5_100) == 1
