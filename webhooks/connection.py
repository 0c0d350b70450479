"""One connection to a receiver: a request goes out, its answer comes in, one after the other."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import cast

from webhooks.answer import Answer, Closed, ExchangeFailed
from webhooks.phases import Phases, clock


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.address: str | None = None
        """The IP address at the other end."""
        self.opened = self.idle_since = clock()
        self.lost: Callable[[Connection], None] | None = None
        """Told when it ends while nobody uses it."""
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._ended: asyncio.Future[None] | None = None
        self._phases = Phases()
        self._sent = 0.0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        """One for all requests, set anew when it went off or for an earlier deadline: nearly every answer comes long before."""
        self._looks_at = inf
        """When it goes off."""

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, answer: Answer, phases: Phases, deadline: float) -> None:
        """Send a request and fill the answer; unless that ends such that the next one may follow, the connection is gone afterwards.

        `deadline` is a time of the loop's. Raises ExchangeFailed, or TimeoutError then.
        """
        if self._transport is None or self._transport.is_closing():
            raise Closed
        self._answer, self._phases = answer, phases
        self._ended = ended = asyncio.get_running_loop().create_future()
        self._deadline = deadline
        if deadline < self._looks_at:
            self._watch()
        self._sent = clock()
        self._transport.write(request)
        try:
            await ended
        except BaseException:
            # Also where the answer is whole: cancelled in the moment it ended, its connection is nobody's.
            self.abort()
            raise
        finally:
            self._answer = self._ended = None
        # What is still to be sent of a request that was answered unread would grow with each that follows it (of TLS's, one is not seen).
        if not answer.reusable or (self._transport and self._transport.get_write_buffer_size()):
            self.abort()

    def close(self) -> None:
        """End it in good manners (TLS says so); for one that is idle."""
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        """End it at once: a receiver that reads nothing would otherwise hold what it was sent."""
        if self._transport:
            self._transport.abort()

    def _watch(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._looks_at = self._deadline
        self._timer = asyncio.get_running_loop().call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._looks_at = inf
        if self._ended is None or self._ended.done():
            return
        if self._deadline > asyncio.get_running_loop().time():
            self._watch()
        else:
            self._ended.set_exception(TimeoutError())

    # --- asyncio.Protocol -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else None

    def data_received(self, data: bytes) -> None:
        answer, ended = self._answer, self._ended
        if answer is None or ended is None or ended.done():
            # Nobody asked: it must not be taken for the answer to the next request.
            self.abort()
            return
        if self._phases.first_byte is None:
            self._phases.first_byte = clock() - self._sent
        try:
            if answer.feed(data):
                ended.set_result(None)
        except ExchangeFailed as error:
            ended.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer:
            self._timer.cancel()
        answer, ended = self._answer, self._ended
        if answer is None or ended is None:
            if self.lost:
                self.lost(self)
        elif not ended.done():
            try:
                answer.end()
                ended.set_result(None)
            except ExchangeFailed as error:
                ended.set_exception(error)
