"""What the events that this package itself causes (`delivery.exhausted`, `endpoint.*`) say about the attempt behind them."""

from typing import Any

from webhooks.mailbox import Claim
from webhooks.sender import Outcome


def about(claim: Claim, outcome: Outcome) -> dict[str, Any]:
    """The scripts add what they alone know."""
    return {
        "endpoint": claim.endpoint,
        "delivery": claim.id,
        "eventId": claim.event,
        "eventType": claim.type,
        "runId": claim.run,
        "status": outcome.status,
        "attempts": claim.attempts + 1,
        "error": outcome.error,
    }
