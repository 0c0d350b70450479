"""Who is calling: bearer tokens (JWT by secret or by JWKS) and service API keys, checked into a `Principal`."""

import asyncio
import hashlib
import hmac
import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import aiohttp
import jwt
import orjson
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from pipeline.config import KEY_PREFIX, Auth
from pipeline.errors import ConfigError, Unauthenticated, Unavailable

Role = Literal["admin", "service", "user"]
ROLES: tuple[Role, ...] = get_args(Role)
_JWKS_LIMIT = 256 * 1024
_JWKS_ERRORS = (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError)
_SECRET_BYTES = 32
"""RFC 7518, 3.2: an HMAC key shorter than the hash can be guessed offline from one token."""
_KEY_LENGTH = 20
VERIFIED, VERIFIED_SECONDS = 4096, 60.0
"""So many tokens, for so long at most: a key that the identity provider withdraws is still honoured in that time."""

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """Somebody whose word we checked."""

    sub: str
    """The token's subject (a user's id), or the name of the API key."""
    role: Role
    via: Literal["jwt", "key", "none"] = "jwt"
    expires_at: int | None = None
    """When the token ends, ms since the epoch; a stream is not kept open past it."""

    @property
    def anonymous(self) -> bool:
        return self.via == "none"

    @property
    def id(self) -> str:
        """Never the same for two callers: a user may be called like an API key."""
        return f"{self.via}:{self.sub}"

    def owns(self, user_id: object) -> bool:
        """Whether something that belongs to `user_id` may be seen and acted on."""
        return self.role != "user" or user_id == self.sub


ANONYMOUS = Principal(sub="anonymous", role="service", via="none")
"""A caller without a token where `auth.anonymous_jobs` lets it in: it acts for any user, on those routes only."""


def issue(config: Auth, sub: str, role: Role, ttl: int, *, now: int) -> str:
    """A JWT signed with `auth.jwt_secret`, valid for `ttl` ms from `now` (ms since the epoch).

    Raises ConfigError where there is no secret to sign with, because tokens come from elsewhere (`auth.jwks_url`).
    """
    algorithm = next((name for name in config.algorithms if name.startswith("HS")), None)
    if not config.jwt_secret or not algorithm:
        raise ConfigError("a token can only be issued with auth.jwt_secret and one of HS256, HS384, HS512 in auth.algorithms")
    claims: dict[str, Any] = {"sub": sub, config.role_claim: role, "iat": now // 1000, "exp": (now + ttl) // 1000}
    claims |= {name: value for name, value in (("iss", config.issuer), ("aud", config.audience)) if value}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)  # said once, by the Authenticator
        return jwt.encode(claims, config.jwt_secret.get_secret_value(), algorithm=algorithm)


