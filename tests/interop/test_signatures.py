"""Webhooks between Hookline and Node, both ways: the public library for `v1`, Node's own crypto for `v1a`."""

import base64
import json
import subprocess
import time
from typing import Any

import pytest

from tests.support.node import FOLDER, installed, node
from webhooks.errors import NoMatchingSignature
from webhooks.receiver import verify_signature
from webhooks.signing import generate_pair, generate_secret, signature_header, signing_key

BODIES = ("{}", '{"type":"job.completed","data":{"name":"Žluťoučký 🐎"}}', '{"line":"a\\nb"}', " ", "x" * 100_000)
ID = "evt_1"


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    installed()


def ask(**asked: list[dict[str, Any]]) -> dict[str, Any]:
    done = subprocess.run([node(), "signatures.js"], cwd=FOLDER, input=json.dumps(asked), capture_output=True, text=True, check=True, timeout=60)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def raw(key: str) -> bytes:
    return base64.b64decode(key.partition("_")[2])


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_node_verifies_what_we_sign() -> None:
    secret, former, (private, public), now = generate_secret(), generate_secret(), generate_pair(), int(time.time())
    keys = [signing_key(one) for one in (secret, former, private)]
    genuine = []
    for body in BODIES:
        headers = {"webhook-id": ID, "webhook-timestamp": str(now), "webhook-signature": signature_header(keys, ID, now, body.encode())}
        genuine += [{"headers": headers, "body": body, **ours} for ours in ({"secret": secret}, {"secret": former}, {"publicKey": text(raw(public))})]
    forged = [one | {"body": one["body"] + " "} for one in genuine]
    verified = ask(verify=genuine + forged)["verified"]
    assert verified[: len(genuine)] == [True] * len(genuine)
    assert set(verified[len(genuine) :]) == {"No matching signature found", False}


def test_we_verify_what_node_signs() -> None:
    secret, (private, public), now = generate_secret(), generate_pair(), int(time.time())
    pair = {"privateKey": text(raw(private)[:32]), "publicKey": text(raw(public))}
    asked = [{"id": ID, "timestamp": now, "body": body, **by} for body in BODIES for by in ({"secret": secret}, pair)]
    for one, signature in zip(asked, ask(sign=asked)["signatures"], strict=True):
        headers = {"Webhook-Id": ID, "Webhook-Timestamp": str(now), "Webhook-Signature": f"v2,AAAA {signature}"}
        ours, other = (secret, public) if "secret" in one else (public, secret)
        verify_signature(ours, headers, one["body"].encode(), now)
        verify_signature([other, ours], headers, one["body"].encode(), now)
        for wrong, body in ((other, one["body"]), (ours, one["body"] + " ")):
            with pytest.raises(NoMatchingSignature):
                verify_signature(wrong, headers, body.encode(), now)
