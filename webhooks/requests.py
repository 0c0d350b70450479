"""What is sent for a claim: the endpoint's URL, headers and keys, and the body that it wants."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from webhooks.endpoints import Endpoints
from webhooks.mailbox import Claim
from webhooks.model import Endpoint
from webhooks.selecting import Bodies
from webhooks.sender import Request
from webhooks.signing import Key


@dataclass(frozen=True, slots=True)
class _Opened:
    """What of an endpoint is stored encrypted."""

    endpoint: Endpoint
    """As it was when this was opened. Its version would not do: one that is deleted and declared again begins anew."""
    keys: Sequence[tuple[int | None, Key]] = field(repr=False)
    """Each with the time (ms) from which it no longer signs."""
    headers: dict[str, str] = field(repr=False)


class Requests:
    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._opened: dict[str, _Opened] = {}
        self._bodies = Bodies()

    def of(self, claim: Claim, endpoint: Endpoint, now: int) -> Request:
        """Raises MissingKey."""
        opened = self._open(endpoint, now)
        return Request(
            url=endpoint.url,
            event=claim.event,
            body=self._bodies.of(claim.event, claim.body, endpoint.payload),
            keys=[key for until, key in opened.keys if until is None or until > now],
            headers=opened.headers,
            timeout=endpoint.timeout / 1000,
            trace=claim.run or claim.event,
        )

    def forget(self, endpoints: Iterable[str]) -> None:
        """Those that have changed or are gone: no key outlives its endpoint."""
        for endpoint in endpoints:
            self._opened.pop(endpoint, None)

    def _open(self, endpoint: Endpoint, now: int) -> _Opened:
        """Decrypted once, until the endpoint is read again because it has changed."""
        opened = self._opened.get(endpoint.id)
        if opened is None or opened.endpoint is not endpoint:
            keyring = self._endpoints.keyring
            opened = _Opened(endpoint, keyring.keys(endpoint, now), keyring.headers(endpoint))
            self._opened[endpoint.id] = opened
        return opened
