"""The sender's connections: kept, reused, given up; over TLS only to who proves its name. On asyncio's loop and on uvloop, where the service runs."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support.tls import Authority
from webhooks import connection, pool
from webhooks.dialer import Dialer
from webhooks.guard import Guard
from webhooks.pool import MAX_IDLE_PER_PLACE
from webhooks.sender import Outcome, Request, Sender
from webhooks.signing import generate_secret, key_of

GUARD = Guard(["127.0.0.0/8", "::1/128"])
KEY = key_of(generate_secret())
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, None]], None]
both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Server:
    """Below HTTP: reads whole requests and answers by script; knows its connections."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self.accepted = 0
        self.closed = asyncio.Event()
        """Set whenever a connection has ended."""
        self.requests: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}/hook?token=s3cret"

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.accepted += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                await self._script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.closed.set()


async def ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


async def send(sender: Sender, url: str, *, timeout: float = 5.0) -> Outcome:
    return await sender.send(Request(url=url, event="evt_1", body=b"{}", keys=[KEY], headers={}, timeout=timeout, trace="t"), 0)


@both_loops
def test_one_connection_serves_many_and_the_phases_say_so(run: Run) -> None:
    async def scenario() -> None:
        async with Server(ok) as server, Sender(GUARD) as sender:
            first, second = [await send(sender, server.url()) for _ in range(2)]
        assert server.accepted == 1
        assert first.phases
        assert second.phases
        assert (first.reused, second.reused) == (False, True)
        assert (first.address, second.address) == ("127.0.0.1", "127.0.0.1")
        told = first.phases.document()
        assert told["tls"] is None
        assert all(isinstance(told[phase], float) for phase in ("dns", "connect", "firstByte", "total"))
        assert told["total"] >= told["dns"] + told["connect"] + told["firstByte"]  # type: ignore[operator]
        again = second.phases.document()
        assert (again["dns"], again["connect"], again["tls"]) == (None, None, None)
        assert isinstance(again["firstByte"], float)

    run(scenario())


@both_loops
def test_a_connection_that_its_receiver_ended_is_replaced_within_the_attempt(run: Run) -> None:
    answered = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        answered += 1
        if answered == 2:
            # As a receiver whose patience with an idle connection ran out just as we sent.
            raise ConnectionResetError
        writer.write(OK)

    async def scenario() -> None:
        async with Server(once) as server, Sender(GUARD) as sender:
            outcomes = [await send(sender, server.url()) for _ in range(3)]
        assert [(outcome.status, outcome.error, outcome.reused) for outcome in outcomes] == [
            (200, None, False),
            (200, None, False),
            (200, None, True),
        ]
        assert server.accepted == 2
        assert len(server.requests) == 4

    run(scenario())


@both_loops
def test_a_new_connection_that_ends_unanswered_is_not_tried_again(run: Run) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise ConnectionResetError

    async def scenario() -> None:
        async with Server(never) as server, Sender(GUARD) as sender:
            outcome = await send(sender, server.url())
        assert (outcome.error, len(server.requests)) == ("the receiver closed the connection without an answer", 1)

    run(scenario())


@both_loops
def test_what_nobody_asked_for_is_no_answer_to_the_next(run: Run) -> None:
    async def scenario() -> None:
        let_go = asyncio.Event()

        async def speaks_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(OK)
            await let_go.wait()
            writer.write(b"HTTP/1.1 500 Forged\r\ncontent-length: 0\r\n\r\n")
            await reader.read()

        async with Server(speaks_later) as server, Sender(GUARD) as sender:
            first = await send(sender, server.url())
            assert len(sender._pool) == 1
            let_go.set()
            await server.closed.wait()
            assert len(sender._pool) == 0
            second = await send(sender, server.url())
        assert (first.status, second.status, second.reused) == (200, 200, False)

    run(scenario())


@both_loops
def test_an_attempt_that_is_cancelled_or_late_leaves_no_connection(run: Run) -> None:
    async def scenario() -> None:
        received = asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.set()
            await reader.read()

        async with Server(hang) as server, Sender(GUARD) as sender:
            before = len(os.listdir("/proc/self/fd"))
            attempt = asyncio.create_task(send(sender, server.url()))
            await received.wait()
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
            await server.closed.wait()
            server.closed.clear()
            late = await send(sender, server.url(), timeout=0.05)
            await server.closed.wait()
            assert late.error == "no answer within 0.05 s"
            assert late.phases
            assert late.phases.first_byte is None
            assert len(sender._pool) == 0
            assert len(os.listdir("/proc/self/fd")) <= before

    if Path("/proc/self/fd").exists():
        run(scenario())


