"""Standard Webhooks v1 and v1a: what we sign others verify, and what they got wrong has a name."""

import base64
import contextlib
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

import webhooks
from webhooks.errors import (
    MalformedBody,
    MalformedHeader,
    MissingHeader,
    NoMatchingSignature,
    TimestampTooNew,
    TimestampTooOld,
    VerificationError,
)
from webhooks.receiver import MAX_HEADER, MAX_TOKENS, verify, verify_signature
from webhooks.signing import generate_pair, generate_secret, key_of, public_key, sign, signature_header, signing_key

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/signatures.json").read_text())
PRIVATE, PUBLIC = generate_pair()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_700_000_000


def headers(body: bytes = b'{"type":"a","data":{}}', *, secret: str = SECRET, at: int = NOW, id: str = "evt_1") -> dict[str, str]:
    return {"Webhook-Id": id, "Webhook-Timestamp": str(at), "Webhook-Signature": sign(key_of(secret), id, at, body)}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    given = {"webhook-id": vector["id"], "webhook-timestamp": str(vector["timestamp"]), "webhook-signature": vector["signature"]}
    body = vector["body"].encode()
    ours = vector.get("public", vector["secret"])
    if vector["valid"]:
        verify_signature(ours, given, body, vector["timestamp"])
        assert sign(signing_key(vector["secret"]), vector["id"], vector["timestamp"], body) in vector["signature"]
    else:
        with pytest.raises(VerificationError):
            verify_signature(ours, given, body, vector["timestamp"])


def test_the_reference_library_accepts_what_we_sign_and_we_what_it_signs() -> None:
    now, body = datetime.now(UTC), b'{"type":"job.completed","data":{"name":"\xc5\xbd"}}'
    webhook = standardwebhooks.Webhook(SECRET)
    for keys in ([key_of(SECRET)], [key_of(generate_secret()), key_of(SECRET), signing_key(PRIVATE)]):
        given = {
            "webhook-id": "m",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature_header(keys, "m", int(now.timestamp()), body),
        }
        assert webhook.verify(body, given) == json.loads(body)
    assert verify(SECRET, given | {"webhook-signature": webhook.sign("m", now, body.decode())}, body) == json.loads(body)


def test_while_a_secret_rotates_both_are_accepted() -> None:
    new, old = generate_secret(), generate_secret()
    body = b"{}"
    given = {"webhook-id": "m", "webhook-timestamp": str(NOW), "webhook-signature": signature_header([key_of(new), key_of(old)], "m", NOW, body)}
    for secret in (new, old, [generate_secret(), old]):
        assert verify(secret, given, body, NOW) == {}
    with pytest.raises(NoMatchingSignature):
        verify(generate_secret(), given, body, NOW)


def test_both_kinds_of_secret_are_accepted_mixed() -> None:
    secret, (private, public), (_, other) = generate_secret(), generate_pair(), generate_pair()
    body = b"{}"
    header = signature_header([key_of(secret), signing_key(private)], "m", NOW, body)
    given = {"webhook-id": "m", "webhook-timestamp": str(NOW), "webhook-signature": header}
    for ours in (secret, public, [other, public], [generate_secret(), public], [other, secret]):
        assert verify(ours, given, body, NOW) == {}
    for ours in (other, [other, generate_secret()]):
        with pytest.raises(NoMatchingSignature):
            verify(ours, given, body, NOW)
    v1, v1a = header.split()
    # Neither kind stands for the other, nor does a signature under another version's name.
    for forged in (v1, v1a.replace("v1a,", "v1,"), "v1a," + v1.removeprefix("v1,"), v1a + "=", v1a[:-4], "v1a,", "v1a"):
        with pytest.raises(NoMatchingSignature):
            verify(public, given | {"webhook-signature": forged}, body, NOW)
    with pytest.raises(NoMatchingSignature):
        verify(public, given, b"[]", NOW)


@pytest.mark.parametrize("text", ["whsk_", "whsk_!", "whsk_" + base64.b64encode(b"x" * 32).decode(), "whsk_" + base64.b64encode(b"x" * 64).decode()])
def test_a_private_key_that_is_none_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="a private key is") as caught:
        signing_key(text)
    assert text == "whsk_" or text not in str(caught.value)
    assert caught.value.__cause__ is None


def test_of_secrets_that_cannot_verify_the_subscriber_is_told() -> None:
    private, public = generate_pair()
    given, body = headers(), b'{"type":"a","data":{}}'
    for ours, says in ((private, "is the sender's"), ("whpk_x", "a public key is"), (public + "AAAA", "a public key is"), ([], "without a secret")):
        with pytest.raises(ValueError, match=says) as caught:
            verify(ours, given, body, NOW)
        assert private not in str(caught.value)
    assert public_key(public).public_bytes_raw() == signing_key(private).public_key().public_bytes_raw()  # type: ignore[union-attr]


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


