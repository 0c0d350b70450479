"""Standard Webhooks signatures over `{id}.{timestamp}.{body}`: `v1` is HMAC-SHA256, `v1a` is ed25519.

A shared secret is written `whsec_…`, a private key `whsk_…` (seed and public key) and a public key `whpk_…`, each with its bytes in base64.
"""

import base64
import binascii
import hmac
import os
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SHARED, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"
MIN_BYTES = 24
MAX_BYTES = 64
_MAKE_ONE = "make one with: echo whsec_$(openssl rand -base64 32)"

Key = bytes | Ed25519PrivateKey
"""What signs: an HMAC key for `v1`, a private key for `v1a`. Parsed once, because parsing a private key costs as much as five signatures."""


def generate_secret() -> str:
    """A new `whsec_…` of 32 random bytes."""
    return SHARED + base64.b64encode(os.urandom(32)).decode()


def generate_pair() -> tuple[str, str]:
    """A new key pair: `whsk_…` and `whpk_…`."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    return PRIVATE + base64.b64encode(private.private_bytes_raw() + public).decode(), PUBLIC + base64.b64encode(public).decode()


def key_of(secret: str) -> bytes:
    """The HMAC key in a `whsec_…` (the prefix may be missing).

    Raises ValueError, without the secret in its text, where it is not base64 of 24 to 64 bytes.
    """
    key = _decode(secret.removeprefix(SHARED), f"a webhook secret is `{SHARED}` and base64; {_MAKE_ONE}")
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise ValueError(f"a webhook secret has {MIN_BYTES} to {MAX_BYTES} bytes, this one has {len(key)}; {_MAKE_ONE}")
    return key


def signing_key(secret: str) -> Key:
    """What signs with a `whsec_…` or a `whsk_…`. Raises ValueError, without the secret in its text, for what is neither."""
    if not secret.startswith(PRIVATE):
        return key_of(secret)
    wrong = f"a private key is `{PRIVATE}` and base64 of its 32 bytes and the 32 of its public key"
    pair = _decode(secret.removeprefix(PRIVATE), wrong)
    if len(pair) == 64:
        key = Ed25519PrivateKey.from_private_bytes(pair[:32])
        if key.public_key().public_bytes_raw() == pair[32:]:
            return key
    raise ValueError(wrong)


def public_key(text: str) -> Ed25519PublicKey:
    """Of a `whpk_…`. Raises ValueError for what is none."""
    wrong = f"a public key is `{PUBLIC}` and base64 of 32 bytes"
    raw = _decode(text.removeprefix(PUBLIC), wrong)
    if len(raw) != 32:
        raise ValueError(wrong)
    return Ed25519PublicKey.from_public_bytes(raw)


def signed_bytes(message_id: str, timestamp: int, body: bytes) -> bytes:
    return b"%s.%d.%s" % (message_id.encode(), timestamp, body)


def sign(key: Key, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature, `v1,…` or `v1a,…`; `timestamp` in seconds since the epoch."""
    return _sign(key, signed_bytes(message_id, timestamp, body))


def signature_header(keys: Sequence[Key], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature per key, so that receivers may hold either secret while one replaces the other."""
    message = signed_bytes(message_id, timestamp, body)
    return " ".join([_sign(key, message) for key in keys])


def _sign(key: Key, message: bytes) -> str:
    if isinstance(key, bytes):
        return "v1," + base64.b64encode(hmac.digest(key, message, "sha256")).decode()
    return "v1a," + base64.b64encode(key.sign(message)).decode()


def _decode(text: str, wrong: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        # `from None`: the cause could carry the secret into a traceback.
        raise ValueError(wrong) from None
