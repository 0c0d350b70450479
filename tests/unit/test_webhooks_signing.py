"""Standard Webhooks v1: what we sign others verify, and what they got wrong has a name."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from webhooks.errors import (
    MalformedBody,
    MalformedHeader,
    MissingHeader,
    NoMatchingSignature,
    TimestampTooNew,
    TimestampTooOld,
    VerificationError,
)
from webhooks.receiver import verify, verify_signature
from webhooks.signing import generate_secret, key_of, sign, signature_header

VECTORS = [
    vector
    for vector in json.loads((Path(__file__).parents[1] / "vectors/signatures.json").read_text())
    if vector["name"] != "sw_ed25519_reference"  # v1a is not verified yet
]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_700_000_000


def headers(body: bytes = b'{"type":"a","data":{}}', *, secret: str = SECRET, at: int = NOW, id: str = "evt_1") -> dict[str, str]:
    return {"Webhook-Id": id, "Webhook-Timestamp": str(at), "Webhook-Signature": sign(key_of(secret), id, at, body)}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    given = {"webhook-id": vector["id"], "webhook-timestamp": str(vector["timestamp"]), "webhook-signature": vector["signature"]}
    body = vector["body"].encode()
    if vector["valid"]:
        verify_signature(vector["secret"], given, body, vector["timestamp"])
        assert sign(key_of(vector["secret"]), vector["id"], vector["timestamp"], body) in vector["signature"]
    else:
        with pytest.raises(VerificationError):
            verify_signature(vector["secret"], given, body, vector["timestamp"])


def test_the_reference_library_accepts_what_we_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"type":"job.completed","data":{"name":"\xc5\xbd"}}'
    webhook = standardwebhooks.Webhook(SECRET)
    monkeypatch.setattr(
        webhook, "_Webhook__verify_timestamp", lambda text: __import__("datetime").datetime.fromtimestamp(int(text), __import__("datetime").UTC)
    )
    given = {name.lower(): value for name, value in headers(body).items()}
    assert webhook.verify(body, given) == json.loads(body)


def test_while_a_secret_rotates_both_are_accepted() -> None:
    new, old = generate_secret(), generate_secret()
    body = b"{}"
    given = {"webhook-id": "m", "webhook-timestamp": str(NOW), "webhook-signature": signature_header([key_of(new), key_of(old)], "m", NOW, body)}
    for secret in (new, old, [generate_secret(), old]):
        assert verify(secret, given, body, NOW) == {}
    with pytest.raises(NoMatchingSignature):
        verify(generate_secret(), given, body, NOW)


def test_generated_secrets_have_32_random_bytes() -> None:
    first, second = generate_secret(), generate_secret()
    assert first != second
    assert first.startswith("whsec_")
    assert len(key_of(first)) == 32


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_short", "whsec_" + base64.b64encode(b"x" * 23).decode(), "whsec_" + "A" * 100, "pass word!" * 4, "ü" * 40]
)
def test_a_secret_that_is_none_is_refused_without_being_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match="openssl rand") as caught:
        key_of(secret)
    assert len(secret) < 8 or secret not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"Webhook-Id": ""}, MissingHeader),
        ({"Webhook-Timestamp": ""}, MissingHeader),
        ({"Webhook-Signature": ""}, MissingHeader),
        ({"Webhook-Timestamp": "soon"}, MalformedHeader),
        ({"Webhook-Timestamp": "-5"}, MalformedHeader),
        ({"Webhook-Timestamp": "1e9"}, MalformedHeader),
        ({"Webhook-Timestamp": "9" * 400}, MalformedHeader),
        ({"Webhook-Timestamp": "١٢٣"}, MalformedHeader),
        ({"Webhook-Id": "a\udcff"}, MalformedHeader),
        ({"Webhook-Signature": "v1,é"}, NoMatchingSignature),
        ({"Webhook-Signature": "   "}, NoMatchingSignature),
        ({"Webhook-Id": "evt_2"}, NoMatchingSignature),
    ],
)
def test_wrong_headers_have_a_name(change: dict[str, str], error: type[VerificationError]) -> None:
    body = b'{"type":"a","data":{}}'
    with pytest.raises(error):
        verify(SECRET, headers(body) | change, body, NOW)


def test_time() -> None:
    body = b"{}"
    assert verify(SECRET, headers(body, at=NOW - 300), body, NOW) == {}
    assert verify(SECRET, headers(body, at=NOW + 300), body, NOW) == {}
    assert verify(SECRET, headers(body, at=NOW - 301), body, NOW, tolerance=301) == {}
    with pytest.raises(TimestampTooOld):
        verify(SECRET, headers(body, at=NOW - 301), body, NOW)
    with pytest.raises(TimestampTooNew):
        verify(SECRET, headers(body, at=NOW + 301), body, NOW)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_signed_body_that_is_no_event(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        verify(SECRET, headers(body), body, NOW)


def test_one_changed_byte_is_noticed() -> None:
    body = b'{"amount":100}'
    given = headers(body)
    for place in range(len(body)):
        changed = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        with pytest.raises(NoMatchingSignature):
            verify_signature(SECRET, given, changed, NOW)


@given(st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text()), st.binary())
def test_whatever_arrives_is_a_verification_error(given_headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(VerificationError):
        verify(SECRET, given_headers, body, NOW)
