"""The subscriber's side: verify a received webhook, with a typed error for everything that can be wrong with it."""

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from webhooks.errors import (
    MalformedBody,
    MalformedHeader,
    MissingHeader,
    NoMatchingSignature,
    TimestampTooNew,
    TimestampTooOld,
)
from webhooks.signing import key_of, sign

_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def verify(secret: str | Sequence[str], headers: Mapping[str, str], body: bytes | str, now: float, tolerance: int = 300) -> dict[str, Any]:
    """The event `{type, timestamp, data}` of a webhook that one of our secrets signed.

    `headers` in any case, `body` exactly as received, `now` and `tolerance` in seconds; pass several secrets while one replaces another.
    Raises a VerificationError for whatever the sender got wrong, and ValueError for a secret of ours that is none.
    """
    raw = body.encode() if isinstance(body, str) else body
    verify_signature(secret, headers, raw, now, tolerance)
    try:
        event = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedBody("the body is signed but not JSON") from error
    if not isinstance(event, dict):
        raise MalformedBody("the body is signed but not a JSON object")
    return event


def verify_signature(secret: str | Sequence[str], headers: Mapping[str, str], body: bytes, now: float, tolerance: int = 300) -> None:
    """As `verify`, for a body that need not be JSON."""
    keys = [key_of(secret) for secret in ([secret] if isinstance(secret, str) else secret)]
    given = {name.lower(): value for name, value in headers.items()}
    message_id = _header(given, "webhook-id")
    timestamp = _timestamp(_header(given, "webhook-timestamp"), now, tolerance)
    # Bytes, because compare_digest refuses text beyond ASCII, which a sender may well put there.
    expected = [sign(key, message_id, timestamp, body).encode() for key in keys]
    for token in _header(given, "webhook-signature").split():
        # Tokens of other versions or without any form are not ours: the header may carry several.
        if any(hmac.compare_digest(token.encode("utf-8", "surrogateescape"), one) for one in expected):
            return
    raise NoMatchingSignature("no signature of this webhook was made with our secret")


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise MissingHeader(f"the header {name} is missing")
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
