"""Receivers on the loopback: one that answers by script, and those that no HTTP library would be."""

import asyncio
import contextlib
import datetime as dt
import ssl
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Wire = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    at: float
    """`time.time()` of its arrival."""
    method: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Receiver:
    """Answers with what is scripted, in order, then with `default`; `hold` makes it wait before each answer."""

    def __init__(self) -> None:
        self.default = Answer()
        self.requests: list[Request] = []
        self.under_way = 0
        self.free = asyncio.Event()
        """Cleared, it holds every answer back."""
        self.free.set()
        self.url = ""
        self._scripted: deque[Answer] = deque()
        self._by_body: Callable[[Request], Answer | None] = lambda request: None
        self._more = asyncio.Event()

    def then(self, *answers: Answer) -> None:
        self._scripted.extend(answers)

    def answering(self, by: Callable[[Request], Answer | None]) -> None:
        """What to answer a request with; None: what else is scripted."""
        self._by_body = by

    async def more(self) -> None:
        """Wait for the next request."""
        self._more.clear()
        await self._more.wait()

    async def until(self, enough: Callable[[list[Request]], bool], seconds: float) -> list[Request]:
        """The requests, once there are enough; fails after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not enough(self.requests):
                    await self.more()
        except TimeoutError:
            raise AssertionError(f"{len(self.requests)} requests came within {seconds:g} s, and more were due") from None
        return self.requests

    async def count(self, count: int, seconds: float = 20.0) -> list[Request]:
        return await self.until(lambda requests: len(requests) >= count, seconds)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        got = Request(at=time.time(), method=request.method, headers={name.lower(): value for name, value in request.headers.items()}, body=body)
        self.requests.append(got)
        self._more.set()
        self.under_way += 1
        try:
            answer = self._by_body(got) or (self._scripted.popleft() if self._scripted else self.default)
            await self.free.wait()
            return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)
        finally:
            self.under_way -= 1


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    try:
        yield receiver
    finally:
        receiver.free.set()
        await runner.cleanup()


@dataclass
class Bad:
    """A server below HTTP."""

    url: str = ""
    connections: int = 0
    bytes_read: int = 0


@contextlib.asynccontextmanager
async def misbehaving(wire: Wire, *, tls: ssl.SSLContext | None = None, scheme: str = "http", request_first: bool = True) -> AsyncIterator[Bad]:
    """`request_first`: the request's head is read before `wire` takes over."""
    bad = Bad()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        bad.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if request_first:
                bad.bytes_read += len(await reader.readuntil(b"\r\n\r\n"))
            await wire(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    bad.url = f"{'https' if tls else scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
    try:
        yield bad
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def certificate(name: str, *, days: int) -> ssl.SSLContext:
    """A server's context with a certificate that nobody vouches for; `days` until it ends, negative: it has."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=400))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "chain.pem"
        chain.write_bytes(
            made.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
    return context
