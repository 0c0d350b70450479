"""A TCP proxy before the store that can stall, cut the stream at a byte, drop connections and speak TLS."""

import asyncio
import contextlib
import ssl
from types import TracebackType


class Proxy:
    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        """`port`: where the store listens on this machine."""
        self.target = port
        """May be changed: new connections go there."""
        self._tls = tls
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._server: asyncio.Server | None = None
        self._accepted: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        """Made so far."""
        self.requests = asyncio.Event()
        self.requests.set()
        """Cleared: nothing more is read from clients."""
        self.replies = asyncio.Event()
        self.replies.set()
        """Cleared: nothing more is read from the store."""
        self.up = self.down = 0
        """Bytes passed on, to the store and to clients."""
        self.cut_up: int | None = None
        self.cut_down: int | None = None
        """When so many bytes have been passed on, the connection is cut."""
        self._passed = asyncio.Event()
        self.swallow = b""
        """When these bytes pass to the store, its replies are held from then on."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cut(self, *, up: int | None = None, down: int | None = None) -> None:
        """Cut connections after so many more bytes to the store, or to clients."""
        self.cut_up = None if up is None else self.up + up
        self.cut_down = None if down is None else self.down + down

    async def until(self, *, up: int) -> None:
        """Return when so many bytes have been passed on to the store."""
        while self.up < up:
            self._passed.clear()
            await self._passed.wait()

    def drop(self) -> None:
        """Cut all connections now."""
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task
        self._accepted.add(task)
        task.add_done_callback(self._accepted.discard)
        try:
            upstream, store = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, store)
        self._pairs.add(pair)
        pumps = [asyncio.create_task(self._pump(reader, store, pair, up=True)), asyncio.create_task(self._pump(upstream, writer, pair, up=False))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for one in pair:
                one.transport.abort()
            self._pairs.discard(pair)
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: object, *, up: bool) -> None:
        gate = self.requests if up else self.replies
        with contextlib.suppress(OSError):
            while True:
                await gate.wait()
                data = await reader.read(65536)
                if not data:
                    return
                await gate.wait()
                limit = self.cut_up if up else self.cut_down
                left = None if limit is None else limit - (self.up if up else self.down)
                if left is not None:
                    data = data[: max(left, 0)]
                if up:
                    self.up += len(data)
                    if self.swallow and self.swallow in data:
                        self.swallow = b""
                        self.replies.clear()
                else:
                    self.down += len(data)
                writer.write(data)
                await writer.drain()
                self._passed.set()
                if left is not None and left <= len(data):
                    self.cut_up = self.cut_down = None
                    # Half a reply, or half a command, must reach its reader before the end does.
                    writer.write_eof() if writer.can_write_eof() else None
                    await asyncio.sleep(0.005)
                    return

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls, limit=65536)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server
        self._server.close()
        self.drop()
        # Pumps that stand still go on, to find the connection gone.
        self.requests.set()
        self.replies.set()
        await asyncio.gather(*self._accepted, return_exceptions=True)
        await self._server.wait_closed()
