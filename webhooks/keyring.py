"""What an endpoint keeps sealed, opened and replaced: its secrets, its key pairs and its headers."""

import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import orjson

from webhooks.model import Endpoint, Sealed, SealedPair
from webhooks.signing import Key, generate_pair, key_of, signing_key
from webhooks.vault import Vault

MAX_SECRETS = 5
"""Of one endpoint at once: those that overlap and the current one."""

S = TypeVar("S", bound=Sealed)


class Keyring:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    # --- open: each raises MissingKey for what cannot be decrypted --------------------------------------------------

    def secrets(self, endpoint: Endpoint, now: int) -> list[str]:
        """The `whsec_…` that sign at `now`, the current one first."""
        return [self._open(endpoint, one) for one in signing(endpoint.secrets, now)]

    def keys(self, endpoint: Endpoint, now: int) -> list[tuple[int | None, Key]]:
        """What signs from `now` on, each with the time (ms) at which it ceases to."""
        sealed = [*signing(endpoint.secrets, now), *(signing(endpoint.pairs, now) if endpoint.asymmetric else ())]
        return [(one.until, signing_key(self._open(endpoint, one))) for one in sealed]

    def headers(self, endpoint: Endpoint) -> dict[str, str]:
        """Its own headers."""
        return dict(orjson.loads(self._vault.open(endpoint.headers, owner=endpoint.id))) if endpoint.headers else {}

    def holds(self, endpoint: Endpoint, secret: str) -> bool:
        """Whether this is its current secret."""
        return _same(self._open(endpoint, endpoint.secrets[0]), secret)

    # --- seal -------------------------------------------------------------------------------------------------------

    def sealed_headers(self, endpoint: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """The two fields of an endpoint that hold its headers."""
        sealed = self._vault.seal(orjson.dumps(headers).decode(), owner=endpoint) if headers else None
        return {"headers": sealed, "header_names": tuple(headers)}

    def first(self, endpoint: Endpoint, secret: str) -> Endpoint:
        """A new endpoint with its first secret."""
        return replace(endpoint, secrets=(self._secret(endpoint, secret),))

    def rotated(self, endpoint: Endpoint, secret: str, now: int, overlap: int) -> Endpoint:
        """With this secret, and a new key pair where it has one; no former one signs for longer than `overlap` ms more.

        A former secret may come back. Raises MissingKey where one that is to go on cannot be opened.
        """
        former = [one for one in overlapping(endpoint.secrets, now, overlap) if not _same(self._open(endpoint, one), secret)]
        pairs = (self._pair(endpoint), *overlapping(endpoint.pairs, now, overlap)) if endpoint.pairs else ()
        return replace(endpoint, secrets=(self._secret(endpoint, secret), *former), pairs=pairs)

    def completed(self, endpoint: Endpoint, now: int) -> Endpoint:
        """As it is to be saved: with a key pair if it is to sign with one, without what has ceased to sign or is too much."""
        pairs = [self._pair(endpoint)] if endpoint.asymmetric and not endpoint.pairs else signing(endpoint.pairs, now)
        return replace(endpoint, secrets=tuple(signing(endpoint.secrets, now)[:MAX_SECRETS]), pairs=tuple(pairs[:MAX_SECRETS]))

    # --- the vault's own key ----------------------------------------------------------------------------------------

    def knows(self, key: str) -> bool:
        """Whether the encryption key of this id is configured."""
        return self._vault.knows(key)

    def former(self, endpoint: Endpoint, now: int) -> set[str]:
        """Ids of the encryption keys, other than the current one, without which something of this endpoint cannot be opened."""
        return {self._vault.key_of(token) for token in _tokens(endpoint, now)} - {self._vault.current}

    def renewals(self, endpoint: Endpoint, now: int) -> list[tuple[str, str]]:
        """Each token of a former key, and one of the current key in its place. Raises MissingKey."""
        former = [token for token in _tokens(endpoint, now) if self._vault.key_of(token) != self._vault.current]
        return [(token, self._vault.seal(self._vault.open(token, owner=endpoint.id), owner=endpoint.id)) for token in former]

    # --- within -----------------------------------------------------------------------------------------------------

    def _open(self, endpoint: Endpoint, sealed: Sealed) -> str:
        return self._vault.open(sealed.token, owner=endpoint.id)

    def _secret(self, endpoint: Endpoint, secret: str) -> Sealed:
        return Sealed(token=self._vault.seal(secret, owner=endpoint.id))

    def _pair(self, endpoint: Endpoint) -> SealedPair:
        private, public = generate_pair()
        return SealedPair(token=self._vault.seal(private, owner=endpoint.id), public=public)


def signing(secrets: tuple[S, ...], now: int) -> list[S]:
    """Those that sign at `now` (ms)."""
    return [one for one in secrets if one.until is None or one.until > now]


def overlapping(secrets: tuple[S, ...], now: int, overlap: int) -> list[S]:
    """Those that go on signing, for `overlap` ms at most, beside the one that is to replace them."""
    ends = [replace(one, until=now + overlap if one.until is None else min(one.until, now + overlap)) for one in signing(secrets, now)]
    return signing(tuple(ends), now)


def _tokens(endpoint: Endpoint, now: int) -> list[str]:
    """All that is ever opened again: nobody needs what has ceased to sign."""
    sealed = [*signing(endpoint.secrets, now), *signing(endpoint.pairs, now)]
    return [one.token for one in sealed] + ([endpoint.headers] if endpoint.headers else [])


def _same(one: str, other: str) -> bool:
    # As keys, because the prefix may be left out.
    return hmac.compare_digest(key_of(one), key_of(other))
