"""Webhooks: signed, retried, recorded delivery of events to endpoints. Knows nothing of what the events are about."""

from webhooks.errors import Conflict, Fault, InvalidInput, MissingKey, NotFound, ReadOnly, RefusedAddress, WebhookError
from webhooks.guard import Guard
from webhooks.inputs import Declared
from webhooks.model import Attempt, Delivery, DeliveryStatus, Endpoint, EndpointStatus, Page
from webhooks.selecting import Filters
from webhooks.service import Webhooks

__all__ = [
    "Attempt",
    "Conflict",
    "Declared",
    "Delivery",
    "DeliveryStatus",
    "Endpoint",
    "EndpointStatus",
    "Fault",
    "Filters",
    "Guard",
    "InvalidInput",
    "MissingKey",
    "NotFound",
    "Page",
    "ReadOnly",
    "RefusedAddress",
    "WebhookError",
    "Webhooks",
]
