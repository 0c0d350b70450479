"""What should have arrived by now and has not, with why."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from webhooks.criteria import criteria
from webhooks.explain import Explanation
from webhooks.inquiry import Inquiry
from webhooks.listing import Listing
from webhooks.model import Delivery, DeliveryStatus, Page
from webhooks.selecting import FILTERED

GRACE_MS = 60_000
"""How long a delivery may wait for its first attempt without being listed."""
STATUSES = ("pending", "exhausted", "skipped")


@dataclass(frozen=True, kw_only=True, slots=True)
class Undelivered:
    delivery: Delivery
    why: Explanation

    def document(self) -> dict[str, Any]:
        why = {"verdict": self.why.verdict.value, "reason": self.why.reason, "advice": self.why.advice}
        return {**self.delivery.document(), "why": why}


class Overdue:
    def __init__(self, listing: Listing, inquiry: Inquiry, clock: Callable[[], int]) -> None:
        self._listing = listing
        self._inquiry = inquiry
        self._clock = clock

    async def list(self, *, type: str | None = None, cursor: str | None = None, limit: int = 50, **more: str | int | None) -> Page[Undelivered]:
        """Oldest first; `more` as in `Criteria`. Raises InvalidInput."""
        wanted = criteria(statuses=STATUSES, types=() if type is None else (type,), **more)  # type: ignore[arg-type]
        now = self._clock()
        page = await self._listing.page(wanted, cursor=cursor, limit=limit, newest_first=False, also=lambda record: overdue(record, now))
        reasons = await self._inquiry.of_records(page.items)
        items = [Undelivered(delivery=record, why=why) for record, why in zip(page.items, reasons, strict=True)]
        return Page(items=items, next_cursor=page.next_cursor)


def overdue(record: Delivery, now: int) -> bool:
    """Exhausted; skipped, unless the endpoint did not want it; pending after an attempt that failed, or a minute past the time of its first."""
    match record.status:
        case DeliveryStatus.PENDING:
            return record.attempts > 0 or (record.due or record.created) <= now - GRACE_MS
        case DeliveryStatus.SKIPPED:
            return record.reason != FILTERED
    return record.status is DeliveryStatus.EXHAUSTED
