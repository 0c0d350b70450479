"""Tokens are accepted for the reasons the configuration gives and refused for every other, saying why and repeating nothing."""

import base64
import hashlib
import hmac
import json
import time
import warnings
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline import auth
from pipeline.auth import ANONYMOUS, Authenticator, Jwks, Principal, issue
from pipeline.config import Auth
from pipeline.errors import ConfigError, Unauthenticated, Unavailable

SECRET = "0123456789abcdef0123456789abcdef"
HOUR = 3_600_000
NOW = round(time.time() * 1000)
CONFIG = Auth(jwt_secret=SECRET, api_keys={"files": "hk_0123456789abcdefghij", "other": "hk_zyxwvutsrqponmlkjihg"})


def _token(algorithm: str = "HS256", key: Any = SECRET, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    payload = {"sub": "alice", "exp": NOW // 1000 + 3600, **claims}
    return jwt.encode({name: value for name, value in payload.items() if value is not None}, key, algorithm=algorithm, headers=headers)


async def _check(token: str, config: Auth = CONFIG) -> Principal:
    return await Authenticator(config).authenticate(f"Bearer {token}")


async def test_an_issued_token_says_who_is_calling() -> None:
    principal = await _check(issue(CONFIG, "alice", "admin", HOUR, now=NOW))
    assert principal == Principal(sub="alice", role="admin", via="jwt", expires_at=(NOW + HOUR) // 1000 * 1000)


async def test_issuer_audience_and_role_claim_are_written_and_checked() -> None:
    config = Auth(jwt_secret=SECRET, issuer="https://id.example", audience="hookline", role_claim="https://hookline/role")
    assert (await _check(issue(config, "bob", "service", HOUR, now=NOW), config)).role == "service"
    with pytest.raises(Unauthenticated, match="audience"):
        await _check(_token(iss="https://id.example", aud="other"), config)
    with pytest.raises(Unauthenticated, match="issuer"):
        await _check(_token(iss="https://evil.example", aud="hookline"), config)
    with pytest.raises(Unauthenticated, match="no `iss`"):
        await _check(_token(aud="hookline"), config)


async def test_a_token_without_a_role_is_a_users() -> None:
    principal = await _check(_token())
    assert principal.role == "user"
    assert principal.owns("alice")
    assert not principal.owns("bob")
    assert not principal.owns(None)


def _unsigned(algorithm: str) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part({'sub': 'alice', 'role': 'admin', 'exp': NOW // 1000 + 3600})}."


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (_token(exp=NOW // 1000 - 1), "has expired"),
        (_token(exp=None), "no `exp`"),
        (_token(sub=None), "no `sub`"),
        (_token(sub=""), "printable"),
        (_token(sub="a\nb"), "printable"),
        (_token(sub="x" * 256), "printable"),
        (_token(role="root"), "admin, service or user"),
        (_token(role=["admin"]), "admin, service or user"),
        (_token(nbf=NOW // 1000 + 600), "not valid yet"),
        (_token(key="x" * 32), "signature is wrong"),
        (_token(algorithm="HS512", key=SECRET * 2), "algorithm is not allowed; allowed: HS256"),
        (_unsigned("none"), "algorithm is not allowed"),
        (_unsigned("None"), "algorithm is not allowed"),
        (_unsigned("HS256"), "signature is wrong"),
        ("not-a-token", "not a valid JWT"),
        ("a.b.c", "not a valid JWT"),
    ],
)
async def test_a_token_is_refused_with_the_reason(token: str, reason: str) -> None:
    with pytest.raises(Unauthenticated, match=reason) as caught:
        await _check(token)
    assert token not in str(caught.value)


@pytest.mark.parametrize("header", [None, "", "Basic YTpi", "Bearer", "Bearer ", "token", "Bearer \udce9t\udce9"])
async def test_without_a_bearer_token_nobody_is_let_in(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await Authenticator(CONFIG).authenticate(header)
    assert caught.value.hint == "send the header Authorization: Bearer <token>"


async def test_an_api_key_is_a_service_and_is_not_mistaken_for_a_user_of_its_name() -> None:
    principal = await _check("hk_0123456789abcdefghij")
    assert principal == Principal(sub="files", role="service", via="key")
    assert principal.id != Principal(sub="files", role="user").id
    assert principal.owns("anybody")
    for wrong in ("hk_0123456789abcdefghiX", "hk_", "hk_0123456789abcdefghijk"):
        with pytest.raises(Unauthenticated, match="not known"):
            await _check(wrong)


def test_who_comes_without_a_token_is_nobody_in_particular() -> None:
    assert ANONYMOUS.anonymous
    assert not Principal(sub="anonymous", role="service", via="key").anonymous


def test_no_token_is_issued_where_tokens_come_from_elsewhere() -> None:
    with pytest.raises(ConfigError, match="jwt_secret"):
        issue(Auth(jwks_url="http://127.0.0.1:1/jwks", algorithms=("RS256",)), "alice", "user", HOUR, now=NOW)


async def test_a_short_secret_works_without_a_warning_per_request() -> None:
    config = Auth(jwt_secret="short")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (await _check(issue(config, "alice", "user", HOUR, now=NOW), config)).sub == "alice"


# --- key sets ---------------------------------------------------------------------------------------------------------


class IdentityProvider:
    """A real server of a key set: counts how often it was asked and can be made to fail."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.keys = [
            jwt.algorithms.RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True) | {"kid": "r1", "use": "sig"},
            jwt.algorithms.ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True) | {"kid": "e1", "alg": "ES256"},
        ]
        self.asked = 0
        self.failures = 0
        self.body: bytes | None = None
        self.url = ""

    async def serve(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        return web.Response(body=self.body) if self.body is not None else web.json_response({"keys": self.keys})

    def config(self, **more: Any) -> Auth:
        return Auth(jwks_url=self.url, algorithms=("RS256", "ES256"), **more)


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    provider = IdentityProvider()
    app = web.Application()
    app.router.add_get("/jwks.json", provider.serve)
    async with TestServer(app) as server:
        provider.url = str(server.make_url("/jwks.json"))
        yield provider


@pytest.fixture
async def authenticator(provider: IdentityProvider) -> AsyncIterator[Authenticator]:
    authenticator = Authenticator(provider.config())
    yield authenticator
    await authenticator.close()


async def _by(authenticator: Authenticator, token: str) -> str:
    return (await authenticator.authenticate(f"Bearer {token}")).sub


async def test_tokens_of_both_kinds_are_checked_with_keys_fetched_once(provider: IdentityProvider, authenticator: Authenticator) -> None:
    for _ in range(3):
        assert await _by(authenticator, _token("RS256", provider.rsa, {"kid": "r1"})) == "alice"
        assert await _by(authenticator, _token("ES256", provider.ec, {"kid": "e1"})) == "alice"
    assert await _by(authenticator, _token("RS256", provider.rsa)) == "alice", "without a kid, the only key that fits"
    assert provider.asked == 1


async def test_the_public_key_is_no_hmac_secret(provider: IdentityProvider, authenticator: Authenticator) -> None:
    pem = provider.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, body, _ = _unsigned("HS256").split(".")
    signature = base64.urlsafe_b64encode(hmac.digest(pem, f"{head}.{body}".encode(), hashlib.sha256)).rstrip(b"=").decode()
    with pytest.raises(Unauthenticated, match="algorithm is not allowed"):
        await _by(authenticator, f"{head}.{body}.{signature}")


async def test_a_key_of_the_wrong_kind_or_for_encryption_is_not_used(provider: IdentityProvider, authenticator: Authenticator) -> None:
    with pytest.raises(Unauthenticated, match="not in the key set"):
        await _by(authenticator, _token("RS256", provider.rsa, {"kid": "e1"}))
    provider.keys[0]["use"] = "enc"
    fresh = Authenticator(provider.config())
    with pytest.raises(Unauthenticated, match="not in the key set"):
        await _by(fresh, _token("RS256", provider.rsa, {"kid": "r1"}))
    await fresh.close()


async def test_a_rotated_key_is_fetched_but_made_up_ids_do_not_make_us_ask_again_and_again(
    provider: IdentityProvider, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _by(authenticator, _token("RS256", provider.rsa, {"kid": "r1"}))
    provider.keys[0]["kid"] = "r2"
    for _ in range(5):
        with pytest.raises(Unauthenticated, match="not in the key set"):
            await _by(authenticator, _token("RS256", provider.rsa, {"kid": "r2"}))
    assert provider.asked == 1
    monkeypatch.setattr(Jwks, "UNKNOWN_KEY_SECONDS", -1.0)
    assert await _by(authenticator, _token("RS256", provider.rsa, {"kid": "r2"})) == "alice"
    assert provider.asked == 2


async def test_a_fetch_that_fails_is_tried_again(provider: IdentityProvider, authenticator: Authenticator) -> None:
    provider.failures = 1
    assert await _by(authenticator, _token("RS256", provider.rsa, {"kid": "r1"})) == "alice"
    assert provider.asked == 2


@pytest.mark.parametrize("body", [b"[]", b'{"keys": 1}', b"oops", b" " * 300_000])
async def test_what_is_no_key_set_leaves_us_unavailable(provider: IdentityProvider, authenticator: Authenticator, body: bytes) -> None:
    provider.body = body
    with pytest.raises(Unavailable, match="cannot be fetched"):
        await _by(authenticator, _token("RS256", provider.rsa, {"kid": "r1"}))
    asked = provider.asked
    with pytest.raises(Unavailable):
        await _by(authenticator, _token("RS256", provider.rsa, {"kid": "r1"}))
    assert provider.asked == asked, "the next request does not queue up behind attempts of its own"


async def test_known_keys_outlive_an_outage_of_the_provider(
    provider: IdentityProvider, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _by(authenticator, _token("RS256", provider.rsa, {"kid": "r1"}))
    monkeypatch.setattr(Jwks, "FRESH_SECONDS", -1.0)
    monkeypatch.setattr(authenticator, "_verified", {})
    provider.failures = 3
    assert await _by(authenticator, _token("RS256", provider.rsa, {"kid": "r1"})) == "alice"
    assert provider.asked == 4


async def test_a_token_is_verified_once_a_minute_and_never_past_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator = Authenticator(CONFIG)
    now, verified = time.time(), 0
    decode = jwt.decode

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal verified
        verified += 1
        return decode(*arguments, **options)

    monkeypatch.setattr(jwt, "decode", counted)
    token = _token("HS256", SECRET, exp=int(now) + 90)
    for later, times in ((0, 1), (59, 1), (61, 2), (89, 2)):
        monkeypatch.setattr(time, "time", lambda moment=now + later: moment)
        assert await _by(authenticator, token) == "alice"
        assert verified == times
    monkeypatch.setattr(time, "time", lambda: now + 91)
    # PyJWT has a clock of its own, which is not at 91: that it is asked again is what counts.
    monkeypatch.setattr(jwt, "decode", lambda *_, **__: (_ for _ in ()).throw(jwt.ExpiredSignatureError()))
    with pytest.raises(Unauthenticated):
        await _by(authenticator, token)


async def test_no_more_tokens_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "VERIFIED", 3)
    authenticator = Authenticator(CONFIG)
    for number in range(10):
        await _by(authenticator, _token("HS256", SECRET, jti=str(number)))
    assert len(authenticator._verified) == 3


def test_no_secret_shows_in_a_repr() -> None:
    assert SECRET not in repr(CONFIG)
    assert "hk_0123" not in repr(CONFIG)
