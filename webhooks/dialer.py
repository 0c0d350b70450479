"""Opens connections to receivers: resolves, judges, connects, shakes hands, all of it within five seconds."""

import asyncio
import functools
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from aiohappyeyeballs import start_connection

from webhooks.answer import ExchangeFailed
from webhooks.connection import Connection
from webhooks.errors import RefusedAddress
from webhooks.guard import Dial, Guard
from webhooks.phases import Phases, clock
from webhooks.resolver import AddrInfo, Resolver
from webhooks.target import Target

CONNECT_SECONDS = 5.0
NEXT_ADDRESS_SECONDS = 0.25
"""After which the next address of a name is tried beside the one that does not answer (RFC 8305)."""


class Resolve(Protocol):
    async def resolve(self, host: str, port: int) -> list[AddrInfo]:
        """All addresses of a host, at least one. Raises OSError or UnicodeError for one that has none."""

    def close(self) -> None: ...


class Dialer:
    def __init__(self, guard: Guard, *, resolver: Resolve | None = None, tls: ssl.SSLContext | None = None) -> None:
        """`tls` replaces the context that trusts what the system trusts (or what SSL_CERT_FILE names)."""
        self._guard = guard
        self._resolver = resolver or Resolver()
        self._tls = tls or ssl.create_default_context()
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.set_alpn_protocols(["http/1.1"])

    def close(self) -> None:
        self._resolver.close()

    async def dial(self, target: Target, phases: Phases, dial: Dial) -> Connection:
        """A new connection; `dial` tells how far it came also where there is none. Raises RefusedAddress or ExchangeFailed."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                with _timed(phases, "dns"):
                    found = await self._resolve(target)
                # All of them: a name with one bad address could be dialled at it the next time.
                self._guard.require([info[4][0] for info in found])
                with _timed(phases, "connect"):
                    sock = await self._connect(target, found, dial)
                if not target.tls:
                    return await self._attach(sock, None, None)
                with _timed(phases, "tls"):
                    return await self._shake_hands(sock, target)
        except TimeoutError:
            raise ExchangeFailed(f"no connection within {CONNECT_SECONDS:g} s") from None

    async def _resolve(self, target: Target) -> list[AddrInfo]:
        try:
            return await self._resolver.resolve(target.host, target.port)
        except (OSError, UnicodeError):
            raise ExchangeFailed(f"{target.host} does not resolve") from None

    async def _connect(self, target: Target, found: list[AddrInfo], dial: Dial) -> socket.socket:
        factory = functools.partial(self._guard.make_socket, dial)
        try:
            return await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, socket_factory=factory)
        except (OSError, RuntimeError) as error:
            if dial.refused:
                raise RefusedAddress(dial.refused) from None
            reason = error.strerror if isinstance(error, OSError) else None
            raise ExchangeFailed(f"cannot connect to {target.host}:{target.port}: {reason or error}") from None

    async def _shake_hands(self, sock: socket.socket, target: Target) -> Connection:
        try:
            return await self._attach(sock, self._tls, target.host.rstrip("."))
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", None) or error.reason or type(error).__name__
        except (OSError, ValueError, EOFError) as error:
            # ValueError: of a name that no certificate can have.
            reason = getattr(error, "strerror", None) or "the receiver closed the connection"
        raise ExchangeFailed(f"TLS failed with {target.host}: {reason}")

    async def _attach(self, sock: socket.socket, tls: ssl.SSLContext | None, name: str | None) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, sock=sock, ssl=tls, server_hostname=name)
        return connection


@contextmanager
def _timed(phases: Phases, phase: Literal["dns", "connect", "tls"]) -> Iterator[None]:
    begun = clock()
    try:
        yield
    finally:
        setattr(phases, phase, clock() - begun)
