"""Connections that are not shared: for blocking commands, pub/sub, MONITOR and WATCH; also how often connecting is tried."""

import asyncio
import contextlib
from typing import Any

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, TimeoutError

from pipeline.store.wire import Later, NotSent, Refused, passes

CONNECT_SECONDS = 10.0
"""How long connecting may take with all of its handshake: a server that stands still accepts connections and says nothing."""


class Pace:
    """When the store may be dialled next: at once, or after failures later and later, for all who share this."""

    def __init__(self) -> None:
        self._backoff = ExponentialWithJitterBackoff(base=0.05, cap=0.5)
        self._failures = 0
        self._next = 0.0

    def pause(self, tries: int) -> float:
        """Seconds to wait after so many failures."""
        return float(self._backoff.compute(tries))

    async def wait(self) -> None:
        if (seconds := self._next - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(seconds)

    def failed(self) -> None:
        self._failures += 1
        self._next = asyncio.get_running_loop().time() + self.pause(self._failures)

    def succeeded(self) -> None:
        self._failures = 0


class Pool(BlockingConnectionPool):
    """A pool whose connections never send a command twice: whoever sent it decides (`Client`). Connecting is tried again."""

    def __init__(self, *, retries: int, **settings: Any) -> None:
        super().__init__(timeout=None, retry=Retry(NoBackoff(), 0), **settings)
        self.retries = retries
        self.pace = Pace()

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Raises NotSent when the store cannot be reached after `retries`."""
        for left in range(self.retries, -1, -1):
            if not connection.is_connected:
                await self.pace.wait()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await super().ensure_connection(connection)
            except Exception as error:
                with contextlib.suppress(ConnectionError, TimeoutError, OSError):
                    await connection.disconnect(nowait=True)
                self.pace.failed()
                failure = not_connected(error)
                if not left or not isinstance(failure, NotSent) or isinstance(failure, Refused):
                    raise failure from error
            else:
                self.pace.succeeded()
                return


def not_connected(error: Exception) -> Exception:
    """What connecting ended in, as an error of a command that was therefore not sent."""
    if isinstance(error, AuthenticationError):
        return Refused(str(error))
    if isinstance(error, asyncio.TimeoutError):
        return NotSent(f"the store did not complete a connection within {CONNECT_SECONDS:.0f} s")
    if isinstance(error, ConnectionError) and passes(error):
        return Later(str(error))
    if isinstance(error, ConnectionError | TimeoutError | OSError):
        return NotSent(str(error))
    return error