def test_headers_of_servers_that_keep_duplicates() -> None:
    body = b'{"type":"a","data":{}}'
    good = headers(body)
    assert verify(SECRET, CIMultiDict([*good.items(), ("X-Other", "1"), ("x-other", "2"), ("webhook-id", "evt_1")]), body, NOW)
    for name, value in (("webhook-id", "evt_2"), ("WEBHOOK-TIMESTAMP", "1"), ("webhook-signature", "v1,AAAA")):
        with pytest.raises(MalformedHeader, match="twice"):
            verify(SECRET, CIMultiDict([*good.items(), (name, value)]), body, NOW)


def test_what_a_stranger_can_make_us_compute_is_bounded() -> None:
    body = b'{"type":"a","data":{}}'
    genuine = headers(body)["Webhook-Signature"]
    most = " ".join(["v1a," + "A" * 86 + "=="] * (MAX_TOKENS - 1) + [genuine])
    assert len(most) < MAX_HEADER
    assert verify(SECRET, headers(body) | {"Webhook-Signature": most}, body, NOW)
    for name, value in (("Webhook-Signature", f"v1,x {most}"), ("Webhook-Signature", genuine + " " * MAX_HEADER), ("Webhook-Id", "x" * 5000)):
        with pytest.raises(MalformedHeader):
            verify(SECRET, headers(body) | {name: value}, body, NOW)


def test_the_clock_is_ours_unless_another_is_given() -> None:
    body = b"{}"
    assert verify(SECRET, headers(body, at=int(time.time())), body) == {}
    with pytest.raises(TimestampTooOld):
        verify(SECRET, headers(body), body)


TOKENS = st.one_of(
    st.text(max_size=100),
    st.sampled_from(["v1,", "v1a,", "v1", "v1a,A", "v1,a,b", ",", " v1,x", "v2,AAAA", "v1a," + "A" * 86 + "==", "v1,é", "v1a,\udcff", "v1a,=="]),
    st.binary(max_size=80).map(lambda raw: "v1a," + base64.b64encode(raw).decode()),
)
NAMES = st.sampled_from(["webhook-id", "Webhook-Id", "WEBHOOK-TIMESTAMP", "webhook-timestamp", "webhook-signature", "Webhook-Signature", "x"])
VALUES = st.one_of(st.text(), st.lists(TOKENS, max_size=40).map(" ".join), st.just(str(NOW)), st.integers().map(str))


@given(
    st.lists(st.tuples(NAMES, VALUES)),
    st.one_of(st.binary(), st.text(st.characters(codec=None))),
    st.sampled_from([SECRET, PUBLIC, [PUBLIC, SECRET]]),
)
def test_whatever_arrives_is_a_verification_error(pairs: list[tuple[str, str]], body: bytes | str, ours: str | list[str]) -> None:
    with pytest.raises(VerificationError):
        verify(ours, CIMultiDict(pairs), body, NOW)


@given(st.one_of(st.binary(), st.text(st.characters(codec=None)), st.just("1" * 5000), st.just('{"a":"\ud800"}')))
def test_whatever_is_signed_is_an_event_or_a_verification_error(body: bytes | str) -> None:
    raw = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    given = {"webhook-id": "m", "webhook-timestamp": str(NOW), "webhook-signature": signature_header([signing_key(PRIVATE)], "m", NOW, raw)}
    with contextlib.suppress(MalformedBody):
        assert isinstance(verify(PUBLIC, given, body, NOW), dict)


@given(st.text() | TOKENS | st.text().map(lambda text: "whpk_" + text) | st.text().map(lambda text: "whsk_" + text))
def test_a_secret_is_one_or_a_value_error(secret: str) -> None:
    with pytest.raises((ValueError, NoMatchingSignature)):
        verify(secret, headers(), b'{"type":"a","data":{}}', NOW)


@pytest.mark.parametrize("module", ["webhooks.receiver", "webhooks.pytest_plugin"])
def test_verifying_imports_no_service(module: str) -> None:
    heavy = "{'aiohttp', 'pydantic', 'redis', 'structlog', 'orjson'}"
    subprocess.run([sys.executable, "-c", f"import sys, {module}; assert not {heavy} & set(sys.modules), sys.modules.keys()"], check=True)


def test_the_package_stands_alone() -> None:
    """Each module of it is imported where nothing of the service can be."""
    script = """
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys(("pipeline", "tests"))
import webhooks
names = [module.name for module in pkgutil.iter_modules(webhooks.__path__)]
for name in names:
    importlib.import_module(f"webhooks.{name}")
assert "service" in names, names
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_package_has_what_it_names() -> None:
    assert {name for name in webhooks.__all__ if getattr(webhooks, name).__name__ == name} == set(webhooks.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = webhooks.Nothing
