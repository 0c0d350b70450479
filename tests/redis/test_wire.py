"""One connection to the store: what is taken over from redis-py, what it does with bytes that are no replies, and when it holds back."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import psutil
import pytest
from redis.asyncio import Connection
from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError

from pipeline.store import line, wire
from pipeline.store.connection import connect
from pipeline.store.wire import Later, NotSent, ReplyLost, Wire
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey


async def test_what_is_private_of_redis_py_is_as_wire_py_takes_it(valkey: Valkey) -> None:
    connection = Connection(port=valkey.port, protocol=2, socket_timeout=None)
    await connection.connect()
    writer = connection._writer
    assert isinstance(writer, asyncio.StreamWriter)
    assert isinstance(connection._reader, asyncio.StreamReader)
    # Without them it is a connection that was never made: it closes nothing and warns of nothing when it is collected.
    connection._reader = connection._writer = None
    assert not connection.is_connected
    await connection.disconnect()
    del connection
    gc.collect()
    assert not writer.transport.is_closing()
    writer.close()
    await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]) -> AsyncIterator[str]:
    """The URL of a server that completes redis-py's handshake and then does as `answer`, which is told the connection's number."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        await reader.readuntil(b"LIB-VER")
        with contextlib.suppress(OSError):
            await answer(reader, writer, len(tasks))
            await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await asyncio.gather(*tasks)
    await server.wait_closed()


@pytest.mark.parametrize("spoken", [b"", b"+unasked\r\n"])
async def test_a_connection_that_was_closed_or_speaks_unasked_is_not_taken_over(spoken: bytes) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"+OK\r\n+OK\r\n" + spoken)  # to CLIENT SETINFO, twice
        if not spoken:
            writer.close()

    async with serving(answer) as url:
        redis = connect(url, retries=0)
        with pytest.raises((NotSent, ReplyLost)):
            await redis.incr("n")
        await redis.aclose()


@pytest.mark.parametrize("nonsense", [b"!what\r\n", b"$x\r\n", b"+one\r\n+too many\r\n"])
async def test_bytes_that_are_no_replies_end_the_connection(nonsense: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"+OK\r\n+OK\r\n")
        await reader.readuntil(b"GET")
        writer.write(nonsense if number == 1 else b"+fine\r\n")

    async with serving(answer) as url:
        redis = connect(url, retries=0)
        first = asyncio.ensure_future(redis.get("k"))
        if nonsense.startswith(b"+one"):
            assert await first == "one"
            assert not redis._line._wires
        else:
            with pytest.raises(ReplyLost):
                await first
        assert await redis.get("k") == "fine"
        await redis.aclose()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("LOADING Valkey is loading the dataset in memory", Later),
        ("MISCONF Errors writing to the AOF file: No space left on device", Later),
        ("BUSY Redis is busy running a script", Later),
        ("BUSYGROUP Consumer Group name already exists", ResponseError),
        ("READONLY You can't write against a read only replica.", ReadOnlyError),
        # Redis 6.2
        ("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write against a replica.", ReadOnlyError),
        ("ERR syntax error", ResponseError),
    ],
)
def test_error_replies_have_their_kinds(message: str, kind: type[Exception]) -> None:
    assert type(wire.error_of(message)) is kind


async def test_a_vanished_machine_is_noticed(valkey: Valkey) -> None:
    redis = connect(valkey.url)
    await redis.ping()
    (open_wire,) = redis._line._wires
    sock = open_wire._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
    await redis.aclose()


# --- a slow store --------------------------------------------------------------------------------------------------------


async def test_callers_wait_while_the_store_does_not_read(valkey: Valkey) -> None:
    async with Proxy(valkey.port) as proxy:
        redis = connect(proxy.url)
        await redis.ping()
        proxy.requests.clear()
        value, process = b"x" * 16_384, psutil.Process()
        before = process.memory_info().rss
        calls = [asyncio.ensure_future(redis.set(f"k{n}", value)) for n in range(20_000)]  # 320 MB, if all were packed
        for _ in range(50):
            await asyncio.sleep(0.01)
        grown = process.memory_info().rss - before
        assert grown < 100 << 20, f"{grown >> 20} MiB more"
        assert redis._line._bytes < line.MOST_BYTES + (1 << 20)
        assert len(redis._line._queue) > 10_000
        # Some of those that wait are given up, among them all that would be let in next.
        for call in (*calls[500:3000], *calls[19_000:]):
            call.cancel()
        proxy.requests.set()
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
        assert {True} == {outcome for outcome in outcomes if not isinstance(outcome, asyncio.CancelledError)}
        assert sum(outcome is True for outcome in outcomes) >= 16_500
        assert not redis._line.full
        assert process.memory_info().rss - before < 150 << 20
        await redis.flushall()
        await redis.aclose()


async def test_callers_wait_while_the_store_does_not_answer(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "MOST_COMMANDS", 100)
    async with Proxy(valkey.port) as proxy:
        redis = connect(proxy.url)
        await redis.ping()
        proxy.replies.clear()
        calls = [asyncio.ensure_future(redis.echo(str(n))) for n in range(1000)]
        for _ in range(20):
            await asyncio.sleep(0.005)
        (open_wire,) = redis._line._wires
        assert len(open_wire.waiting) <= 202
        assert len(redis._line._slots) <= 101
        proxy.replies.set()
        assert await asyncio.wait_for(asyncio.gather(*calls), 30) == [str(n) for n in range(1000)]
        await redis.aclose()


async def test_who_waits_for_room_is_told_when_the_store_is_away(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "MOST_COMMANDS", 100)
    redis = connect("redis://127.0.0.1:1", retries=1)
    outcomes = await asyncio.wait_for(asyncio.gather(*(redis.incr("n") for _ in range(1000)), return_exceptions=True), 30)
    assert {type(outcome) for outcome in outcomes} == {NotSent}
    await redis.aclose()


async def test_a_turn_that_nobody_takes_any_more_goes_to_the_next(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "MOST_COMMANDS", 1)
    redis = connect(valkey.url)
    await redis.ping()
    calls = [asyncio.ensure_future(redis.echo(str(n))) for n in range(20)]
    admit = redis._line.admit

    def admit_and_cancel() -> None:
        waiting = [turn for turn, _ in redis._line._queue]
        admit()
        for call, turn in zip(calls[20 - len(waiting) :], waiting, strict=True):
            if turn.done():
                call.cancel()  # it has been let in, and does not know yet

    redis._line.admit = admit_and_cancel
    await asyncio.sleep(0)
    redis._line.admit = admit_and_cancel
    outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
    assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert all(outcome == str(n) or isinstance(outcome, asyncio.CancelledError) for n, outcome in enumerate(outcomes))
    await redis.aclose()


async def test_a_wire_that_is_replaced_closes_after_its_last_reply(valkey: Valkey) -> None:
    redis = connect(valkey.url)
    await redis.ping()
    (old,) = redis._line._wires
    last = redis.send(wire.pack(("ECHO", "last")))
    await asyncio.sleep(0)
    redis._line.wire_read_only(old)
    assert await redis.echo("new") == "new"
    assert await last == "last"
    await asyncio.wait_for(old.lost.wait(), 5)
    assert isinstance(old, Wire)
    assert len(redis._line._wires) == 1
    await redis.aclose()


def test_losses_are_lost_connections_to_whoever_knows_only_redis_py() -> None:
    assert issubclass(NotSent, ConnectionError)
    assert issubclass(ReplyLost, ConnectionError)
