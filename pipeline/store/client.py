"""The client of the store: a `redis.asyncio.Redis` whose concurrent commands share one connection and go out together."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import AuthenticationError, ConnectionError, DataError, NoScriptError, ReadOnlyError, ResponseError, TimeoutError

from pipeline.store import verbs
from pipeline.store.block import Block
from pipeline.store.line import Line
from pipeline.store.pool import Pool
from pipeline.store.wire import Later, NotSent, ReplyLost, pack, passes, size_of

AGAIN = (NotSent, ReplyLost, ReadOnlyError)
"""What may be sent again: what was not run, and of what may have been run that which may be repeated."""


class Client(Redis):
    """For one event loop; replies are strings.

    - A command's name in bytes gets the bare reply, without what redis-py makes of it.
    - A command that the store has not run is sent again, up to `retries` times; so is one whose reply was lost, if it may be
      repeated (`verbs.REPEATABLE`). Else, and after that, it fails with NotSent, or with ReplyLost if it may have been run.
    - What blocks or changes its connection (`verbs.APART`), pub/sub, MONITOR, pipelines that WATCH and replies that must not be
      decoded have connections of their own. A pipeline goes out as one piece, a transaction's from MULTI to EXEC.
    - While the store reads too slowly, callers wait.
    - A cancelled command is not sent if it was not yet; whether one that was is run is not known. It disturbs no other.
    - Commands of different callers keep no order among each other once something had to be sent again.
    """

    connection_pool: Pool

    def __init__(self, connection_pool: Pool) -> None:
        super().__init__(connection_pool=connection_pool)
        self.auto_close_connection_pool = True
        self._line = Line(connection_pool)
        self.send = self._line.send
        self.room = self._line.room
        self._known: dict[Any, tuple[bool, tuple[bytes, ...], Callable[..., Any] | None]] = {}
        self._evals: set[str] = set()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            apart, words, callback = self._known[args[0]]
        except KeyError:
            apart, words, callback = self._learn(args[0])
        if options:
            options.pop("keys", None)  # for redis-py's cache
            if NEVER_DECODE in options or EMPTY_RESPONSE in options:
                return await self._apart(args, options)
        if apart and verbs.apart(args):
            return await self._apart(args, options)
        reply = await self._shared((*words, *args[1:]) if words else args)
        if callback is None:
            return reply
        result = callback(reply, **options)
        return await result if hasattr(result, "__await__") else result

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        return await self._shared(("EVALSHA", sha, numkeys, *keys_and_args))

    async def once(self, *args: Any) -> Any:
        """A command that is sent again only while it was certainly not run: who gets ReplyLost repeats it in a way of its own."""
        try:
            return await self._once(args)
        except AGAIN as error:
            return await self.again(error, lambda: self._once(args), repeatable=False)

    async def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """As EVAL; while the same text is on its way, only its hash follows: the store knows the script when that arrives."""
        if script in self._evals:
            try:
                return await self.evalsha(hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest(), numkeys, *keys_and_args)
            except NoScriptError:
                return await self._shared(("EVAL", script, numkeys, *keys_and_args))
        self._evals.add(script)
        try:
            return await self._shared(("EVAL", script, numkeys, *keys_and_args))
        finally:
            self._evals.discard(script)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Block:
        return Block(self, transaction, shard_hint)

    def client(self) -> Redis:
        """One connection of its own, as redis-py makes it."""
        return Redis(connection_pool=self.connection_pool, single_connection_client=True)

    def set_response_callback(self, command: str, callback: Any) -> None:
        super().set_response_callback(command, callback)
        self._known.clear()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """For good; what waits to be sent fails with NotSent, what waits for its reply with ReplyLost."""
        await self._line.close()
        await super().aclose(close_connection_pool)

    def pack(self, args: tuple[Any, ...]) -> bytes:
        """As `wire.pack`, also for the rarer types that redis-py takes and for names of several words; raises DataError for others."""
        words = (self._known.get(args[0]) or self._learn(args[0]))[1]
        encode = self.get_encoder().encode
        return pack(tuple(bytes(encode(arg)) for arg in (*(words or args[:1]), *args[1:])))

    def _learn(self, name: Any) -> tuple[bool, tuple[bytes, ...], Callable[..., Any] | None]:
        """What has to be known of a command's name: whether it may need its own connection, its words if several, its callback."""
        text = verbs.word(name)
        words = text.encode().split()
        first = text.partition(" ")[0]
        callback = self.response_callbacks.get(name) if isinstance(name, str) else None
        known = (first in verbs.APART or first in verbs.MAY_BLOCK, tuple(words) if len(words) > 1 else (), callback)
        self._known[name] = known
        return known

    # --- trying again ------------------------------------------------------------------------------------------------

    async def _shared(self, args: tuple[Any, ...]) -> Any:
        try:
            return await self._once(args)
        except AGAIN as error:
            return await self.again(error, lambda: self._once(args), repeatable=verbs.repeatable(args))

    async def _once(self, args: tuple[Any, ...]) -> Any:
        line = self._line
        if line.full:
            await line.room(size_of(args))  # nothing is packed before there is room
        try:
            reply = line.send(self._packed(args))
        except DataError:
            line.admit()
            raise
        return await reply

    def _packed(self, args: tuple[Any, ...]) -> bytes:
        try:
            return pack(args)
        except TypeError:
            return self.pack(args)

    async def send_block(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send several commands with nothing in between; their replies, errors among them. Nothing is tried again."""
        await self._line.room(sum(map(size_of, commands)))
        try:
            packed = b"".join(map(self.pack, commands))
        except DataError:
            self._line.admit()
            raise
        return list(await self._line.send_block(packed, len(commands)))

    async def again(self, error: Exception, attempt: Callable[[], Awaitable[Any]], *, repeatable: bool) -> Any:
        """Make an attempt that failed up to `retries` times again, if that is safe."""
        for tries in range(1, self.connection_pool.retries + 1):
            if self._line.closed or isinstance(error, AuthenticationError) or (isinstance(error, ReplyLost) and not repeatable):
                break
            if isinstance(error, Later | ReadOnlyError):
                # The connection is there; other failures are paced where it is made.
                await asyncio.sleep(self.connection_pool.pace.pause(tries))
            try:
                return await attempt()
            except AGAIN as failed:
                error = failed
        raise error

    async def _apart(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            return await self._alone(args, options)
        except AGAIN as error:
            if isinstance(error, NotSent) and not isinstance(error, Later):
                raise  # the pool has tried
            return await self.again(error, lambda: self._alone(args, options), repeatable=verbs.repeatable(args))

    async def _alone(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self._line.closed:
            raise NotSent("the client was closed")
        try:
            return await super().execute_command(*args, **options)
        except NotSent:
            raise
        except ReadOnlyError:
            await self.connection_pool.disconnect(inuse_connections=False)
            raise
        except (ConnectionError, TimeoutError, ResponseError) as error:
            if passes(error):
                raise Later(str(error)) from error
            if isinstance(error, ResponseError):
                raise
            raise ReplyLost(str(error)) from error
