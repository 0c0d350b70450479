"""Receivers that misbehave: each costs its own slot, for no longer than an attempt may take, and hardly any memory."""

import asyncio
import gzip
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from tests.faults.receivers import Bad, Wire, certificate, misbehaving, receiving
from tests.faults.scenario import Bench, Memory, scenario

GROUP = "a bad receiver"
GROWTH = 10.0
"""MiB."""
BOMB = gzip.compress(bytes(256 << 20), 9)
Open = Callable[[], AbstractAsyncContextManager[Bad]]


async def bounded(bench: Bench, opened: Open, *, delivered: bool) -> str:
    """Two events for an endpoint with one slot: both had an attempt in time, so the first one's slot was free again."""
    # What is cut off ends by itself; a busy machine may take its time for that.
    patience = max(bench.patience, 5.0) if delivered else bench.patience
    async with opened() as bad, receiving() as healthy:
        endpoint = await bench.server.create_endpoint(bad.url, [bench.type], timeout=patience, concurrency=1, schedule=(0, 3600))
        await bench.server.create_endpoint(healthy.url, [bench.type], schedule=(0, 3600))
        async with Memory(bench.server) as memory:
            began = time.monotonic()
            events = await bench.server.publish([(bench.type, {"n": n}) for n in (1, 2)])
            await healthy.count(2, 5.0)
            found = await bench.settled(endpoint.id, events, seconds=2 * (patience + 1) + 2)
            took = (time.monotonic() - began) / 2
    assert memory.growth < GROWTH, f"memory grew by {memory.growth:.1f} MiB"
    assert {one.status == "delivered" for one in found.values()} == {delivered}, f"recorded as {found}"
    assert bad.connections >= 2
    return f"{took:.1f} s an attempt, {max(memory.growth, 0):.1f} MiB"


def bad(promise: str, *, delivered: bool, **how: object) -> Callable[[Wire], Wire]:
    """Makes a scenario of a misbehaviour."""

    def note(wire: Wire) -> Wire:
        async def run(bench: Bench) -> str:
            return await bounded(bench, lambda: misbehaving(wire, **how), delivered=delivered)  # type: ignore[arg-type]

        run.__name__ = wire.__name__
        scenario(GROUP, promise)(run)
        return wire

    return note


async def repeat(writer: asyncio.StreamWriter, data: bytes, pause: float = 0.0) -> None:
    while True:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(pause)


@bad("that never answers fails in time", delivered=False)
async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@bad("that drips its headers fails in time", delivered=False)
async def dripping_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await repeat(writer, b"x: y\r\n", 0.2)


@bad("that drips its body fails in time", delivered=False)
async def dripping_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
    await repeat(writer, b"x", 0.2)


@bad("that says 200 and then stalls has not said that it is done: the attempt fails", delivered=False)
async def stalling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    await asyncio.Event().wait()


@bad("with endless headers is cut off", delivered=False)
async def endless_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await repeat(writer, b"x-header: " + b"y" * 1000 + b"\r\n")


@bad("with one endless header is cut off", delivered=False)
async def endless_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nx: ")
    await repeat(writer, b"y" * 65536)


@bad("with an endless body is cut off, and its status counts", delivered=True)
async def endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    await repeat(writer, b"10000\r\n" + b"z" * 65536 + b"\r\n")


@bad("that announces 10 GB and sends them is cut off, and its status counts", delivered=True)
async def ten_gigabytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n")
    await repeat(writer, b"z" * 65536)


@bad("with a gzip bomb is not unpacked beyond 64 KiB", delivered=True)
async def gzip_bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(BOMB) + BOMB)
    await writer.drain()
    await asyncio.Event().wait()


@bad("that says 100 Continue for ever fails", delivered=False)
async def continue_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await repeat(writer, b"HTTP/1.1 100 Continue\r\n\r\n", 0.005)


@bad("that breaks off its answer fails", delivered=False)
async def broken_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await writer.drain()


@bad("that talks nonsense fails", delivered=False)
async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff SSH-2.0-OpenSSH_9.2 \r\n\r\n" * 10)
    await writer.drain()


@bad("with a nonsensical chunk size fails", delivered=False)
async def chunked_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffffffff\r\nx\r\n")
    await writer.drain()


@bad("that redirects to a cloud's metadata is not followed", delivered=False)
async def redirect_to_metadata(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://169.254.169.254/latest/meta-data/\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()


@bad("that accepts and never speaks TLS fails in time", delivered=False, scheme="https", request_first=False)
async def tls_stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@bad("that speaks no TLS where it should fails", delivered=False, scheme="https", request_first=False)
async def tls_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()


async def _untrusted(bench: Bench, name: str, days: int) -> str:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("it was spoken to")

    async with misbehaving(never, tls=certificate(name, days=days)) as bad, receiving() as healthy:
        endpoint = await bench.server.create_endpoint(bad.url, [bench.type], timeout=bench.patience, concurrency=1, schedule=(0, 3600))
        await bench.server.create_endpoint(healthy.url, [bench.type])
        (event,) = await bench.server.publish([(bench.type, {})])
        found = await bench.settled(endpoint.id, [event], seconds=bench.patience + 3)
    assert found[event].status == "pending", f"recorded as {found}"
    assert bad.bytes_read == 0, "the request was sent"
    return "nothing was sent"


@scenario(GROUP, "whose certificate nobody vouches for is told nothing")
async def unknown_authority(bench: Bench) -> str:
    return await _untrusted(bench, "localhost", 30)


@scenario(GROUP, "whose certificate has expired is told nothing")
async def expired_certificate(bench: Bench) -> str:
    return await _untrusted(bench, "localhost", -1)


@scenario(GROUP, "that hangs among healthy ones delays none of them")
async def hanging_neighbour(bench: Bench) -> str:
    async with receiving() as hanging, receiving() as healthy:
        hanging.free.clear()
        # For longer than a busy machine takes for the others.
        patience = max(bench.patience, 15.0)
        await bench.server.create_endpoint(hanging.url, [bench.type], timeout=patience)
        await bench.server.create_endpoint(healthy.url, [bench.type])
        began = time.time()
        for _ in range(10):
            await bench.server.publish([(bench.type, {"n": n}) for n in range(10)])
        requests = await healthy.count(100, patience)
        took = requests[-1].at - began
        assert len(hanging.requests) <= 10, "it got more slots than its own"
    return f"100 events in {took:.2f} s"
