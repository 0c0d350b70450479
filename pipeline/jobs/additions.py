"""Plain jobs on their way into a queue: those of one tick of the loop go to the store in one script."""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any

from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.jobs.plain import ADD_ALL
from pipeline.store.connection import Store
from pipeline.store.idempotency import SECONDS
from pipeline.store.scripts import Argument, composed, lua

ENQUEUE = composed(ADD_ALL + lua("pipeline.jobs", "enqueue.lua"), "addStandardJob")
TOGETHER, TOGETHER_BYTES = 64, 256 * 1024
"""Jobs, and bytes of their data; a script holds up everybody else's commands for as long as it takes."""


@dataclass(slots=True)
class Addition:
    """One job, and whoever waits for it to be there."""

    name: str
    data: bytes
    """JSON."""
    key: str
    """Its idempotency key, or ''."""
    record: str
    """What is kept under that key."""
    documents: tuple[str, str]
    """Keys of the records of documents that it names, or ''."""
    user: str
    """Whose they must be; '' for anybody's."""
    answer: "asyncio.Future[Any]"
    """The job's id, [the record of the first time], or the number (1, 2) of the document that it may not name."""


class Additions:
    """Collects the jobs that are added to one queue in a tick; each caller gets the answer to its own."""

    def __init__(self, redis: Store, queue: QueueKeys, *, options: bytes, once: str, seconds: int) -> None:
        """`options` are every job's, as JSON. Keys that begin with `once` remember a call for so many seconds."""
        self._redis = redis
        self._base = queue.base
        self._options = options
        self._once = once
        self._seconds = seconds
        self._waiting: list[Addition] = []
        self._sending: set[asyncio.Task[None]] = set()

    def add(self, name: str, data: bytes, *, key: str = "", record: str = "", documents: tuple[str, str] = ("", ""), user: str = "") -> Any:
        """A future of what became of one job: `Addition.answer`, or the store's error; then none of its call was accepted."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append(Addition(name, data, key, record, documents, user, answer))
        return answer

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        first, size = 0, 0
        for last, addition in enumerate(waiting, 1):
            size += len(addition.data)
            if last - first == TOGETHER or size > TOGETHER_BYTES or last == len(waiting):
                task = asyncio.get_running_loop().create_task(self._call(waiting[first:last]))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
                first, size = last, 0

    async def _call(self, additions: list[Addition]) -> None:
        keys = [self._once + uuid.uuid4().hex]
        args: list[Argument] = [self._base, now_ms(), self._options, self._seconds, SECONDS]
        for one in additions:
            keys += (one.key, *one.documents)
            args += (one.name, one.data, one.user, one.record)
        try:
            answers = await ENQUEUE(self._redis, keys, args)
        except BaseException as error:
            # Also a cancellation: whoever waits for an answer must learn that there will be none.
            for one in additions:
                if not one.answer.done():
                    one.answer.set_exception(error if isinstance(error, Exception) else ConnectionError("the addition was broken off"))
            if not isinstance(error, Exception):
                raise
            return
        for one, said in zip(additions, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(said)
