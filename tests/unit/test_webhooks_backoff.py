"""The schedule, its jitter, and what receivers may ask for."""

import random
import time

import pytest

from webhooks.backoff import DEFAULT_SCHEDULE_MS, Decision, Off, Receiver, Verdict, decide, first_delay, parse_retry_after

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
    assert after(500, 10) == Decision(verdict=Verdict.EXHAUSTED, receiver=Receiver.FAILED)


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


def test_an_http_date_is_gmt_wherever_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        # "-0000" is a date without a zone to the parser.
        for zone in ("GMT", "-0000", ""):
            assert parse_retry_after(f"Thu, 01 Jan 2026 00:01:00 {zone}", NOW) == 60_000
    finally:
        monkeypatch.undo()
        time.tzset()


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
    assert after(410).off is after(410, 10).off is Off.GONE
    assert after(404).off is None


def test_the_receiver_may_end_it_all_or_this_one() -> None:
    def told(status: int | None, directive: str) -> Decision:
        return decide(status=status, retry_after=None, directive=directive, tried=1, schedule=DEFAULT_SCHEDULE_MS, now=NOW, random=0.0)

    assert told(204, "disable") == Decision(verdict=Verdict.DELIVERED, off=Off.ASKED)
    assert (told(500, "disable").verdict, told(500, "disable").off) == (Verdict.RETRY, Off.ASKED)
    assert told(410, "disable").off is Off.GONE
    assert told(204, "abort") == Decision(verdict=Verdict.DELIVERED)
    for status in (None, 302, 400, 500):
        aborted = told(status, "abort")
        assert (aborted.verdict, aborted.reason, aborted.due, aborted.off) == (Verdict.EXHAUSTED, "aborted-by-receiver", None, None)


@pytest.mark.parametrize("status", [None, 408, 429, 500, 502, 503, 504, 599])
def test_a_receiver_in_trouble(status: int | None) -> None:
    assert after(status).receiver is Receiver.FAILED


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 410, 422])
def test_a_receiver_that_does_not_like_it_works(status: int) -> None:
    assert after(status).receiver is Receiver.ANSWERED


def test_too_busy_without_saying_until_when() -> None:
    assert {status for status in (None, *range(100, 600)) if after(status).refusal} == {429, 502, 503, 504}
    assert not after(503, retry_after="60").refusal
    assert after(503, retry_after="soon").refusal
