"""Standard Webhooks signatures, version `v1`: HMAC-SHA256 over `{id}.{timestamp}.{body}`."""

import base64
import binascii
import hmac
import os
from collections.abc import Sequence

PREFIX = "whsec_"
MIN_BYTES = 24
MAX_BYTES = 64


def generate_secret() -> str:
    """A new `whsec_…` of 32 random bytes."""
    return PREFIX + base64.b64encode(os.urandom(32)).decode()


def key_of(secret: str) -> bytes:
    """The HMAC key in a `whsec_…` (the prefix may be missing).

    Raises ValueError, without the secret in its text, where it is not base64 of 24 to 64 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        # `from None`: the cause could carry the secret into a traceback.
        raise ValueError("a webhook secret is `whsec_` and base64; make one with: echo whsec_$(openssl rand -base64 32)") from None
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise ValueError(
            f"a webhook secret has {MIN_BYTES} to {MAX_BYTES} bytes, this one has {len(key)}; make one with: echo whsec_$(openssl rand -base64 32)"
        )
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One `v1,…` signature; `timestamp` in seconds since the epoch."""
    digest = hmac.digest(key, b"%s.%d.%s" % (message_id.encode(), timestamp, body), "sha256")
    return "v1," + base64.b64encode(digest).decode()


def signature_header(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature per key, so that receivers may hold either secret while one replaces the other."""
    return " ".join(sign(key, message_id, timestamp, body) for key in keys)
