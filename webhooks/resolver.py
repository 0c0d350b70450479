"""Names to addresses: in threads of its own, each name once at a time, remembered for a few seconds."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

AddrInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
TTL = 10.0
"""Seconds; so short that a receiver which moves is found soon."""
THREADS = 32
"""More than the loop's own pool has: a name server that is silent holds a thread for many seconds, and must not hold up other names."""
MAX_REMEMBERED = 10_000


class Resolver:
    """What getaddrinfo says; it judges nothing."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="webhooks-dns")
        self._asked: dict[tuple[str, int], asyncio.Future[list[AddrInfo]]] = {}
        self._known: dict[tuple[str, int], tuple[float, list[AddrInfo]]] = {}

    async def resolve(self, host: str, port: int) -> list[AddrInfo]:
        """All addresses of a host, at least one. Raises OSError (mostly gaierror) or UnicodeError for one that has none."""
        try:
            # Also what only looks like a name (127.1, 2130706433, 017700000001) is an address to getaddrinfo, and needs no thread.
            return _look_up(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass
        key, now = (host, port), asyncio.get_running_loop().time()
        until, found = self._known.get(key, (0.0, []))
        if now < until:
            return found
        # Shielded: others wait for the same answer, and a thread cannot be cancelled anyway.
        return await asyncio.shield(self._asked.get(key) or self._ask(key))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, key: tuple[str, int]) -> "asyncio.Future[list[AddrInfo]]":
        loop = asyncio.get_running_loop()
        asked = self._asked[key] = loop.run_in_executor(self._threads, _look_up, *key, socket.AI_ADDRCONFIG)

        def answered(done: "asyncio.Future[list[AddrInfo]]") -> None:
            del self._asked[key]
            # Looked at in any case: whoever asked may have gone, and an error nobody looks at would be logged as a mistake of ours.
            if not done.cancelled() and done.exception() is None:
                if len(self._known) >= MAX_REMEMBERED:
                    self._known.clear()
                self._known[key] = (loop.time() + TTL, done.result())

        asked.add_done_callback(answered)
        return asked


def _look_up(host: str, port: int, flags: int) -> list[AddrInfo]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)  # type: ignore[return-value]
