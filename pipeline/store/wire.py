"""One connection to the store: commands go out in order, each reply comes back to whoever waits for it, next in line."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import hiredis
from redis._parsers import BaseParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, ConnectionError, ReadOnlyError

pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
"""A command as bytes, of a tuple of strings, bytes, ints and floats; others are a TypeError."""


def size_of(args: Iterable[Any]) -> int:
    """About how many bytes a command will have."""
    return sum(len(arg) for arg in args if isinstance(arg, str | bytes))


LATER = frozenset({"LOADING", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "BUSY", "NOREPLICAS", "MISCONF"})
"""Codes of errors that a store answers instead of running a command, and that pass."""
_MORE = object()


class NotSent(ConnectionError):
    """The store has not run the command: it never left this process, or was turned away. It may be sent again, whatever it is."""


class Later(NotSent):
    """The store answered that it cannot run anything just now: it is loading, has lost its replicas, runs a long script, its disk is full."""


class Refused(NotSent, AuthenticationError):
    """The store refuses our credentials; sending it again does not help."""


class ReplyLost(ConnectionError):
    """The command was sent and the connection broke before the reply: the store may have run it, or not."""


class Slot(Protocol):
    """What takes a reply: a future, or a block of several."""

    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def set_result(self, reply: Any, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...


class Owner(Protocol):
    """Who is told what becomes of a wire."""

    def wire_ready(self) -> None:
        """Replies came, or the transport takes bytes again: there may be room for more."""

    def wire_read_only(self, wire: "Wire") -> None:
        """A write was refused by what is now a replica."""

    def wire_lost(self, wire: "Wire") -> None: ...


class Wire(asyncio.Protocol):
    def __init__(self, owner: Owner, transport: asyncio.WriteTransport, kept: object) -> None:
        self._owner = owner
        self._transport = transport
        self._kept = kept
        # What is no UTF-8 (another client's job) must not cost all the others in the same answer: replaced, as Node reads it.
        self._reader = hiredis.Reader(encoding="utf-8", errors="replace", replyError=error_of, notEnoughData=_MORE)
        self.waiting: deque[Slot] = deque()
        """Who waits for a reply, in the order of their commands."""
        self.paused = False
        """The transport holds as many bytes as it should."""
        self._retired = False
        self.lost = asyncio.Event()

    @classmethod
    async def open(cls, connection: AbstractConnection, owner: Owner) -> "Wire":
        """Let redis-py connect and shake hands (TLS, credentials, Sentinel, database), then take its transport over.

        This is the one place that touches private attributes of redis-py; tests/redis/test_wire.py notices when they change.
        """
        try:
            await connection.connect()
            # Nothing awaits between here and the new protocol, so nothing can slip in between.
            writer = connection._writer
            if await connection.can_read() or writer is None or writer.transport.is_closing():
                raise ConnectionError("the store closed the connection, or spoke unasked")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        # The connection has nothing left to close or to warn of; the writer, which would close its transport when collected, is kept.
        connection._reader = connection._writer = None
        wire = cls(owner, writer.transport, writer)
        writer.transport.set_protocol(wire)
        return wire

    def write(self, packed: list[bytes], slots: list[Any]) -> None:
        """Send commands as one write; as many replies as there are `slots` will come."""
        self.waiting.extend(slots)
        self._transport.write(b"".join(packed))

    def retire(self) -> None:
        """Close once the last reply came."""
        self._retired = True
        if not self.waiting:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    # --- asyncio.Protocol --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        reader, next_slot = self._reader, self.waiting.popleft
        reader.feed(data)
        while True:
            try:
                reply = reader.gets()
            except UnicodeDecodeError as error:  # the reply has been read all the same
                reply = error
            except hiredis.HiredisError:
                self._transport.abort()
                return
            if reply is _MORE:
                break
            try:
                slot = next_slot()
            except IndexError:  # nobody asked: whatever this is, no later reply could be trusted
                self._transport.abort()
                return
            if isinstance(reply, Exception):
                if isinstance(reply, ReadOnlyError):
                    self._owner.wire_read_only(self)
                if not slot.done():
                    slot.set_exception(reply)
            elif not slot.done():
                slot.set_result(reply)
        if self._retired and not self.waiting:
            self._transport.close()
        self._owner.wire_ready()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._owner.wire_ready()

    def connection_lost(self, exc: Exception | None) -> None:
        waiting, self.waiting = self.waiting, deque()
        self.lost.set()
        self._owner.wire_lost(self)
        for slot in waiting:
            if not slot.done():
                slot.set_exception(ReplyLost(f"the connection to the store broke before the reply: {exc or 'closed by the store'}"))


def error_of(message: str) -> Exception:
    """An error reply as the exception that redis-py has for it, but for what passes (`Later`)."""
    code = message.partition(" ")[0]
    if code in LATER:
        return Later(message)
    # Redis 6.2 wraps what a command inside a script was answered.
    if ": -READONLY " in message:
        return ReadOnlyError(message)
    error: Exception = BaseParser.parse_error(message)
    return error


def passes(error: Exception) -> bool:
    """Whether redis-py's exception for an error reply is one of those that pass."""
    return (getattr(error, "status_code", None) or str(error).partition(" ")[0]) in LATER