@both_loops
def test_no_more_idle_connections_than_the_caps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        together = asyncio.Barrier(4)

        async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await together.wait()
            writer.write(OK)

        async with Server(at_once) as one, Server(at_once) as other, Sender(GUARD) as sender:
            await asyncio.gather(*(send(sender, one.url()) for _ in range(4)))
            assert (one.accepted, len(sender._pool)) == (4, 3)
            await asyncio.gather(*(send(sender, other.url()) for _ in range(4)))
            assert (other.accepted, len(sender._pool)) == (4, 5)

    assert MAX_IDLE_PER_PLACE < pool.MAX_IDLE
    monkeypatch.setattr(pool, "MAX_IDLE_PER_PLACE", 3)
    monkeypatch.setattr(pool, "MAX_IDLE", 5)
    run(scenario())


@both_loops
def test_connections_are_given_up_when_long_unused_or_old(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0

    async def scenario() -> None:
        nonlocal now
        async with Server(ok) as server, Sender(GUARD) as sender:
            await send(sender, server.url())
            sender._pool._end_old()
            assert len(sender._pool) == 1
            now += pool.IDLE_SECONDS
            sender._pool._end_old()
            assert len(sender._pool) == 0
            await server.closed.wait()
            await send(sender, server.url())
            for _ in range(int(pool.LIFETIME_SECONDS / 10)):
                now += 10
                assert (await send(sender, server.url())).reused
            now += 1
            assert (await send(sender, server.url())).reused, "it is asked once more, and then not kept"
            assert not (await send(sender, server.url())).reused

    monkeypatch.setattr(pool, "clock", lambda: now)
    monkeypatch.setattr(connection, "clock", lambda: now)
    run(scenario())


@both_loops
def test_tls(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path)
        async with Server(ok, authority.server()) as server, Sender(GUARD, dialer=Dialer(GUARD, tls=authority.client())) as sender:
            first, second = [await send(sender, server.url()) for _ in range(2)]
        assert (first.status, first.error, second.status) == (200, None, 200)
        assert first.phases
        assert isinstance(first.phases.tls, float)
        assert (first.reused, second.reused, server.accepted) == (False, True, 1)

    run(scenario())


@both_loops
@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ({"expired": True}, "certificate has expired"),
        ({"name": "other.test"}, "IP address mismatch, certificate is not valid for '127.0.0.1'."),
        ({"own": True}, "self-signed certificate"),
    ],
)
def test_a_certificate_that_proves_nothing(run: Run, tmp_path: Path, certificate: dict[str, Any], reason: str) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path)
        async with Server(ok, authority.server(**certificate)) as server, Sender(GUARD, dialer=Dialer(GUARD, tls=authority.client())) as sender:
            outcome = await send(sender, server.url())
        assert outcome.status is None
        assert outcome.error == f"TLS failed with 127.0.0.1: {reason}"
        assert server.requests == []

    run(scenario())


@both_loops
def test_an_authority_that_nobody_named_is_not_trusted_and_one_of_the_environment_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)

    async def scenario() -> None:
        async with Server(ok, authority.server()) as server:
            async with Sender(GUARD) as sender:
                assert "unable to get local issuer certificate" in str((await send(sender, server.url())).error)
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
            async with Sender(GUARD) as sender:
                assert (await send(sender, server.url())).error is None

    run(scenario())


@both_loops
def test_a_name_is_told_to_the_receiver_and_checked(run: Run, tmp_path: Path) -> None:
    """By SNI, without which many receivers cannot choose their certificate."""
    told: list[str | None] = []

    async def scenario() -> None:
        authority = Authority(tmp_path)
        tls = authority.server(name="localhost")
        tls.sni_callback = lambda _, name, context: told.append(name)
        async with Server(ok, tls) as server, Sender(GUARD, dialer=Dialer(GUARD, tls=authority.client())) as sender:
            outcome = await send(sender, server.url("localhost"))
            assert (outcome.error, told) == (None, ["localhost"])
            assert b"\r\nhost: localhost:%d\r\n" % server.port in server.requests[0]

    run(scenario())


@both_loops
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_tls_is_refused(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path)
        client, tls = authority.client(), authority.server()
        dialer = Dialer(GUARD, tls=client)
        assert client.minimum_version is ssl.TLSVersion.TLSv1_2
        tls.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        tls.maximum_version = ssl.TLSVersion.TLSv1_1
        tls.set_ciphers("ALL:@SECLEVEL=0")
        async with Server(ok, tls) as server, Sender(GUARD, dialer=dialer) as sender:
            assert str((await send(sender, server.url())).error).startswith("TLS failed with 127.0.0.1")

    run(scenario())
