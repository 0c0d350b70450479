"""What the harness needs of a webhook server; another server takes part through a class of this form."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import psutil


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    id: str
    secret: str
    """`whsec_…`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """What the server says of one event at one endpoint."""

    id: str
    event: str
    status: Literal["pending", "delivered", "failed", "skipped"]
    """`failed`: it gave up."""
    attempts: int
    reason: str | None


Which = Literal["sender", "store", "all"]
"""`sender`: what makes the requests; `store`: what keeps the data."""


class Refused(Exception):
    """The server took a request for what it must not do, or for nonsense, and said so (4xx)."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status
        self.said = said


class Unsupported(Exception):
    """The server has no such feature; its row of the scoreboard says so."""


class Server(Protocol):
    name: str

    async def start(self) -> None:
        """Start it, or start again what `kill` killed; returns when it says that it is ready."""

    async def stop(self) -> None:
        """As an operator would; what is under way may end first."""

    def processes(self, which: Which) -> list[psutil.Process]: ...
    async def kill(self, which: Which) -> None:
        """kill -9, all at one moment; returns when they are gone."""

    async def create_endpoint(
        self,
        url: str,
        types: list[str],
        *,
        timeout: float = 15.0,
        concurrency: int = 10,
        schedule: tuple[float, ...] | None = None,
        rate: tuple[int, float] | None = None,
        ordering: str | None = None,
        filter: str | None = None,
        thin: bool = False,
    ) -> Endpoint:
        """Times in seconds; `schedule`: the delay before each attempt; `ordering`: a field of the data; `rate`: (count, seconds).

        Raises Refused and Unsupported.
        """

    async def set_paused(self, endpoint: str, paused: bool) -> None: ...
    async def enable(self, endpoint: str) -> None: ...
    async def status(self, endpoint: str) -> Literal["enabled", "paused", "disabled"]: ...
    async def rotate_secret(self, endpoint: str) -> str:
        """The new secret."""

    async def publish(self, events: list[tuple[str, dict[str, Any]]], *, key: str | None = None) -> list[str]:
        """Publish (type, data) pairs; returns the ids that receivers will see. `key`: idempotency. Raises Refused."""

    async def deliveries(self, endpoint: str) -> list[Delivery]: ...
    async def replay(self, delivery: str) -> None: ...
    async def explain(self, event: str, endpoint: str) -> str:
        """In words, why an endpoint has or has not got an event."""
