"""The subscriber's side: verify a received webhook, with a typed error for everything that can be wrong with it."""

import base64
import hmac
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from webhooks.errors import (
    MalformedBody,
    MalformedHeader,
    MissingHeader,
    NoMatchingSignature,
    TimestampTooNew,
    TimestampTooOld,
)
from webhooks.signing import PRIVATE, PUBLIC, key_of, public_key, sign, signed_bytes

MAX_HEADER = 4096
"""Characters; ten signatures of each kind have fewer than half."""
MAX_TOKENS = 32
"""Signatures in one header: each costs a verification per public key, and the sender is not known yet."""
_NAMES = {"webhook-id", "webhook-timestamp", "webhook-signature"}
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def verify(
    secret: str | Sequence[str], headers: Mapping[str, str], body: bytes | str, now: float | None = None, tolerance: int = 300
) -> dict[str, Any]:
    """The event `{type, timestamp, data}` of a webhook that one of our secrets signed: a `whsec_…`, or a `whpk_…` for ed25519.

    `headers` in any case, `body` exactly as received, `now` (the clock's unless given) and `tolerance` in seconds; pass several
    secrets, of both kinds if need be, while one replaces another. Answer 2xx to what was done before: `webhook-id` stays the same
    whenever an event comes again, so do the work and note the id in one transaction.

    Raises a VerificationError for whatever the sender got wrong, and ValueError for a secret of ours that is none.
    """
    try:
        raw = body.encode() if isinstance(body, str) else body
    except UnicodeEncodeError as error:
        raise MalformedBody("the body is not UTF-8") from error
    verify_signature(secret, headers, raw, now, tolerance)
    try:
        event = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedBody("the body is signed but not JSON") from error
    if not isinstance(event, dict):
        raise MalformedBody("the body is signed but not a JSON object")
    return event


def verify_signature(secret: str | Sequence[str], headers: Mapping[str, str], body: bytes, now: float | None = None, tolerance: int = 300) -> None:
    """As `verify`, for a body that need not be JSON."""
    keys = [_key(one) for one in ([secret] if isinstance(secret, str) else secret)]
    if not keys:
        raise ValueError("without a secret nothing can be verified")
    given = _ours(headers)
    message_id = _header(given, "webhook-id")
    timestamp = _timestamp(_header(given, "webhook-timestamp"), time.time() if now is None else now, tolerance)
    tokens = _header(given, "webhook-signature").split()
    if len(tokens) > MAX_TOKENS:
        raise MalformedHeader(f"the header webhook-signature has more than {MAX_TOKENS} signatures")
    # Tokens of other versions or without any form are not ours: the header may carry several.
    if not any(_signed(key, tokens, message_id, timestamp, body) for key in keys):
        raise NoMatchingSignature("no signature of this webhook was made with our secret")


def _key(secret: str) -> bytes | Ed25519PublicKey:
    if secret.startswith(PRIVATE):
        raise ValueError(f"a private key ({PRIVATE}…) is the sender's; verifying takes its public key ({PUBLIC}…)")
    return public_key(secret) if secret.startswith(PUBLIC) else key_of(secret)


def _signed(key: bytes | Ed25519PublicKey, tokens: Sequence[str], message_id: str, timestamp: int, body: bytes) -> bool:
    if isinstance(key, bytes):
        # Bytes, because compare_digest refuses text beyond ASCII, which a sender may well put there.
        expected = sign(key, message_id, timestamp, body).encode()
        return any(hmac.compare_digest(token.encode(), expected) for token in tokens)
    message = signed_bytes(message_id, timestamp, body)
    return any(_verifies(key, token.removeprefix("v1a,"), message) for token in tokens if token.startswith("v1a,"))


def _verifies(key: Ed25519PublicKey, signature: str, message: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _ours(headers: Mapping[str, str]) -> dict[str, str]:
    """The three headers, by their names in lower case; which of two different ones would count is for nobody to guess."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower in _NAMES and found.setdefault(lower, value) != value:
            raise MalformedHeader(f"the header {lower} is there twice")
    return found


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise MissingHeader(f"the header {name} is missing")
    if len(value) > MAX_HEADER:
        raise MalformedHeader(f"the header {name} has more than {MAX_HEADER} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MalformedHeader(f"the header {name} is not UTF-8") from error
    return value


def _timestamp(text: str, now: float, tolerance: int) -> int:
    if not _TIMESTAMP.fullmatch(text):
        raise MalformedHeader("the header webhook-timestamp is not in seconds since 1970")
    timestamp = int(text)
    if timestamp < now - tolerance:
        raise TimestampTooOld(f"this webhook was sent more than {tolerance} s ago")
    if timestamp > now + tolerance:
        raise TimestampTooNew(f"this webhook is dated more than {tolerance} s ahead; are the clocks right?")
    return timestamp
