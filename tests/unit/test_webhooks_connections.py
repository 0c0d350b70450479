"""The sender's connections: kept, reused, given up. On asyncio's loop and on uvloop, where the service runs."""

import asyncio
import gc
import os
import socket
import weakref

import pytest

from tests.support.raw_receiver import OK, Server, ok
from tests.support.sent import GUARD, KEY, Run, both_loops, send
from webhooks import connection, pool
from webhooks.answer import Answer
from webhooks.dialer import Dialer
from webhooks.phases import Phases
from webhooks.pool import MAX_IDLE_PER_PLACE
from webhooks.resolver import AddrInfo
from webhooks.sender import Request, Sender
from webhooks.target import Target


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
        assert told["firstByte"] > 0  # type: ignore[operator]
        assert told["total"] >= told["dns"] + told["connect"] + told["firstByte"]  # type: ignore[operator]
        again = second.phases.document()
        assert (again["dns"], again["connect"], again["tls"]) == (None, None, None)
        assert isinstance(again["firstByte"], float)
        assert again["firstByte"] > 0

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
def test_a_kept_connection_that_ends_within_an_answer_is_not_tried_again(run: Run) -> None:
    """The request has arrived, for all that is known."""
    answered = 0

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        answered += 1
        writer.write(OK if answered == 1 else OK[:12])
        if answered == 2:
            await writer.drain()
            raise ConnectionResetError

    async def scenario() -> None:
        async with Server(half) as server, Sender(GUARD) as sender:
            await send(sender, server.url())
            outcome = await send(sender, server.url())
        assert (outcome.error, outcome.reused) == ("the receiver closed the connection without an answer", True)
        assert len(server.requests) == 2

    run(scenario())


@both_loops
def test_the_connection_used_last_is_used_next_and_only_for_the_same_place(run: Run) -> None:
    async def scenario() -> None:
        together = asyncio.Barrier(2)

        async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(server.requests) < 3:
                await together.wait()
            writer.write(OK)

        async with Server(both) as server, Sender(GUARD) as sender:
            await asyncio.gather(*(send(sender, server.url()) for _ in range(2)))
            idle = list(sender._pool._order)
            assert (await send(sender, server.url())).reused
            assert list(sender._pool._order) == idle, "the other one may end for being unused"

    run(scenario())
    plain, tls = (Target.of(GUARD.parse_url(f"{scheme}://127.0.0.1:443/")) for scheme in ("http", "https"))
    assert plain.place != tls.place


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
            # Long before it would be closed because nobody uses it.
            async with asyncio.timeout(pool.IDLE_SECONDS / 2):
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
            before = len(os.listdir("/dev/fd"))
            attempt = asyncio.create_task(send(sender, server.url()))
            await received.wait()
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
            await server.closed.wait()
            server.closed.clear()
            late = await send(sender, server.url(), timeout=0.3)
            await server.closed.wait()
            assert late.error == "no answer within 0.3 s"
            assert late.phases
            assert late.phases.first_byte is None
            assert len(sender._pool) == 0
            assert len(os.listdir("/dev/fd")) <= before

    run(scenario())


@both_loops
@pytest.mark.parametrize(("first", "second"), [(1.0, 1.5), (5.0, 0.3)])
def test_each_request_of_a_connection_has_a_time_of_its_own(run: Run, first: float, second: float) -> None:
    """Neither the shorter one of the request before it ends it, nor does the longer one let it go on."""
    answered = False

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        if answered:
            await reader.read()
        answered = True
        writer.write(OK)

    async def scenario() -> None:
        async with Server(once) as server, Sender(GUARD) as sender:
            assert (await send(sender, server.url(), timeout=first)).status == 200
            late = await send(sender, server.url(), timeout=second)
        assert (late.error, late.reused) == (f"no answer within {second:g} s", True)
        assert second * 1000 - 2 <= late.duration < 4500

    run(scenario())


@both_loops
def test_a_connection_that_has_ended_is_not_kept_until_its_request_would_have(run: Run) -> None:
    async def scenario() -> None:
        async with Server(ok) as server, Sender(GUARD) as sender:
            await send(sender, server.url())
            (one,) = sender._pool._order
            ended = weakref.ref(one)
            del one
            sender._pool.close()
            await server.closed.wait()
        gc.collect()
        assert ended() is None

    run(scenario())


@both_loops
def test_an_attempt_that_is_cancelled_as_its_answer_ends_leaves_no_connection(run: Run) -> None:
    async def scenario() -> None:
        received = asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.set()
            await reader.read()

        async with Server(hang) as server:
            loop = asyncio.get_running_loop()
            _, dialled = await loop.create_connection(connection.Connection, "127.0.0.1", server.port)
            attempt = asyncio.create_task(dialled.exchange(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n", Answer(), Phases(), loop.time() + 5))
            await received.wait()
            dialled.data_received(OK)
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
            await server.closed.wait()

    run(scenario())


def narrow() -> socket.socket:
    """To listen at: keeps little of what nobody reads, however far this machine lets its buffers grow."""
    made = socket.create_server(("127.0.0.1", 0))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    return made


@both_loops
def test_what_a_receiver_does_not_read_is_not_kept(run: Run) -> None:
    async def scenario() -> None:
        async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            accepted.append(writer)

        accepted: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(never, sock=narrow())
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with Sender(GUARD) as sender:
            before = len(os.listdir("/dev/fd"))
            # More than the buffers of both sockets hold.
            much = Request(url=url, event="evt_1", body=bytes(32 << 20), keys=[KEY], headers={}, timeout=0.2, trace="t")
            assert (await sender.send(much, 0)).error == "no answer within 0.2 s"
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(os.listdir("/dev/fd")) <= before + 1, "only the receiver's end is left"
        server.close()
        for writer in accepted:
            writer.transport.abort()
        await asyncio.sleep(0)

    run(scenario())


@both_loops
def test_a_connection_that_a_request_still_waits_in_serves_no_other(run: Run) -> None:
    """A receiver that answers and reads nothing would have us keep what every delivery to it sends."""

    async def scenario() -> None:
        async def unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(OK)
            accepted.append(writer)

        accepted: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(unread, sock=narrow())
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with Sender(GUARD) as sender:
            much = Request(url=url, event="evt_1", body=bytes(32 << 20), keys=[KEY], headers={}, timeout=5, trace="t")
            outcome, kept = await sender.send(much, 0), len(sender._pool)
        server.close()
        for writer in accepted:
            writer.transport.abort()
        await asyncio.sleep(0)
        assert (outcome.status, outcome.error, kept) == (200, None, 0)

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


class Rebinding:
    """Resolves to the receiver once, and then to what must not be dialled."""

    def __init__(self) -> None:
        self._answers = ["127.0.0.1"]

    async def resolve(self, host: str, port: int) -> list[AddrInfo]:
        address = self._answers.pop() if self._answers else "169.254.169.254"
        return socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]

    def close(self) -> None: ...


@both_loops
def test_a_name_that_is_bound_anew_reaches_nobody_else(run: Run) -> None:
    async def scenario() -> None:
        async def last(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(OK.replace(b"OK", b"OK\r\nconnection: close"))

        async with Server(last) as server, Sender(GUARD, dialer=Dialer(GUARD, resolver=Rebinding())) as sender:
            first, second = [await send(sender, server.url("rebinding.test")) for _ in range(2)]
        assert (first.status, first.address, server.accepted) == (200, "127.0.0.1", 1)
        assert (second.status, second.address) == (None, None)
        assert second.error == "169.254.169.254 is refused (link-local, cloud metadata)"

    run(scenario())
