"""When a delivery is attempted again, and what an answer means for its endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from math import ceil

TOO_BUSY = (429, 502, 503, 504)
ABORTED = "aborted-by-receiver"
MAX_RETRY_AFTER_MS = 24 * 3_600_000
JITTER = 0.2
"""Only upward: nobody is tried earlier than the schedule says."""
DEFAULT_SCHEDULE_MS = (0, 5_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 36_000_000, 50_400_000, 72_000_000, 86_400_000)


class Verdict(StrEnum):
    DELIVERED = "delivered"
    RETRY = "retry"
    EXHAUSTED = "exhausted"


class Receiver(StrEnum):
    """What a failed attempt says about the receiver as a whole."""

    FAILED = "failed"
    """No connection, no answer in time, or one that says that it is in trouble: 5xx, 408, 429."""
    ANSWERED = "answered"
    """It works, and does not like what it was sent: any other answer."""


class Off(StrEnum):
    """Why a receiver wants nothing any more."""

    GONE = "gone"
    """It said 410."""
    ASKED = "asked"
    """It said `webhook-delivery: disable`."""


# Not frozen: there is one per attempt, and freezing is most of what it costs.
@dataclass(kw_only=True, slots=True)
class Decision:
    verdict: Verdict
    due: int | None = None
    """When to try again, ms since the epoch; only with RETRY."""
    receiver: Receiver | None = None
    """None after a success."""
    hold_until: int | None = None
    """Until when the receiver wants nothing at all, ms since the epoch."""
    refusal: bool = False
    """It is too busy and did not say until when."""
    off: Off | None = None
    reason: str | None = None
    """Why the delivery ends before its schedule does."""


def decide(
    *, status: int | None, retry_after: str | None, directive: str | None = None, tried: int, schedule: Sequence[int], now: int, random: float
) -> Decision:
    """What follows from an attempt.

    `status` is the HTTP answer's, None where there was none that counts; `directive` its header `webhook-delivery`; `tried` counts the
    schedule's attempts, this one included; `random` in [0, 1) spreads retries.
    """
    off = Off.GONE if status == 410 else Off.ASKED if directive == "disable" else None
    if status is not None and 200 <= status <= 299:
        return Decision(verdict=Verdict.DELIVERED, off=off)
    wait = parse_retry_after(retry_after, now) if retry_after is not None and status is not None and status >= 400 else None
    hold_until = None if wait is None else now + wait
    aborted = directive == "abort"
    exhausted = aborted or tried >= len(schedule)
    return Decision(
        verdict=Verdict.EXHAUSTED if exhausted else Verdict.RETRY,
        due=None if exhausted else max(now + ceil(schedule[tried] * (1 + JITTER * random)), hold_until or 0),
        receiver=Receiver.FAILED if status is None or status >= 500 or status in (408, 429) else Receiver.ANSWERED,
        hold_until=hold_until,
        refusal=status in TOO_BUSY and wait is None,
        off=off,
        reason=ABORTED if aborted else None,
    )


def first_delay(schedule: Sequence[int], random: float) -> int:
    """ms from the event to the first attempt."""
    return ceil(schedule[0] * (1 + JITTER * random))


def parse_retry_after(value: str, now: int) -> int | None:
    """ms to wait, at most 24 h, of a `Retry-After` in seconds or as an HTTP date; None for what is neither or lies in the past."""
    text = value.strip()
    if text.replace(".", "", 1).isdecimal() and text.isascii():
        # More digits than any wait has could not even be converted.
        wait = ceil(float(text[:32]) * 1000)
    else:
        try:
            date = parsedate_to_datetime(text)
            # An HTTP date is always GMT, whether it says so or not.
            wait = ceil((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1000) - now
        except (ValueError, TypeError, OverflowError):
            return None
    return min(wait, MAX_RETRY_AFTER_MS) if wait > 0 else None
