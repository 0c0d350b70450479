"""The idle connections to all receivers: reused last in, first out; closed when they are too many, too old or long unused."""

import asyncio

from webhooks.connection import Connection
from webhooks.phases import clock
from webhooks.target import Target

IDLE_SECONDS = 15.0
LIFETIME_SECONDS = 300.0
"""A busy connection would otherwise keep on to an address that the receiver's name left long ago."""
MAX_IDLE = 500
"""In all. What is under way is bounded by the mailboxes instead: a limit here would let one endpoint's requests queue before another's."""
MAX_IDLE_PER_PLACE = 200
"""More than an endpoint's usual concurrency, or a busy one would open and close connections all the time."""
SWEEP_SECONDS = 5.0
_Place = tuple[bool, str, int]


class Pool:
    def __init__(self) -> None:
        self._idle: dict[_Place, dict[Connection, None]] = {}
        """Each the longest unused first, as is the next; dicts, because any of them may end at any time."""
        self._order: dict[Connection, _Place] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._order)

    def take(self, target: Target) -> Connection | None:
        """The one used last: it is the likeliest to be still open at the other end."""
        idle = self._idle.get(target.place)
        if not idle:
            return None
        connection = next(reversed(idle))
        self._forget(connection)
        return connection

    def give(self, target: Target, connection: Connection) -> None:
        now, place = clock(), target.place
        if not connection.usable or now - connection.opened > LIFETIME_SECONDS:
            connection.close()
            return
        if len(self._idle.get(place, ())) >= MAX_IDLE_PER_PLACE:
            connection.close()
            return
        if len(self._order) >= MAX_IDLE:
            self._end(next(iter(self._order)))
        connection.idle_since, connection.lost = now, self._forget
        self._idle.setdefault(place, {})[connection] = None
        self._order[connection] = place
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._end_old)

    def close(self) -> None:
        if self._sweep:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._order):
            self._forget(connection)
            connection.abort()

    def _end_old(self) -> None:
        oldest = clock() - IDLE_SECONDS
        for connection in list(self._order):
            if connection.idle_since > oldest:
                break
            self._end(connection)
        self._sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._end_old) if self._order else None

    def _end(self, connection: Connection) -> None:
        self._forget(connection)
        connection.close()

    def _forget(self, connection: Connection) -> None:
        connection.lost = None
        place = self._order.pop(connection)
        idle = self._idle[place]
        del idle[connection]
        if not idle:
            del self._idle[place]
