"""Counts of attempts: buckets, percentiles, what is taken is counted anew."""

import random

import pytest

from webhooks.tally import ALL, BOUNDS_MS, Tally, bucket_of, cumulative, merged, percentile


def test_a_bucket_holds_its_bound() -> None:
    assert [bucket_of(ms) for ms in (0, 1, 2, 4, 5, 6)] == [0, 0, 1, 3, 3, 4]
    assert bucket_of(BOUNDS_MS[-1]) == len(BOUNDS_MS) - 1
    assert bucket_of(BOUNDS_MS[-1] + 1) == len(BOUNDS_MS)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_percentile_is_the_bound_above_the_true_one(share: float) -> None:
    dice = random.Random(3)
    durations = sorted(round(dice.lognormvariate(4, 1.2)) for _ in range(5000))
    buckets = merged({bucket_of(ms): 1} for ms in durations)
    true = durations[int(share * len(durations)) - 1]
    assert percentile(buckets, share) == BOUNDS_MS[bucket_of(true)]


def test_percentiles_of_nothing_of_one_and_of_what_took_too_long() -> None:
    assert percentile({}, 0.5) is None
    assert percentile({3: 1}, 0.5) == percentile({3: 1}, 0.99) == BOUNDS_MS[3]
    assert percentile({0: 1, 5: 1}, 0.5) == BOUNDS_MS[0], "half of them took no longer"
    assert percentile({len(BOUNDS_MS): 2}, 0.5) == BOUNDS_MS[-1]


def test_cumulative_counts() -> None:
    buckets = merged({bucket_of(ms): 1} for ms in (1, 5, 6, 20, 40_000))
    assert cumulative(buckets, (5, 20, 30_000)) == [2, 4, 4]


def test_what_was_taken_is_counted_no_more() -> None:
    tally = Tally()
    tally.count("a", delivered=True, exhausted=False, duration=7, at=10)
    tally.count("a", delivered=False, exhausted=True, duration=3, at=11)
    tally.count("b", delivered=True, exhausted=False, duration=1, at=12)
    taken = tally.take()
    assert set(taken) == {"a", "b", ALL}
    a, everything = taken["a"], taken[ALL]
    assert (a.delivered, a.failed, a.exhausted, a.ms, a.last_success, a.last_failure) == (1, 1, 1, 10, 10, 11)
    assert (everything.delivered, everything.failed, everything.exhausted, everything.ms) == (2, 1, 1, 11)
    assert (everything.last_success, everything.last_failure) == (12, 11)
    assert everything.buckets == {bucket_of(7): 1, bucket_of(3): 1, bucket_of(1): 1}
    assert tally.take() == {}
