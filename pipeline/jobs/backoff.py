"""How long a job waits before its next attempt, as BullMQ reckons it."""

from typing import Any


def delay_ms(backoff: Any, attempts_made: int, *, random: float = 0.0) -> int | None:
    """Milliseconds before the attempt after `attempts_made` failed ones.

    `backoff` is BullMQ's option: a number (fixed ms) or `{type: fixed|exponential, delay, jitter?}`; `random` in [0, 1) serves
    jitter, which shortens the delay by up to that share. None for what only its producer understands.
    """
    if not backoff:
        return 0
    if isinstance(backoff, int | float):
        return round(backoff)
    if not isinstance(backoff, dict):
        return None
    try:
        delay = float(backoff.get("delay") or 0)
        match backoff.get("type"):
            case "fixed":
                pass
            case "exponential":
                delay *= 2 ** (attempts_made - 1)
            case _:
                return None
        jitter = float(backoff.get("jitter") or 0)
        return round(delay * (1 - jitter * random))
    except (TypeError, ValueError, OverflowError):
        return None
