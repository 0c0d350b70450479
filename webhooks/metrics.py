"""What a monitoring system asks for: counters and gauges of all endpoints together and of each, in bounded number."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from webhooks.keys import Keys
from webhooks.model import DeliveryStatus
from webhooks.scripts import Store
from webhooks.stats import SHOWN, Statistics, Waiting
from webhooks.tally import ALL, OTHER, Counts, cumulative

BOUNDS_MS = (5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000)
"""Of the histogram: few, for each is a series."""
Sample = tuple[str, Mapping[str, str], float]
"""What follows the family's name, labels, value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Samples of one kind, as Prometheus groups them."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "summary"]
    help: str
    samples: Sequence[Sample]


class Metrics:
    def __init__(self, redis: Store, keys: Keys, statistics: Statistics) -> None:
        self._redis = redis
        self._keys = keys
        self._statistics = statistics

    async def families(self) -> list[Family]:
        endpoints = await self._shown()
        (everything, others, *counts), waiting, standing, held = await asyncio.gather(
            self._statistics.totals([ALL, OTHER, *endpoints]),
            self._statistics.waiting(endpoints),
            self._statistics.standing(endpoints),
            self._held(),
        )
        rest = held["pending"] - sum(one.pending + one.under_way for one in waiting)
        by_endpoint = dict(zip(endpoints, counts, strict=True)) | ({OTHER: others} if others.delivered or others.failed else {})
        return [
            *_counted(by_endpoint),
            *_waiting(dict(zip(endpoints, waiting, strict=True)), rest),
            *_standing(standing),
            _histogram(everything),
            Family(
                name="hookline_webhook_deliveries",
                kind="gauge",
                help="Deliveries on record that were not delivered, by status.",
                samples=[("", {"status": status}, count) for status, count in held.items()],
            ),
        ]

    async def _shown(self) -> list[str]:
        """Those that have series of their own: all endpoints, or where they are too many, the ones that were active last."""
        if await self._redis.zcard(self._keys.endpoints) <= SHOWN:
            return list(await self._redis.zrange(self._keys.endpoints, 0, -1))
        return list(await self._redis.zrange(self._keys.shown, 0, -1))

    async def _held(self) -> dict[str, int]:
        statuses = [status.value for status in DeliveryStatus if status is not DeliveryStatus.DELIVERED]
        async with self._redis.pipeline(transaction=False) as pipe:
            for status in statuses:
                pipe.zcard(self._keys.deliveries("status", status))
            return dict(zip(statuses, await pipe.execute(), strict=True))


def _counted(counts: Mapping[str, Counts]) -> Iterator[Family]:
    yield Family(
        name="hookline_webhook_attempts_total",
        kind="counter",
        help="Attempts to deliver, by endpoint and outcome.",
        samples=[
            ("", {"endpoint": endpoint, "outcome": outcome}, value)
            for endpoint, one in counts.items()
            for outcome, value in (("delivered", one.delivered), ("failed", one.failed))
        ],
    )
    yield Family(
        name="hookline_webhook_exhausted_total",
        kind="counter",
        help="Deliveries of which every attempt failed, by endpoint.",
        samples=[("", {"endpoint": endpoint}, one.exhausted) for endpoint, one in counts.items()],
    )
    yield Family(
        name="hookline_webhook_attempt_seconds",
        kind="summary",
        help="What attempts took, by endpoint.",
        samples=[
            (suffix, {"endpoint": endpoint}, value)
            for endpoint, one in counts.items()
            for suffix, value in (("_sum", one.ms / 1000), ("_count", one.delivered + one.failed))
        ],
    )
    for name, about, field in (("success", "succeeded", "last_success"), ("failure", "failed", "last_failure")):
        yield Family(
            name=f"hookline_webhook_last_{name}_timestamp_seconds",
            kind="gauge",
            help=f"When an attempt last {about}, by endpoint.",
            samples=[("", {"endpoint": endpoint}, getattr(one, field) / 1000) for endpoint, one in counts.items() if getattr(one, field)],
        )


def _waiting(waiting: Mapping[str, Waiting], rest: int) -> Iterator[Family]:
    other = [("", {"endpoint": OTHER}, float(rest))] if rest > 0 else []
    yield Family(
        name="hookline_webhook_pending",
        kind="gauge",
        help="Deliveries that wait for an attempt, by endpoint.",
        samples=[*(("", {"endpoint": endpoint}, one.pending) for endpoint, one in waiting.items()), *other],
    )
    yield Family(
        name="hookline_webhook_in_flight",
        kind="gauge",
        help="Deliveries that are being attempted, by endpoint.",
        samples=[("", {"endpoint": endpoint}, one.under_way) for endpoint, one in waiting.items()],
    )
    yield Family(
        name="hookline_webhook_oldest_due_seconds",
        kind="gauge",
        help="For how long the delivery that waits longest has been due, by endpoint.",
        samples=[("", {"endpoint": endpoint}, (one.oldest_due or 0) / 1000) for endpoint, one in waiting.items()],
    )


def _standing(standing: Mapping[str, tuple[str, bool]]) -> Iterator[Family]:
    yield Family(
        name="hookline_webhook_endpoint_status",
        kind="gauge",
        help="1 for the status that an endpoint has: enabled, paused or disabled.",
        samples=[("", {"endpoint": endpoint, "status": status}, 1) for endpoint, (status, _) in standing.items()],
    )
    yield Family(
        name="hookline_webhook_breaker_open",
        kind="gauge",
        help="Whether an endpoint's circuit breaker is open or half-open, by endpoint.",
        samples=[("", {"endpoint": endpoint}, int(open_)) for endpoint, (_, open_) in standing.items()],
    )


def _histogram(counts: Counts) -> Family:
    number = counts.delivered + counts.failed
    samples: list[Sample] = [
        ("_bucket", {"le": str(bound / 1000)}, count) for bound, count in zip(BOUNDS_MS, cumulative(counts.buckets, BOUNDS_MS), strict=True)
    ]
    samples += [("_bucket", {"le": "+Inf"}, number), ("_sum", {}, counts.ms / 1000), ("_count", {}, number)]
    return Family(name="hookline_webhook_attempt_duration_seconds", kind="histogram", help="What attempts took, of all endpoints.", samples=samples)
