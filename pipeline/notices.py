"""What an operator is told, by a notification, of endpoints that fail (`webhooks.notify`)."""

from typing import Any

from pipeline.config.webhooks import Notify
from pipeline.units import iso

_REASONS = {
    "gone": "its receiver answered 410 Gone",
    "asked": "its receiver answered with `webhook-delivery: disable`",
    "failing": "no delivery to it succeeded since {since}",
}


def notification(notify: Notify, type: str, data: dict[str, Any]) -> dict[str, Any] | None:
    """The data of a `send-notification` job about an event, or None where nobody is told of such."""
    since = iso(data["failingSince"]) if data.get("failingSince") else "a while"
    endpoint = data.get("endpoint")
    match type:
        case "endpoint.failing":
            subject = f"Webhook endpoint {endpoint} fails"
            message = f"No delivery to {endpoint} succeeded since {since}. If that goes on, it is disabled at {iso(data['disabledAt'])}."
        case "endpoint.disabled":
            subject = f"Webhook endpoint {endpoint} is disabled"
            reason = _REASONS.get(data["reason"], data["reason"]).format(since=since)
            message = f"{endpoint} is disabled: {reason}. What was pending waits, new events are skipped, until it is enabled."
        case _:
            return None
    last = f" The last attempt, of delivery {data['delivery']}: {data['error']}." if data.get("error") else ""
    return {"userId": "hookline", "type": notify.type, "to": notify.to, "subject": subject, "message": message + last, "data": {"endpoint": endpoint}}
