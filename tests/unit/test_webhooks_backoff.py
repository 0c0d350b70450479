"""The schedule, its jitter, and what receivers may ask for."""

import random

import pytest

from webhooks.backoff import DEFAULT_SCHEDULE_MS, Decision, Verdict, decide, first_delay, parse_retry_after

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
HOUR = 3_600_000


def after(status: int | None, tried: int = 1, *, retry_after: str | None = None, chance: float = 0.0) -> Decision:
    return decide(status=status, retry_after=retry_after, tried=tried, schedule=DEFAULT_SCHEDULE_MS, now=NOW, random=chance)


def test_the_default_schedule_is_the_published_one() -> None:
    assert [ms / 1000 for ms in DEFAULT_SCHEDULE_MS] == [0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_alone_is_success(status: int) -> None:
    assert after(status) == Decision(verdict=Verdict.DELIVERED)


@pytest.mark.parametrize("status", [None, 100, 199, 300, 301, 302, 304, 307, 308, 400, 401, 404, 410, 429, 500, 503, 599])
def test_everything_else_is_failure(status: int | None) -> None:
    assert after(status).verdict is Verdict.RETRY
    assert after(status, tried=10).verdict is Verdict.EXHAUSTED


def test_the_schedule_is_walked_to_its_end() -> None:
    dues = [after(500, tried).due for tried in range(1, 10)]
    assert dues == [NOW + delay for delay in DEFAULT_SCHEDULE_MS[1:]]
    assert after(500, 10) == Decision(verdict=Verdict.EXHAUSTED)


def test_jitter_is_only_upward_and_at_most_a_fifth() -> None:
    chances = [0.0, 0.999_999, *(random.random() for _ in range(200))]
    delays = [after(500, 2, chance=chance).due or 0 for chance in chances]
    assert min(delays) == NOW + 300_000
    assert NOW + 359_000 < max(delays) <= NOW + 360_000
    assert first_delay((0, 5), 0.9) == 0
    assert first_delay((1000,), 0.5) == 1100


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("120", 120_000),
        (" 120 ", 120_000),
        ("120.1", 120_100),
        ("0.0001", 1),
        ("0", None),
        ("-5", None),
        ("", None),
        ("soon", None),
        ("1e3", None),
        ("NaN", None),
        ("inf", None),
        ("٣", None),
        ("86400", 24 * HOUR),
        ("86401", 24 * HOUR),
        ("9" * 500, 24 * HOUR),
        ("Thu, 01 Jan 2026 00:02:00 GMT", 120_000),
        ("Thursday, 01-Jan-26 00:02:00 GMT", 120_000),
        ("Thu Jan  1 00:02:00 2026", 120_000),
        ("Thu, 01 Jan 2026 00:00:00 GMT", None),
        ("Wed, 31 Dec 2025 23:59:59 GMT", None),
        ("Fri, 01 Jan 2027 00:00:00 GMT", 24 * HOUR),
        ("Thu, 99 Jan 2026 00:02:00 GMT", None),
        ("Thu, 01 Jan 99999 00:02:00 GMT", None),
    ],
)
def test_retry_after(value: str, ms: int | None) -> None:
    assert parse_retry_after(value, NOW) == ms


def test_retry_after_is_never_early_and_holds_the_endpoint() -> None:
    longer = after(429, 1, retry_after="60")
    assert longer.due == longer.hold_until == NOW + 60_000
    shorter = after(503, 2, retry_after="60")
    assert shorter.hold_until == NOW + 60_000
    assert shorter.due == NOW + 300_000
    last = after(503, 10, retry_after="60")
    assert last.verdict is Verdict.EXHAUSTED
    assert last.hold_until == NOW + 60_000


@pytest.mark.parametrize("status", [None, 200, 301])
def test_retry_after_means_nothing_beside_a_success_a_redirect_or_nothing(status: int | None) -> None:
    assert after(status, retry_after="60").hold_until is None


def test_410_is_gone() -> None:
    assert after(410).gone
    assert after(410, 10).gone
    assert not after(404).gone
