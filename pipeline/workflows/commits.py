"""Commits of transitions: those of one tick of the loop go to the store in one script."""

import asyncio
from typing import Any

from redis.exceptions import ResponseError

from pipeline.jobs.queues import ADD
from pipeline.store.connection import Store
from pipeline.store.scripts import Argument, composed, lua

ADVANCE = f"local function advance(KEYS, ARGV)\n{lua('pipeline.workflows', 'advance.lua')}\nend\n"
COMMIT = composed(ADD + ADVANCE + lua("pipeline.workflows", "commits.lua"), "addStandardJob", "removeJob")
TOGETHER = 32
"""Transitions; a script holds up everybody else's commands for as long as it takes."""


class Commits:
    """Collects the commits of a tick; each caller gets the answer to its own."""

    def __init__(self, redis: Store) -> None:
        self._redis = redis
        self._waiting: list[tuple[list[str], list[Argument], asyncio.Future[bool]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def commit(self, keys: list[str], args: list[Argument]) -> bool:
        """One transition, with the keys and arguments of advance.lua; False if somebody else moved the run meanwhile.

        Raises the store's errors, and ResponseError for one of the script: then the run has not moved.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append((keys, args, answer))
        return await answer

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), TOGETHER):
            task = asyncio.get_running_loop().create_task(self._call(waiting[first : first + TOGETHER]))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _call(self, commits: list[tuple[list[str], list[Argument], asyncio.Future[bool]]]) -> None:
        keys = [key for keys, _, _ in commits for key in keys]
        args = [arg for _, args, _ in commits for arg in args]
        try:
            answers: list[Any] = await COMMIT(self._redis, keys, args)
        except BaseException as error:
            # Also a cancellation: whoever waits for an answer must learn that there will be none.
            for _, _, answer in commits:
                if not answer.done():
                    answer.set_exception(error if isinstance(error, Exception) else ConnectionError("the commit was broken off"))
            if not isinstance(error, Exception):
                raise
            return
        for (_, _, answer), said in zip(commits, answers, strict=True):
            if answer.done():
                continue
            if isinstance(said, str):
                answer.set_exception(ResponseError(said))
            else:
                answer.set_result(bool(said))
