"""How many may begin now where so many may in a time: the generic cell rate algorithm, by the same numbers as the claim's (`claim.lua`)."""

from math import ceil, floor

from webhooks.units import Rate

BURST_MS = 100
"""What is allowed in this time may begin at once; one always may."""
_ROUNDING = 1e-6


def allowed(rate: Rate, paid: float, now: int) -> int:
    """How many may begin at `now` (ms). `paid` is what `spend` returned last, 0 at first."""
    return max(floor((now + _burst(rate) - max(paid, now)) / _interval(rate) + _ROUNDING), 0)


def spend(rate: Rate, paid: float, now: int, count: int) -> float:
    """When all that has begun, `count` more included, would be through at an even pace; ms since the epoch."""
    return max(paid, now) + count * _interval(rate)


def earliest(rate: Rate, paid: float) -> int:
    """When the next may begin, ms since the epoch."""
    return ceil(paid + _interval(rate) - _burst(rate) - _ROUNDING)


def _interval(rate: Rate) -> float:
    return rate.per / rate.count


def _burst(rate: Rate) -> float:
    return max(1, floor(BURST_MS / _interval(rate))) * _interval(rate)
