"""A pipeline on the shared connection: its commands go out as one piece, a transaction's from MULTI to EXEC."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from redis.asyncio.client import Pipeline
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import ExecAbortError, ReadOnlyError, ResponseError, WatchError

from pipeline.store import verbs
from pipeline.store.wire import Later, NotSent, ReplyLost


class Replies:
    """The slot of several commands: gathers their replies, errors among them, for one future."""

    __slots__ = ("_expected", "_future", "_replies")

    def __init__(self, expected: int, future: "asyncio.Future[list[Any]]") -> None:
        self._expected = expected
        self._future = future
        self._replies: list[Any] = []

    def done(self) -> bool:
        return self._future.done()

    def cancelled(self) -> bool:
        return self._future.cancelled()

    def set_result(self, reply: Any) -> None:
        self._replies.append(reply)
        if len(self._replies) == self._expected:
            self._future.set_result(self._replies)

    def set_exception(self, error: BaseException) -> None:
        if isinstance(error, NotSent | ReplyLost) and not isinstance(error, Later):
            self._future.set_exception(error)
        else:
            self.set_result(error)


class Sharing(Protocol):
    """What a block needs of its client."""

    connection_pool: Any
    response_callbacks: Any

    async def send_block(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]: ...
    async def again(self, error: Exception, attempt: Callable[[], Awaitable[Any]], *, repeatable: bool) -> Any: ...
    async def execute_command(self, *args: Any, **options: Any) -> Any: ...


class Block(Pipeline):
    """redis-py's pipeline; one that WATCHes, or has commands that need a connection of their own, uses the pool as redis-py does.

    Sent again like a single command: always if it was not run, after a lost reply only if each of its commands may be repeated.
    """

    def __init__(self, client: Sharing, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack = self.command_stack
        if self.watching or self.connection or any(verbs.apart(args) or NEVER_DECODE in options for args, options in stack):
            return list(await super().execute(raise_on_error))
        if not stack:
            return []
        try:
            if self.scripts:
                await self.load_scripts()
            transaction = self.is_transaction or self.explicit_transaction
            replies = await (self._transaction() if transaction else self._plain())
            if raise_on_error:
                for number, (reply, (args, _)) in enumerate(zip(replies, stack, strict=True), 1):
                    if isinstance(reply, Exception):
                        self.annotate_exception(reply, number, args)
                        raise reply
            return [await self._parsed(reply, args, options) for reply, (args, options) in zip(replies, stack, strict=True)]
        finally:
            await self.reset()

    async def load_scripts(self) -> None:
        """Make the scripts that redis-py registered with this pipeline known to the store."""
        for script in self.scripts:
            await self._client.execute_command("SCRIPT LOAD", script.script)

    async def _plain(self) -> list[Any]:
        commands = [args for args, _ in self.command_stack]
        repeatable = all(map(verbs.repeatable, commands))

        async def attempt() -> list[Any]:
            replies = await self._client.send_block(commands)
            refusals = [reply for reply in replies if isinstance(reply, Later | ReadOnlyError)]
            if refusals and (repeatable or len(refusals) == len(replies)):
                raise refusals[0]
            return replies

        return await self._tried(attempt, repeatable)

    async def _transaction(self) -> list[Any]:
        stack = self.command_stack
        sent = [args for args, options in stack if EMPTY_RESPONSE not in options]

        async def attempt() -> list[Any]:
            opened, *queued, executed = await self._client.send_block([("MULTI",), *sent, ("EXEC",)])
            faults = [opened] if isinstance(opened, Exception) else []
            for number, (reply, args) in enumerate(zip(queued, sent, strict=True), 1):
                if isinstance(reply, Exception):
                    self.annotate_exception(reply, number, args)
                    faults.append(reply)
            if isinstance(executed, Exception):
                # The store runs nothing of a transaction of which it refused a command; that one says why.
                if faults and isinstance(executed, ExecAbortError):
                    raise faults[0] from executed
                raise executed
            if executed is None:
                raise WatchError("Watched variable changed.")
            return list(executed)

        replies = await self._tried(attempt, all(map(verbs.repeatable, sent)))
        for place, (_, options) in enumerate(stack):
            if EMPTY_RESPONSE in options:
                replies.insert(place, options[EMPTY_RESPONSE])
        if len(replies) != len(stack):
            raise ResponseError("Wrong number of response items from pipeline execution")
        return replies

    async def _tried(self, attempt: Callable[[], Awaitable[list[Any]]], repeatable: bool) -> list[Any]:
        try:
            return await attempt()
        except (NotSent, ReplyLost, ReadOnlyError) as error:
            return list(await self._client.again(error, attempt, repeatable=repeatable))

    async def _parsed(self, reply: Any, args: Any, options: Mapping[str, Any]) -> Any:
        if isinstance(reply, Exception) or args[0] not in self.response_callbacks:
            return reply
        options = {name: value for name, value in options.items() if name not in ("keys", EMPTY_RESPONSE)}
        result = self.response_callbacks[args[0]](reply, **options)
        return await result if hasattr(result, "__await__") else result
