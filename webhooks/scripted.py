"""A receiver for tests: a real HTTP server on the loopback that verifies what arrives and fails by script.

It has a thread and an event loop of its own, so that tests of any kind can use it: plain ones, and those of every asyncio plugin.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from webhooks.errors import VerificationError
from webhooks.receiver import verify
from webhooks.signing import generate_secret

MAX_BODY = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """A webhook whose signature was valid."""

    id: str
    """`webhook-id`: the same on every attempt."""
    event: dict[str, Any]
    headers: Mapping[str, str]
    """In lower case."""
    body: bytes
    answered: int | None
    """The status that it was, or will be, answered with; None: the connection was closed instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A request that was no valid webhook, answered with 401."""

    error: VerificationError
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    status: int | None = 204
    """None: close the connection."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    """For which nothing is said first."""


class ScriptedReceiver:
    """Answers 204, unless it is told otherwise: each call below is for one webhook, in order; `times` for several.

    Use as `with ScriptedReceiver() as receiver`, or as the fixture `hookline_receiver`.
    """

    def __init__(self) -> None:
        self.secret: str | Sequence[str] = generate_secret()
        """What is accepted: give it to the endpoint, or set it to what the endpoint was given (`whsec_…`, `whpk_…`, several)."""
        self.url = ""
        self.received: list[Received] = []
        self.rejected: list[Rejected] = []
        self._script: deque[_Step] = deque()
        self._last: _Step | None = None
        self._arrived = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hookline receiver", daemon=True)
        self._over = asyncio.Event()

    # --- script -----------------------------------------------------------------------------------------------------

    def respond(self, status: int = 204, *, body: str = "", headers: Mapping[str, str] | None = None, retry_after: int | str | None = None) -> Self:
        """Answer with this; `retry_after` in seconds, or an HTTP date."""
        asked = {} if retry_after is None else {"retry-after": str(retry_after)}
        return self._then(_Step(status=status, headers={**(headers or {}), **asked}, body=body.encode()))

    def redirect(self, url: str, status: int = 302) -> Self:
        return self._then(_Step(status=status, headers={"location": url}))

    def hang(self, seconds: float = 3600.0) -> Self:
        """Take the request and say nothing for so long, then 204; the test's end ends it."""
        return self._then(_Step(seconds=seconds))

    def drop(self) -> Self:
        """Take the request and close the connection without an answer."""
        return self._then(_Step(status=None))

    def times(self, count: int) -> Self:
        """The last call is for so many webhooks. Raises ValueError where there is none, or the count is less than 1."""
        if self._last is None or count < 1:
            raise ValueError("times(n) says for how many webhooks the call before it is, for example respond(503).times(2)")
        self._script.extend([self._last] * (count - 1))
        return self

    def _then(self, step: _Step) -> Self:
        self._last = step
        self._script.append(step)
        return self

    # --- what arrived -----------------------------------------------------------------------------------------------

    async def wait(self, count: int = 1, seconds: float = 10.0) -> list[Received]:
        """What was received, as soon as it is so many. Raises TimeoutError that says what was."""
        return await asyncio.to_thread(self.wait_blocking, count, seconds)

    def wait_blocking(self, count: int = 1, seconds: float = 10.0) -> list[Received]:
        """As `wait`, for tests without asyncio."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.received) >= count, seconds):
                wrong = f", and {len(self.rejected)} that were not valid: {self.rejected[-1].error}" if self.rejected else ""
                raise TimeoutError(f"{len(self.received)} of {count} webhooks came within {seconds:g} s{wrong}")
            return list(self.received)

    # --- server -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self._runner = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hooks"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> web.AppRunner:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/{path:.*}", self._take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    async def _stop(self) -> None:
        self._over.set()
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            event = verify(self.secret, request.headers, body)
        except VerificationError as error:
            with self._arrived:
                self.rejected.append(Rejected(error=error, headers=headers, body=body))
            return web.Response(status=401, text=str(error))
        with self._arrived:
            step = self._script.popleft() if self._script else _Step()
            self.received.append(Received(id=headers["webhook-id"], event=event, headers=headers, body=body, answered=step.status))
            self._arrived.notify_all()
        if step.seconds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), step.seconds)
        if step.status is None:
            assert request.transport
            request.transport.abort()
        return web.Response(status=step.status or 204, headers=step.headers, body=step.body)
