"""What is known of one event and one endpoint."""

from dataclasses import dataclass
from typing import Any

from webhooks.model import Attempt, Delivery, DeliveryStatus, Endpoint
from webhooks.units import iso


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """An event, as far as it is known; times in ms since the epoch."""

    type: str
    timestamp: int
    about: str | None = None
    """The endpoint that an event of ours is about."""
    logged: bool = False
    """Whether the log still has it."""
    fanned_out: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Mailbox:
    """What waits for an endpoint."""

    rate_until: int = 0
    """When the endpoint's rate allows the next attempt, ms since the epoch."""
    under_way: int = 0
    ahead: int = 0
    """Deliveries that are due and come before this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that is known of one event and one endpoint at one instant; times in ms since the epoch."""

    now: int
    event: str
    endpoint: str
    """Empty: whichever."""
    known: Known | None = None
    log_start: int | None = None
    behind: int = 0
    """The age in ms of the oldest event that was not fanned out."""
    known_since: int = 0
    """Of what was created before (ms since the epoch), the record may have been and be gone."""
    definition: Endpoint | None = None
    deleted: int | None = None
    """When the endpoint was deleted; 0: it was, but nobody knows when."""
    mailbox: Mailbox = Mailbox()
    filtered: str | None = None
    """Why its filter keeps the event from it at present."""
    delivery: Delivery | None = None
    leased: bool = False
    last: Attempt | None = None
    """The last attempt."""
    head: str | None = None
    """The delivery that this one waits for, to keep their order."""

    def named(self) -> dict[str, Any]:
        """What a verdict rests on."""
        return self._of_event() | self._of_endpoint() | self._of_delivery()

    def _of_event(self) -> dict[str, Any]:
        if self.delivery:
            return {}
        found: dict[str, Any] = {}
        if self.known:
            found = {"eventAt": iso(self.known.timestamp), "inLog": self.known.logged, "fannedOut": self.known.fanned_out}
        return found | {"logStart": iso(self.log_start) if self.log_start else None, "fanOutBehindMs": self.behind}

    def _of_endpoint(self) -> dict[str, Any]:
        endpoint = self.definition
        if endpoint is None:
            return {"endpointDeletedAt": iso(self.deleted)} if self.deleted else {}
        found: dict[str, Any] = {
            "endpointStatus": endpoint.status.value,
            "statusSince": endpoint.since and iso(endpoint.since),
            "endpointTypes": list(endpoint.types),
            "endpointCreatedAt": iso(endpoint.created),
        }
        if endpoint.filter:
            found["endpointFilter"] = endpoint.filter
        health = endpoint.health.document(self.now)
        return found | {"breaker": health.pop("state")} | {name: value for name, value in health.items() if value}

    def _of_delivery(self) -> dict[str, Any]:
        record = self.delivery
        if record is None:
            return {}
        found: dict[str, Any] = {"status": record.status.value, "createdAt": iso(record.created), "attemptCount": record.attempts}
        if self.last:
            found |= {"lastAttemptAt": iso(self.last.at), "lastStatus": self.last.status, "lastError": self.last.error}
        if record.status is DeliveryStatus.PENDING:
            due = None if record.due is None else iso(record.due)
            found |= {"nextAttemptAt": due, "underWay": self.mailbox.under_way, "ahead": self.mailbox.ahead}
        return found
