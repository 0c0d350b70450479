"""Webhooks: signed, retried, recorded delivery of events to endpoints. Knows nothing of what the events are about."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {"Guard": "guard", "Declared": "inputs", "Filters": "selecting", "Webhooks": "service"} | dict.fromkeys(
    ("Attempt", "Delivery", "DeliveryStatus", "Endpoint", "EndpointStatus", "Page"), "model"
)


def __getattr__(name: str) -> Any:
    """What is asked for, then: who only verifies (`webhooks.receiver`), or runs pytest, does not import the service."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
