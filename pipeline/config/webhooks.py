"""`events` and `webhooks`: what may be published, who is told, and how."""

import ipaddress
from collections import Counter
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from pipeline.config.section import Section, written
from pipeline.units import Duration


class Endpoint(Section):
    """A webhook endpoint declared in config.yaml (read-only by API)."""

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")
    url: str
    types: tuple[str, ...] = ("*",)
    secret: SecretStr
    schedule: tuple[Duration, ...] | None = None
    timeout: Duration | None = None
    concurrency: int | None = Field(None, ge=1, le=1000)
    rate: str | None = None
    """Attempts in a time, such as `100/1m`."""
    ordering: str | None = None
    """Path of the key within which deliveries keep their order, such as `data.documentId`."""
    filter: str | None = None
    """CEL over `event`, such as `event.data.score < 50`."""
    payload: Literal["full", "thin"] | None = None
    asymmetric: bool | None = None
    """Sign with ed25519 (`v1a`) too."""
    headers: dict[str, str] = Field({})

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname or url.username is not None:
            raise ValueError("should be http(s)://host/…, without a user name")
        return value


class Events(Section):
    """What may be published by `POST /api/events`."""

    strict: bool = False
    """Only types registered by `PUT /api/events/types/{type}`."""


class Notify(Section):
    """Whom a `send-notification` job tells of endpoints that fail and are disabled."""

    type: Literal["email", "slack", "sms", "push"]
    to: str | None = None
    """Fills `{to}` in the channel's URL."""


class Webhooks(Section):
    allow_networks: tuple[str, ...] = ()
    schedule: tuple[Duration, ...] = written(("0s", "5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h"))
    endpoints: tuple[Endpoint, ...] = ()
    disable_after: Duration | None = written("5d")
    """How long an endpoint may be without a success; null or 0s: for ever."""
    notify: Notify | None = None

    @field_validator("allow_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"{error}; write an address range such as 10.0.0.0/8") from error
        return value

    @field_validator("schedule")
    @classmethod
    def _schedule(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("should have at least one time; the first is the wait before the first attempt")
        return value

    @field_validator("endpoints")
    @classmethod
    def _distinct(cls, value: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        twice = [id for id, count in Counter(endpoint.id for endpoint in value).items() if count > 1]
        if twice:
            raise ValueError(f"the id {twice[0]!r} is used by more than one endpoint")
        return value
