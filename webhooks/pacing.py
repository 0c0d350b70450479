"""How many may begin now where so many may in a time: the generic cell rate algorithm, with a burst of a tenth of a second's worth."""

from webhooks.units import Rate

BURST_MS = 100


def allowed(rate: Rate, full_at: float, now: int) -> int:
    """How many may begin at `now` (ms). `full_at` is what `spend` returned last, 0 at first."""
    ahead = max(full_at, now) - now
    return 0 if ahead > BURST_MS else int((BURST_MS - ahead) * rate.count / rate.per) + 1


def spend(rate: Rate, full_at: float, now: int, count: int) -> float:
    """When all that has begun, `count` more included, is paid for by the time that passed; ms since the epoch."""
    return max(full_at, now) + count * rate.per / rate.count


def wait_ms(rate: Rate, full_at: float, now: int) -> float:
    """ms until the next may begin."""
    return max(full_at - BURST_MS - now, 0)
