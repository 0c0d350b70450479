"""What is stored and passed around: endpoints, deliveries and attempts."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

import orjson

from webhooks.health import Health
from webhooks.units import Rate, format_duration, iso, ms

HIDDEN = "(hidden)"
"""What the API shows instead of a header's value: it may well be a password."""
DEFAULT_TIMEOUT_MS = 15_000
DEFAULT_CONCURRENCY = 10


Item = TypeVar("Item")


class EndpointStatus(StrEnum):
    ENABLED = "enabled"
    PAUSED = "paused"
    """Events still become deliveries, which wait."""
    DISABLED = "disabled"
    """The receiver said that it wants nothing any more, or failed for too long: pending deliveries wait, new events are recorded as skipped."""


class Payload(StrEnum):
    FULL = "full"
    THIN = "thin"
    """What identifies the event and its objects; the receiver fetches the rest."""


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"
    """Every attempt of the schedule failed."""
    SKIPPED = "skipped"
    """Never attempted, or no longer; `reason` says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sealed:
    """A secret as it is stored."""

    token: str = field(repr=False)
    """Ciphertext of the `whsec_…` or `whsk_…`; see `vault.py`."""
    until: int | None = None
    """ms since the epoch; from then on it no longer signs. None: the current one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SealedPair(Sealed):
    """An ed25519 key pair as it is stored: the private key sealed, the public one as anybody may read it."""

    public: str
    """`whpk_…`"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A receiver and how it wants to be served."""

    id: str
    # A query of it may be a password, so it is not in the repr.
    url: str = field(repr=False)
    types: tuple[str, ...]
    secrets: tuple[Sealed, ...] = field(repr=False)
    """The current one first, then those that still sign while it rotates."""
    pairs: tuple[SealedPair, ...] = ()
    """Likewise, for ed25519: made when `asymmetric` is first asked for, and kept when it no longer is."""
    headers: str | None = field(default=None, repr=False)
    """Its own headers, sealed JSON: they often are passwords."""
    header_names: tuple[str, ...] = ()
    status: EndpointStatus = EndpointStatus.ENABLED
    reason: str | None = None
    """Why it is paused or disabled, where that was not a person's decision."""
    since: int | None = field(default=None, compare=False)
    """When it came to have this status, ms since the epoch; None: nobody knows."""
    schedule: tuple[int, ...] | None = None
    """ms before each attempt; None: the default one."""
    timeout: int = DEFAULT_TIMEOUT_MS
    """ms for a whole attempt, the answer's body included."""
    concurrency: int = DEFAULT_CONCURRENCY
    """How many attempts may be under way at once."""
    rate: Rate | None = None
    """How many attempts may begin in a time; None: as many as there are."""
    ordering: str | None = None
    """Path in the event's document of the key within which deliveries keep their order (`data.documentId`); None: no order."""
    filter: str | None = None
    """CEL over `event`; what it is not true of is recorded as skipped."""
    payload: Payload = Payload.FULL
    asymmetric: bool = False
    """Whether requests are signed with ed25519 (`v1a`) too."""
    description: str = ""
    source: str = "api"
    """`api` or `config`."""
    removed: bool = False
    """Of a `config` one: it is no longer in config.yaml."""
    created: int
    """ms since the epoch."""
    version: int = 0
    """+1 with each change."""
    health: Health = field(default=Health(), compare=False)
    """As it was when this was read."""

    def document(self, now: int | None = None) -> dict[str, Any]:
        """As the API shows it at a time (ms; None: now); never with a secret."""
        now = time.time_ns() // 1_000_000 if now is None else now
        pairs = self.pairs if self.asymmetric else ()
        return {
            "id": self.id,
            "url": self.url,
            "types": list(self.types),
            "status": self.status.value,
            "statusSince": None if self.since is None else iso(self.since),
            "reason": self.reason,
            "description": self.description,
            "schedule": None if self.schedule is None else [format_duration(ms) for ms in self.schedule],
            "timeout": format_duration(self.timeout),
            "concurrency": self.concurrency,
            "rate": None if self.rate is None else str(self.rate),
            "ordering": self.ordering,
            "filter": self.filter,
            "payload": self.payload.value,
            "asymmetric": self.asymmetric,
            "publicKey": pairs[0].public if pairs else None,
            "formerPublicKeys": [{"publicKey": pair.public, "until": iso(pair.until)} for pair in pairs if pair.until and pair.until > now],
            "formerSecrets": [{"until": iso(secret.until)} for secret in self.secrets if secret.until and secret.until > now],
            "headers": dict.fromkeys(self.header_names, HIDDEN),
            "health": self.health.document(now),
            "source": self.source,
            "createdAt": iso(self.created),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One request to an endpoint, and what came of it."""

    number: int
    """1 for the first of its delivery; goes on counting after a replay."""
    at: int
    """When it began, ms since the epoch."""
    duration: int | None
    """ms; None where the sending process died."""
    status: int | None
    """Of the HTTP answer; None where there was none."""
    error: str | None
    """Why it failed; None for a success."""
    response: str | None
    """The first 4 KiB of the answer's body, as text."""
    address: str | None
    """The IP address that was dialled."""
    phases: dict[str, float | None] | None = None
    """ms of dns, connect, tls, firstByte and total; see `phases.py`. None where nothing was sent."""
    reused: bool | None = None
    """Whether it went over a connection that an earlier attempt had opened."""

    def document(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "at": iso(self.at),
            "durationMs": self.duration,
            "status": self.status,
            "error": self.error,
            "response": self.response,
            "address": self.address,
            "phases": self.phases,
            "reused": self.reused,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """The record of one event for one endpoint."""

    id: str
    event: str
    endpoint: str
    type: str
    run: str | None
    status: DeliveryStatus
    reason: str | None
    """Why it was skipped, or exhausted before its schedule's end."""
    attempts: int
    code: int | None
    """HTTP status of the last attempt."""
    due: int | None
    """ms since the epoch, of the attempt that it waits for, or that is under way; None unless it is pending."""
    created: int
    finished: int | None
    line: str | None = None
    """Where its endpoint wants an order: its place in it; see `ordering.py`."""

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "eventId": self.event,
            "endpoint": self.endpoint,
            "type": self.type,
            "runId": self.run,
            "status": self.status.value,
            "reason": self.reason,
            "attemptCount": self.attempts,
            "lastStatus": self.code,
            "nextAttemptAt": None if self.due is None else iso(self.due),
            "createdAt": iso(self.created),
            "finishedAt": None if self.finished is None else iso(self.finished),
        }

    @classmethod
    def parse(cls, delivery: str, fields: dict[str, str]) -> "Delivery":
        return cls(
            id=delivery,
            event=fields["event"],
            endpoint=fields["endpoint"],
            type=fields["type"],
            run=fields.get("run") or None,
            status=DeliveryStatus(fields["status"]),
            reason=fields.get("reason") or None,
            attempts=int(fields.get("attempts") or 0),
            code=int(fields["code"]) if fields.get("code") else None,
            due=int(fields["due"]) if fields.get("due") and fields["status"] == DeliveryStatus.PENDING else None,
            created=int(fields["created"]),
            finished=int(fields["finished"]) if fields.get("finished") else None,
            line=fields.get("line") or None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptEvent:
    """An event as it is kept for its deliveries: the log may know nothing of it any more."""

    id: str
    type: str
    timestamp: int
    """ms since the epoch"""
    data: dict[str, Any]
    cursor: str = ""

    def document(self) -> dict[str, Any]:
        return {"type": self.type, "timestamp": iso(self.timestamp), "data": self.data}

    @classmethod
    def parse(cls, event: str, body: str | bytes) -> "KeptEvent":
        document = orjson.loads(body)
        return cls(id=event, type=document["type"], timestamp=ms(document["timestamp"]), data=document["data"])


OWN = ("delivery.", "endpoint.")
"""What types of this package's events begin with. They never go to the endpoint concerned; `health.lua` says which further ones they may cause."""


def run_of(data: Mapping[str, Any]) -> str | None:
    """The run that an event's `data` names."""
    run = data.get("runId")
    return run if isinstance(run, str) else None


def delivery_id(event: str, endpoint: str) -> str:
    """`dlv_…` of an event for an endpoint: computed, so that an event read twice from the log finds the record it made the first time."""
    return "dlv_" + hashlib.blake2b(f"{event}\x1f{endpoint}".encode(), digest_size=12).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Page(Generic[Item]):
    items: list[Item]
    next_cursor: str | None