class Authenticator:
    """Checks an `Authorization` header by the section `auth:` of the configuration.

    Raises ConfigError for an API key that cannot be one.
    """

    def __init__(self, config: Auth) -> None:
        self._config = config
        self._secret = config.jwt_secret.get_secret_value() if config.jwt_secret else None
        self._keys = tuple((name, _digest(_api_key(name, key.get_secret_value()))) for name, key in config.api_keys.items())
        if self._secret is not None and len(self._secret.encode()) < _SECRET_BYTES:
            _log.warning("auth.jwt_secret is short: whoever sees one token may guess it", bytes=len(self._secret.encode()), advised=_SECRET_BYTES)
        self._jwks = Jwks(config.jwks_url) if config.jwks_url else None
        self._verified: dict[bytes, tuple[Principal, float]] = {}
        """By the hash of the header: whose it is, and until when (seconds since the epoch) it need not be verified again."""

    async def authenticate(self, authorization: str | None) -> Principal:
        """The caller behind an `Authorization` header.

        Raises Unauthenticated, saying what is wrong with the token, and Unavailable if the key set cannot be fetched.
        """
        if not authorization:
            raise Unauthenticated("a token is needed", hint="send the header Authorization: Bearer <token>")
        # A client sends the same token with each of its requests; to verify it is a quarter of a small one.
        digest, now = _digest(authorization), time.time()
        principal, until = self._verified.get(digest, (None, 0.0))
        if principal and now < until:
            return principal
        scheme, _, token = authorization.strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or not token.isascii():
            raise Unauthenticated("the Authorization header is not a bearer token", hint="send the header Authorization: Bearer <token>")
        if token.startswith(KEY_PREFIX):
            return self._by_key(token)
        principal = self._principal(await self._claims(token))
        # In whole seconds, for an `exp` may be larger than any float.
        self._verified[digest] = (principal, min(now + VERIFIED_SECONDS, (principal.expires_at or 0) // 1000))
        if len(self._verified) > VERIFIED:
            del self._verified[next(iter(self._verified))]
        return principal

    async def close(self) -> None:
        if self._jwks:
            await self._jwks.close()

    def _by_key(self, key: str) -> Principal:
        digest, found = _digest(key), None
        for name, expected in self._keys:  # all of them, so that the time taken does not tell which one nearly matched
            if hmac.compare_digest(digest, expected):
                found = name
        if found is None:
            raise Unauthenticated("this API key is not known")
        return Principal(sub=found, role="service", via="key")

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
            if algorithm not in self._config.algorithms:
                raise jwt.InvalidAlgorithmError(str(algorithm))
            key = await self._key(token, algorithm)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
                return jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    issuer=self._config.issuer,
                    audience=self._config.audience,
                    # `aud` concerns us only if we were told who we are; `iat` in the future is a clock, not an attack.
                    options={"require": ["exp", "sub"], "verify_aud": self._config.audience is not None, "verify_iat": False},
                )
        except jwt.PyJWTError as error:
            raise Unauthenticated(_reason(error, self._config)) from error

    async def _key(self, token: str, algorithm: str) -> Any:
        if algorithm.startswith("HS"):
            if self._secret is None:
                raise jwt.InvalidAlgorithmError(algorithm)
            return self._secret
        assert self._jwks  # the configuration refuses these algorithms without a key set
        return await self._jwks.key(jwt.get_unverified_header(token).get("kid"), algorithm)

    def _principal(self, claims: dict[str, Any]) -> Principal:
        sub, role = claims["sub"], claims.get(self._config.role_claim, "user")
        if not sub or len(sub) > 255 or not sub.isprintable():
            raise Unauthenticated("the token's `sub` must be 1 to 255 printable characters")
        if role not in ROLES:
            raise Unauthenticated(f"the token's `{self._config.role_claim}` must be admin, service or user (or be left out, which means user)")
        return Principal(sub=sub, role=role, expires_at=int(claims["exp"]) * 1000)


class Jwks:
    """A key set behind a URL, fetched when first needed, every ten minutes, and when a token names an unknown key."""

    FRESH_SECONDS = 600.0
    UNKNOWN_KEY_SECONDS = 30.0
    """At most one fetch in this time for key ids we do not know: anybody can make those up."""
    FAILURE_SECONDS = 5.0
    """How long a failed first fetch answers for the requests that come after it, which would otherwise queue up behind their own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: aiohttp.ClientSession | None = None
        self._keys: list[dict[str, Any]] = []
        self._fetched_at = float("-inf")
        self._failed_at = float("-inf")
        self._lock = asyncio.Lock()

    async def key(self, kid: object, algorithm: str) -> jwt.PyJWK:
        """The key with this id (or the only one that fits, for a token without) for RS256 or ES256.

        Raises jwt.InvalidKeyError if the set has none, Unavailable if there is no set to look into.
        """
        if time.monotonic() - self._fetched_at > self.FRESH_SECONDS:
            await self._refresh(self.FRESH_SECONDS)
        found = self._find(kid, algorithm)
        if found is None and time.monotonic() - self._fetched_at > self.UNKNOWN_KEY_SECONDS:
            await self._refresh(self.UNKNOWN_KEY_SECONDS)
            found = self._find(kid, algorithm)
        if found is None:
            raise jwt.InvalidKeyError("no such key")
        # Bound to the algorithm we allow: what the token's header says must not choose it.
        return jwt.PyJWK(found, algorithm)

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    def _find(self, kid: object, algorithm: str) -> dict[str, Any] | None:
        wanted = "RSA" if algorithm.startswith("RS") else "EC"
        fitting = [
            key
            for key in self._keys
            if key.get("kty") == wanted
            and key.get("use", "sig") == "sig"
            and key.get("alg", algorithm) == algorithm
            and kid in (None, key.get("kid"))
        ]
        return fitting[0] if len(fitting) == 1 or (fitting and kid is not None) else None

    async def _refresh(self, older_than: float) -> None:
        async with self._lock:
            if time.monotonic() - self._fetched_at <= older_than:
                return  # somebody else did while we waited
            if time.monotonic() - self._failed_at <= self.FAILURE_SECONDS:
                raise _no_keys()
            try:
                self._keys = await self._fetch()
            except _JWKS_ERRORS as error:
                _log.warning("the key set could not be fetched", url=self.url, error=repr(error), stale=bool(self._keys))
                if not self._keys:
                    self._failed_at = time.monotonic()
                    raise _no_keys() from error
            # Also after a failure with older keys at hand: an identity provider that is down must not be asked at every request.
            self._fetched_at = time.monotonic()

    async def _fetch(self) -> list[dict[str, Any]]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(_JWKS_ERRORS),
            stop=stop_after_attempt(3),
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            reraise=True,
        ):
            with attempt:
                async with self._session.get(self.url, allow_redirects=False) as response:
                    if response.status != 200:
                        raise ValueError(f"HTTP {response.status}")
                    body = bytearray()
                    async for chunk in response.content.iter_chunked(16 * 1024):
                        body += chunk
                        if len(body) > _JWKS_LIMIT:
                            raise ValueError(f"more than {_JWKS_LIMIT} bytes")
                    found = orjson.loads(body)
                    if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
                        raise ValueError("not a JSON Web Key Set")
                    return [key for key in found["keys"] if isinstance(key, dict)]
        raise AssertionError("unreachable: the last attempt raises")


def _api_key(name: str, key: str) -> str:
    if len(key) < _KEY_LENGTH:
        _log.warning("an API key is short: it may be guessed", key=name, advised=_KEY_LENGTH)
    return key


def _no_keys() -> Unavailable:
    return Unavailable("the keys that tokens are checked with cannot be fetched", retry_after=Jwks.FAILURE_SECONDS)


def _digest(text: str) -> bytes:
    # A header's bytes that are no text came as lone surrogates.
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _reason(error: jwt.PyJWTError, config: Auth) -> str:
    """What is wrong with a token, without repeating any of it."""
    match error:
        case jwt.ExpiredSignatureError():
            return "the token has expired"
        case jwt.InvalidAlgorithmError():
            return f"the token's algorithm is not allowed; allowed: {', '.join(config.algorithms)}"
        case jwt.MissingRequiredClaimError(claim=claim):
            return f"the token has no `{claim}`"
        case jwt.ImmatureSignatureError():
            return "the token is not valid yet"
        case jwt.InvalidAudienceError():
            return "the token is for another audience"
        case jwt.InvalidIssuerError():
            return "the token is from another issuer"
        case jwt.InvalidSignatureError():
            return "the token's signature is wrong"
        case jwt.InvalidKeyError() | jwt.PyJWKError():
            return "the token names a key that is not in the key set"
    return "the token is not a valid JWT"
