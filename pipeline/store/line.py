"""What goes out to the store: the commands of one tick of the event loop are one write on one connection, which is made again when it breaks."""

import asyncio
from collections import deque
from typing import Any

from pipeline.store.block import Replies
from pipeline.store.pool import CONNECT_SECONDS, Pool, not_connected
from pipeline.store.wire import NotSent, Slot, Wire

MOST_COMMANDS = 16_384
"""How many commands wait to be sent, and how many for a reply; further callers wait for room."""
MOST_BYTES = 4 << 20
"""How many bytes wait to be sent."""
SHORT_LIVED = 1.0
"""Seconds; a connection that lived for less is not followed by another at once."""


class Line:
    """Sends commands as they come and tries nothing again; for one event loop.

    What was not written when connecting failed ends with NotSent, what was written when a connection broke with ReplyLost.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wire: Wire | None = None
        self._wires: set[Wire] = set()
        """Also those that have been replaced and wait for their last replies."""
        self._born = 0.0
        self._dialling: asyncio.Task[None] | None = None
        self._packed: list[bytes] = []
        self._slots: list[Slot] = []
        """What waits to be sent. Both are of one length: a block's bytes stand beside the first of its slots."""
        self._bytes = 0
        self._scheduled = False
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()
        """Callers who wait for room, with the sizes of their commands."""
        self.full = False
        """Callers wait for room, or will have to."""
        self.closed = False

    def send(self, packed: bytes) -> "asyncio.Future[Any]":
        """Send one command with this tick's others; the future has the bare reply, or the error. Whoever may send many asks for `room`."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._bind(loop)
        future = loop.create_future()
        self._packed.append(packed)
        self._slots.append(future)
        self._bytes += len(packed)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)
        if self._bytes > MOST_BYTES or len(self._slots) > MOST_COMMANDS:
            self.full = True
        return future

    def send_block(self, packed: bytes, count: int) -> "asyncio.Future[list[Any]]":
        """Send several commands with nothing in between; the future has their replies, errors among them."""
        future = self.send(packed)
        self._slots[-1:] = [Replies(count, future)] * count
        self._packed += [b""] * (count - 1)
        return future

    async def room(self, size: int) -> None:
        """Return when a command of so many bytes may be sent: at once, unless the store is slow."""
        if not self.full:
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append((turn, size))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.admit()  # ours goes to the next
            raise

    async def close(self) -> None:
        """What waits to be sent fails with NotSent, what waits for its reply with ReplyLost."""
        self.closed, self._loop = True, None
        if self._dialling:
            self._dialling.cancel()
            await asyncio.wait([self._dialling])
        self._fail_unsent(NotSent("the client was closed"))
        for wire in [*self._wires]:
            wire.abort()
            await wire.lost.wait()

    # --- sending -----------------------------------------------------------------------------------------------------

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.closed:
            raise NotSent("the client was closed")
        if self._loop is not None:
            raise RuntimeError("this client of the store belongs to another event loop: make one for each")
        self._loop = loop

    def _flush(self) -> None:
        self._scheduled = False
        if not self._slots:
            return
        wire = self._wire
        if wire is None:
            self._dial()
            return
        if wire.paused or len(wire.waiting) > MOST_COMMANDS:
            return  # wire_ready comes back to it
        packed, slots = self._packed, self._slots
        self._packed, self._slots, self._bytes = [], [], 0
        if any(slot.cancelled() for slot in slots):
            kept = [(piece, slot) for piece, slot in zip(packed, slots, strict=True) if not slot.cancelled()]
            packed, slots = [piece for piece, _ in kept], [slot for _, slot in kept]
        if slots:
            wire.write(packed, slots)
        if self.full:
            self.admit()

    def admit(self) -> None:
        """Let in as many of those who wait for room as there is room for; also for one who was let in and then sent nothing."""
        size, count = self._bytes, len(self._slots)
        while self._queue and size <= MOST_BYTES and count <= MOST_COMMANDS:
            turn, more = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                size, count = size + more, count + 1
        self.full = bool(self._queue) or self._bytes > MOST_BYTES

    def _fail_unsent(self, error: Exception) -> None:
        slots, self._slots, self._packed, self._bytes = self._slots, [], [], 0
        queue, self._queue, self.full = self._queue, deque(), False
        for slot in (*slots, *(turn for turn, _ in queue)):
            if not slot.done():
                # To each its own: an exception gathers the traces of all who raise it.
                slot.set_exception(type(error)(*error.args) if isinstance(error, NotSent) else error)

    # --- the connection ----------------------------------------------------------------------------------------------

    def _dial(self) -> None:
        if self._dialling is None and self._loop is not None:
            self._dialling = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        pool = self._pool
        try:
            await pool.pace.wait()
            async with asyncio.timeout(CONNECT_SECONDS):
                wire = await Wire.open(pool.make_connection(), self)
        except Exception as error:
            pool.pace.failed()
            self._dialling = None
            self._fail_unsent(not_connected(error))
        else:
            pool.pace.succeeded()
            self._born = asyncio.get_running_loop().time()
            self._dialling = None
            self._wire = wire
            self._wires.add(wire)
            self._flush()

    def wire_ready(self) -> None:
        if self._slots and not self._scheduled:
            self._flush()

    def wire_read_only(self, wire: Wire) -> None:
        if wire is self._wire:
            self._wire = None
            self._pool.pace.failed()
            wire.retire()

    def wire_lost(self, wire: Wire) -> None:
        self._wires.discard(wire)
        if wire is not self._wire:
            return
        self._wire = None
        if self._loop and self._loop.time() - self._born < SHORT_LIVED:
            self._pool.pace.failed()
        if self._slots:
            self._dial()
