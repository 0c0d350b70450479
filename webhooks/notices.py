"""The events that this package itself causes, as they wait in the outbox: `{type, data, identity}`."""

from typing import Any

from webhooks.mailbox import Claim
from webhooks.sender import Outcome

OWN = ("delivery.", "endpoint.")
"""Events about deliveries and endpoints: they never cause further ones, nor go to the endpoint concerned."""


def endpoint_disabled(claim: Claim, outcome: Outcome) -> dict[str, Any]:
    """`endpoint.disabled`: its receiver answered 410."""
    data = _about(claim, outcome) | {"reason": "gone"}
    return {"type": "endpoint.disabled", "data": data, "identity": [claim.endpoint, claim.id, claim.attempts + 1]}


def delivery_exhausted(claim: Claim, outcome: Outcome) -> dict[str, Any]:
    """`delivery.exhausted`: the last attempt of its schedule failed."""
    data = _about(claim, outcome) | {"error": outcome.error}
    return {"type": "delivery.exhausted", "data": data, "identity": [claim.id, claim.attempts + 1]}


def _about(claim: Claim, outcome: Outcome) -> dict[str, Any]:
    return {
        "endpoint": claim.endpoint,
        "delivery": claim.id,
        "eventId": claim.event,
        "eventType": claim.type,
        "runId": claim.run,
        "status": outcome.status,
        "attempts": claim.attempts + 1,
    }
