"""One request to a receiver, bounded in every direction: seconds, bytes, headers, redirects, addresses."""

import asyncio
import hashlib
import os
import ssl
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from webhooks.errors import RefusedAddress
from webhooks.guard import DIAL, Dial, Guard
from webhooks.signing import Key, signature_header

CONNECT_SECONDS = 5.0
MAX_ANSWER = 64 * 1024
KEPT = 4 * 1024
"""Bytes of an answer that are recorded."""
MAX_HEADER_LINE = 8190
MAX_HEADERS = 100
USER_AGENT = "Hookline-Webhooks/1"
_DECODERS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is sent where."""

    # Neither a key nor a header, nor a query that may be a password, goes into a repr.
    url: str = field(repr=False)
    event: str
    """Its id, and so the message's: the same on every attempt."""
    body: bytes
    keys: Sequence[Key] = field(repr=False)
    """What signs; several while a secret rotates, or with ed25519 beside HMAC."""
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    """Seconds for all of it."""
    trace: str
    """What belongs to one trace: the run's id, else the event's."""
    keep: int = KEPT
    """Bytes of the answer that the outcome holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of it."""

    duration: int
    """ms"""
    status: int | None = None
    error: str | None = None
    """None for a success."""
    retry_after: str | None = None
    response: str | None = None
    address: str | None = None

    @property
    def verdict_status(self) -> int | None:
        """The status to decide by: a 2xx that did not end in time is no success."""
        return None if self.error and self.status is not None and self.status < 300 else self.status


class Sender:
    """One aiohttp session for all endpoints; an async context manager."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Sender":
        self._session = aiohttp.ClientSession(
            # Mailboxes bound what is under way; a limit here would let one endpoint's requests queue before another's.
            connector=self._guard.connector(limit=0, limit_per_host=0, ttl_dns_cache=10, keepalive_timeout=15.0),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            # aiohttp would decompress without a bound.
            auto_decompress=False,
            max_line_size=MAX_HEADER_LINE,
            max_field_size=MAX_HEADER_LINE,
            max_headers=MAX_HEADERS,
            response_class=_Response,
            trust_env=False,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session:
            await self._session.close()

    async def send(self, request: Request, now: int) -> Outcome:
        """Attempt a delivery at `now` (ms); whatever a receiver or the network does is an outcome, never an exception."""
        assert self._session, "use the sender as a context manager"
        started = time.perf_counter()
        dial = Dial()
        token = DIAL.set(dial)
        answer = _Answer()
        try:
            error = await self._exchange(self._session, request, now, answer)
        finally:
            DIAL.reset(token)
        return Outcome(
            duration=round((time.perf_counter() - started) * 1000),
            status=answer.status,
            # What a receiver wrote may have bytes that are no text, and would spoil the record.
            error=(dial.refused or error).encode("utf-8", "replace").decode() if error else None,
            retry_after=answer.retry_after,
            response=answer.text(request.keep),
            address=dial.address,
        )

    async def _exchange(self, session: aiohttp.ClientSession, request: Request, now: int, answer: "_Answer") -> str | None:
        """Fill the answer; returns why the attempt failed, or None."""
        try:
            url = self._guard.parse_url(request.url)
            async with asyncio.timeout(request.timeout):
                async with session.post(url, data=request.body, headers=_headers(request, now), allow_redirects=False) as response:
                    await answer.read(response)
        except TimeoutError as error:
            return _timed_out(error, request, answer)
        except RefusedAddress as error:
            return error.message
        except (aiohttp.ClientError, OSError, ValueError, UnicodeError, ssl.SSLError, EOFError) as error:
            return _describe(error, url)
        assert answer.status is not None
        if 200 <= answer.status <= 299:
            return None
        if 300 <= answer.status <= 399:
            return f"answered {answer.status}: redirects are not followed; give the endpoint its final URL"
        return f"answered {answer.status}"


class _Response(aiohttp.ClientResponse):
    """Notes whom it talks to before the answer is awaited: later the connection may have gone back to the pool."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        dial = DIAL.get()
        if dial and connection.transport:
            peer = connection.transport.get_extra_info("peername")
            dial.address = str(peer[0]) if peer else None
        return await super().start(connection)


class _Answer:
    """The answer as far as it was read."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.retry_after: str | None = None
        self._received = 0
        self._body = bytearray()

    async def read(self, response: aiohttp.ClientResponse) -> None:
        """Status and the first 64 KiB; what lies beyond is cut off, together with the connection."""
        self.status = response.status
        self.retry_after = response.headers.get("Retry-After")
        window = _DECODERS.get(response.headers.get("Content-Encoding", "").strip().lower())
        decoder = zlib.decompressobj(window) if window else None
        async for chunk in response.content.iter_any():
            self._received += len(chunk)
            if decoder:
                try:
                    chunk = decoder.decompress(chunk, MAX_ANSWER - len(self._body))
                except zlib.error:
                    # It is not what its header says: kept as it came.
                    decoder = None
            self._body += chunk
            if self._received > MAX_ANSWER or len(self._body) >= MAX_ANSWER:
                response.close()
                return

    def text(self, size: int) -> str | None:
        """The first `size` bytes, as text."""
        if self.status is None:
            return None
        return self._body[:size].decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _headers(request: Request, now: int) -> dict[str, str]:
    timestamp = now // 1000
    return {
        **request.headers,
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        # Nothing to decompress is the best defence; who compresses all the same is bounded above.
        "accept-encoding": "identity",
        "webhook-id": request.event,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature_header(request.keys, request.event, timestamp, request.body),
        "traceparent": traceparent(request.trace, os.urandom(8)),
    }


def traceparent(trace: str, span: bytes) -> str:
    """W3C trace context: the same trace for all deliveries of a run, an own span for each attempt."""
    return f"00-{hashlib.blake2b(trace.encode(), digest_size=16).hexdigest()}-{span.hex()}-01"


def _timed_out(error: TimeoutError, request: Request, answer: _Answer) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if answer.status is not None:
        return f"answered {answer.status}, but the answer did not end within {request.timeout:g} s"
    return f"no answer within {request.timeout:g} s"


def _describe(error: Exception, url: URL) -> str:
    """What failed, in words without the URL, whose path or query may be a secret."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return f"TLS failed with {url.host}: {_reason(error)}"
        case aiohttp.ClientConnectorDNSError():
            return f"{url.host} does not resolve"
        case aiohttp.ClientConnectorError():
            return f"cannot connect to {url.host}:{url.port}: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError():
            return "the receiver closed the connection without an answer"
        case aiohttp.ClientResponseError():
            return f"the answer is not HTTP, or its headers exceed the limits: {str(error.message)[:200]}"
        case aiohttp.ClientPayloadError():
            return "the answer's body broke off"
        case aiohttp.InvalidURL():
            return "this URL cannot be dialled"
    return f"the connection failed: {type(error).__name__}"


def _reason(error: Exception) -> str:
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    return str(getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or type(cause).__name__)
