"""Going on when the store is away: which errors say so, and how long to wait before the next try."""

import asyncio
import contextlib
import random

from redis.exceptions import BusyLoadingError, ConnectionError, OutOfMemoryError, ReadOnlyError, ResponseError, TimeoutError

STORE_ERRORS = (ConnectionError, TimeoutError, OSError, BusyLoadingError, ReadOnlyError, OutOfMemoryError, ResponseError)
"""What passes, or what an operator can mend while we wait; after any of them a step is simply taken again."""
FIRST = 0.05
LONGEST = 2.0


class Pause:
    """Waits that grow from one failure to the next."""

    def __init__(self) -> None:
        self._seconds = FIRST

    def reset(self) -> None:
        self._seconds = FIRST

    async def wait(self, stop: asyncio.Event | None = None) -> None:
        """Wait, no longer than until `stop`."""
        seconds = self._seconds * (0.5 + random.random() / 2)
        self._seconds = min(self._seconds * 2, LONGEST)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for((stop or asyncio.Event()).wait(), seconds)
