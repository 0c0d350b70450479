"""A webhook receiver for tests: a real aiohttp server on a free loopback port that records requests and answers by script."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True, kw_only=True)
class Received:
    method: str
    path: str
    headers: Mapping[str, str]
    """In lower case."""
    body: bytes
    at: float = field(default_factory=time.monotonic)
    """When it had come, seconds of the monotonic clock."""

    @property
    def event(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Script = Answer | Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """Answers with what was scripted, in order, and then with `default`."""

    def __init__(self, default: Script | None = None) -> None:
        self.default: Script = default or Answer()
        self.received: list[Received] = []
        self.under_way = 0
        """Requests that are being answered."""
        self.most_at_once = 0
        self.let_go = asyncio.Event()
        """Lets the requests that `hang` holds be answered."""
        self._scripts: deque[Script] = deque()
        self._queue: asyncio.Queue[Received] = asyncio.Queue()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def answer(self, *scripts: Script) -> None:
        """What the next requests are answered with."""
        self._scripts.extend(scripts)

    async def next(self, seconds: float = 10.0) -> Received:
        """The next request that was not handed out yet, as soon as it is there."""
        async with asyncio.timeout(seconds):
            return await self._queue.get()

    async def hang(self, request: web.Request) -> web.StreamResponse:
        """A script: no answer until `let_go` is set."""
        await self.let_go.wait()
        return web.Response()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.let_go.set()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(method=request.method, path=request.path_qs, headers=headers, body=body)
        self.received.append(received)
        self._queue.put_nowait(received)
        script = self._scripts.popleft() if self._scripts else self.default
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            if isinstance(script, Answer):
                return web.Response(status=script.status, headers=dict(script.headers), body=script.body)
            return await script(request)
        finally:
            self.under_way -= 1


@contextlib.asynccontextmanager
async def receiving(default: Script | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(default)
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()


@contextlib.asynccontextmanager
async def raw_server(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server below HTTP, for answers that no HTTP library would give; yields its URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
