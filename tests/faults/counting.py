"""A receiver of millions: it counts how often each event came, and keeps no request."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import cast

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Counting:
    """Several URLs; each has its own counts."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.counts: list[Counter[bytes]] = []
        """Of each URL: event id → how often it came."""
        self.requests = 0
        self.first = 0
        """Of the requests, those that were no repetition."""
        self._goal = 0
        self._reached = asyncio.Event()

    def took(self, counts: Counter[bytes], event: bytes) -> None:
        self.requests += 1
        counts[event] += 1
        self.first += counts[event] == 1
        if self.first >= self._goal:
            self._reached.set()

    async def until(self, first: int, seconds: float) -> None:
        """Wait until so many came, repetitions not counted; fails after `seconds`."""
        self._goal = first
        self._reached.clear()
        if self.first >= first:
            return
        try:
            await asyncio.wait_for(self._reached.wait(), seconds)
        except TimeoutError:
            raise AssertionError(f"{self.first:,} came within {seconds:g} s, {first:,} were due") from None

    async def next_one(self, since: float) -> float:
        """Seconds from `since` (`time.time()`) to the next that is no repetition."""
        await self.until(self.first + 1, 60)
        return time.time() - since


class _Connection(asyncio.Protocol):
    def __init__(self, counting: Counting, counts: Counter[bytes]) -> None:
        self._counting = counting
        self._counts = counts
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end].lower() + b"\r\n"
            whole = end + 4 + int(_value(head, b"content-length"))
            if len(data) < whole:
                break
            self._transport.write(ANSWER)
            self._counting.took(self._counts, _value(head, b"webhook-id"))
            data = data[whole:]
        self._rest = data


def _value(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


@contextlib.asynccontextmanager
async def counting(urls: int) -> AsyncIterator[Counting]:
    found = Counting()
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(urls):
            counts: Counter[bytes] = Counter()
            found.counts.append(counts)
            server = await loop.create_server(lambda counts=counts: _Connection(found, counts), "127.0.0.1", 0, backlog=1024)
            stack.callback(server.close)
            found.urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks")
        yield found
