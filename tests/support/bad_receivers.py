"""Receivers of webhooks that are made to hurt: each holds, floods or confuses its sender in a way of its own."""

import asyncio
import contextlib
import random
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
DRIP_SECONDS = 0.02
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Bad:
    """`script` begins once a connection is there, before anything is read."""

    script: Script
    error: str
    """How an attempt's error begins where the time runs out (`{t}` is the time), or at once; empty for a success."""
    status: int | None = None
    at_once: bool = False
    """Whether the attempt ends without its time running out."""
    scheme: str = "http"


def after_request(script: Script) -> Script:
    async def scripted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await script(reader, writer)

    return scripted


def says(text: bytes, *, endless: bytes = b"", drip: bytes = b"", hold: bool = True) -> Script:
    """Says a text and then something without end, at full speed or byte by byte; or holds the connection."""

    @after_request
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()
        while endless:
            writer.write(endless)
            await writer.drain()
        while drip:
            for at in range(len(drip)):
                writer.write(drip[at : at + 1])
                await writer.drain()
                await asyncio.sleep(DRIP_SECONDS)
        if hold:
            await reader.read()

    return script


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Neither reads nor says anything."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await writer.wait_closed()


async def half_a_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The beginning of a TLS record, whose rest comes byte by byte."""
    await reader.read(1)
    writer.write(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03")
    while True:
        writer.write(b"\x01")
        await writer.drain()
        await asyncio.sleep(DRIP_SECONDS)


async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speaks HTTP where TLS is spoken to it."""
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    await reader.read()


def bomb() -> bytes:
    """A gzip stream of 1 GiB of zeros, about 1 MiB long."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = again.compress(bytes(1 << 24)) + again.flush(zlib.Z_FULL_FLUSH)
    return block + piece * 63


NOT_HTTP = "the answer is not HTTP, or its headers exceed the limits"
NO_ANSWER = "no answer within {t} s"
NO_END = "answered 200, but the answer did not end within {t} s"
RECEIVERS = {
    "drips its headers": Bad(script=says(OK, drip=b"x-a: b\r\n"), error=NO_ANSWER),
    "drips its status line": Bad(script=says(b"", drip=b"HTTP/1.1 200 O" + b"K" * 1000), error=NO_ANSWER),
    "drips its body": Bad(script=says(OK + b"\r\n", drip=b"x"), error=NO_END, status=200),
    "drips its chunks": Bad(script=says(CHUNKED, drip=b"1\r\nx\r\n"), error=NO_END, status=200),
    "sends headers without end": Bad(script=says(OK, endless=b"x-a: b\r\n" * 1000), error=NOT_HTTP, at_once=True),
    "sends a header line without end": Bad(script=says(OK + b"x: ", endless=b"y" * 65_536), error=NOT_HTTP, at_once=True),
    "sends a body without end": Bad(script=says(OK + b"\r\n", endless=b"x" * 65_536), error="", status=200, at_once=True),
    "sends chunks without end": Bad(script=says(CHUNKED, endless=b"8000\r\n" + b"x" * 0x8000 + b"\r\n"), error="", status=200, at_once=True),
    "sends 10 GB": Bad(script=says(OK + b"Content-Length: 10000000000\r\n\r\n", endless=b"x" * 65_536), error="", status=200, at_once=True),
    "promises 10 GB": Bad(script=says(OK + b"Content-Length: 10000000000\r\n\r\nx"), error=NO_END, status=200),
    "sends a bomb": Bad(script=says(OK + b"Content-Encoding: gzip\r\n\r\n", endless=bomb()), error="", status=200, at_once=True),
    "says 2xx and stalls": Bad(script=says(OK + b"Content-Length: 10\r\n\r\nok"), error=NO_END, status=200),
    "says 500 and stalls": Bad(script=says(b"HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nno"), error=NO_END.replace("200", "500"), status=500),
    "says nothing": Bad(script=says(b""), error=NO_ANSWER),
    "reads nothing": Bad(script=silent, error=NO_ANSWER),
    "never shakes hands": Bad(script=silent, error=NO_ANSWER, scheme="https"),
    "drips its handshake": Bad(script=half_a_handshake, error=NO_ANSWER, scheme="https"),
    "is no TLS": Bad(script=plain, error="TLS failed with 127.0.0.1: ", scheme="https", at_once=True),
    "sends garbage": Bad(script=says(b"", endless=random.Random(1).randbytes(65_536)), error=NOT_HTTP, at_once=True),
    "says 100 without end": Bad(script=says(b"", endless=b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), error=NOT_HTTP, at_once=True),
    "drips 100": Bad(script=says(b"", drip=b"HTTP/1.1 100 Continue\r\n\r\n"), error=NO_ANSWER),
    "says 100 and stalls": Bad(script=says(b"HTTP/1.1 100 Continue\r\n\r\n"), error=NO_ANSWER),
    "promises a chunk of many bytes": Bad(script=says(CHUNKED + b"fffffffffffffff\r\nx"), error=NO_END, status=200),
    "sends tiny chunks without end": Bad(script=says(CHUNKED, endless=b"1\r\nx\r\n" * 10_000), error=NOT_HTTP, status=200, at_once=True),
    "sends a chunk extension without end": Bad(script=says(CHUNKED + b"1;", endless=b"x" * 65_536), error=NOT_HTTP, status=200, at_once=True),
    "sends trailers without end": Bad(script=says(CHUNKED + b"0\r\n", endless=b"x: y\r\n" * 1000), error=NOT_HTTP, status=200, at_once=True),
    "sends no size of a chunk": Bad(script=says(CHUNKED + b"-5\r\nhello\r\n"), error=NOT_HTTP, status=200, at_once=True),
    "tells two lengths": Bad(script=says(CHUNKED[:-2] + b"Content-Length: 3\r\n\r\n0\r\n\r\n"), error=NOT_HTTP, status=200, at_once=True),
    "hangs up": Bad(script=says(b"", hold=False), error="the receiver closed the connection without an answer", at_once=True),
    "hangs up within its body": Bad(
        script=says(OK + b"Content-Length: 10\r\n\r\nok", hold=False), error="the answer's body broke off", status=200, at_once=True
    ),
    "redirects to metadata": Bad(
        script=says(b"HTTP/1.1 307 Here\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"),
        error="answered 307: redirects are not followed",
        status=307,
        at_once=True,
    ),
}


@contextlib.asynccontextmanager
async def listening(bad: Bad) -> AsyncIterator[str]:
    """Yields the URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            await bad.script(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"{bad.scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def unaccepting() -> Iterator[str]:
    """Yields the URL of a listener that accepts nobody and whose queue is full: who dials it hears nothing."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
