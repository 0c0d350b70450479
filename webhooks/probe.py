"""A test event to one endpoint, sent at once and answered with what came of it; it leaves no record and counts for nothing."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from webhooks.endpoints import Endpoints
from webhooks.errors import MissingKey
from webhooks.guard import Guard
from webhooks.model import Attempt, Endpoint, KeptEvent
from webhooks.selecting import body_of
from webhooks.sender import Outcome, Request, Sender

TYPE = "webhook.test"
"""Nobody else can publish it, and no pattern brings it to other endpoints: it never comes into the log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    event: str
    delivered: bool
    """Whether the answer would have ended a delivery as delivered."""
    attempt: Attempt

    def document(self) -> dict[str, Any]:
        attempt = self.attempt.document()
        del attempt["number"]
        return {"eventId": self.event, "type": TYPE, "delivered": self.delivered, **attempt}


class Probe:
    def __init__(self, endpoints: Endpoints, guard: Guard, clock: Callable[[], int]) -> None:
        self._endpoints = endpoints
        self._guard = guard
        self._clock = clock

    async def send(self, endpoint: str) -> Probed:
        """As any event is sent, whatever the endpoint's types, filter and status: a paused or disabled one may be tried before it is enabled.

        Raises NotFound.
        """
        present, now = await self._endpoints.get(endpoint), self._clock()
        event = KeptEvent(id="evt_" + secrets.token_hex(16), type=TYPE, timestamp=now, data={"endpoint": endpoint})
        try:
            request = self._request(present, event, now)
        except MissingKey as error:
            outcome = Outcome(duration=0, error=error.message)
        else:
            async with Sender(self._guard) as sender:
                outcome = await sender.send(request, now)
        status = outcome.verdict_status
        return Probed(event=event.id, delivered=status is not None and 200 <= status <= 299, attempt=Attempt(number=0, **outcome.record(now)))

    def _request(self, endpoint: Endpoint, event: KeptEvent, now: int) -> Request:
        return Request(
            url=endpoint.url,
            event=event.id,
            body=body_of(event.document(), endpoint.payload),
            keys=[key for _, key in self._endpoints.keyring.keys(endpoint, now)],
            headers=self._endpoints.keyring.headers(endpoint),
            timeout=endpoint.timeout / 1000,
            trace=event.id,
        )
