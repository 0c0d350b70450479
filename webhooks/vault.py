"""Secrets at rest: AES-256-GCM with a list of keys, of which the first encrypts and all decrypt."""

import base64
import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from webhooks.errors import InvalidInput, MissingKey

_NONCE = 12


class Vault:
    """Its tokens read `v1.<key id>.<base64 of nonce and ciphertext>`; the key id says which key is missing, and nothing about it."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Raises InvalidInput where there is no key or one that has not 32 bytes."""
        if not keys:
            raise InvalidInput("webhook secrets are encrypted at rest, and there is no encryption key", hint="make one with: openssl rand -base64 32")
        for place, key in enumerate(keys, 1):
            if len(key) != 32:
                raise InvalidInput(f"encryption key {place} has {len(key)} bytes instead of 32", hint="make one with: openssl rand -base64 32")
        self._ciphers = {_key_id(key): AESGCM(key) for key in reversed(keys)}
        self.current = _key_id(keys[0])
        """Id of the key that encrypts."""

    def seal(self, plain: str, *, owner: str) -> str:
        """Encrypt; `owner` (an endpoint's id) is bound in, so that one endpoint's token is worth nothing in another's record."""
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._ciphers[self.current].encrypt(nonce, plain.encode(), owner.encode())
        return f"v1.{self.current}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, token: str, *, owner: str) -> str:
        """Decrypt. Raises MissingKey where none of our keys made the token, or it was tampered with."""
        version, _, rest = token.partition(".")
        key_id, _, encoded = rest.partition(".")
        cipher = self._ciphers.get(key_id)
        if version != "v1" or cipher is None:
            raise MissingKey(
                f"the secrets of endpoint {owner} were encrypted with a key that is not configured (key id {key_id[:16]})",
                hint='add the former key behind the present one to HOOKLINE_ENCRYPTION_KEYS; if it is lost, rotate the secret with {"overlap": "0s"}',
            )
        try:
            sealed = base64.b64decode(encoded, altchars=b"-_", validate=True)
            return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], owner.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise MissingKey(f"the secrets of endpoint {owner} are damaged: rotate its secret") from error

    def knows(self, key: str) -> bool:
        return key in self._ciphers

    def key_of(self, token: str) -> str:
        """Id of the key that a token was made with."""
        return token.partition(".")[2].partition(".")[0]

    def __repr__(self) -> str:
        return f"Vault(current={self.current})"


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"hookline key id" + key).hexdigest()[:8]
