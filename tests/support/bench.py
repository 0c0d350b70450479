"""A queue and its worker on a real store, in the test's own loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pipeline.config import Config
from pipeline.jobs.model import Context, Job
from pipeline.jobs.queues import Queues
from pipeline.jobs.registry import Processor
from pipeline.jobs.runner import Runner
from pipeline.jobs.worker import Worker
from pipeline.store import connection
from pipeline.store.log import Log
from tests.support.valkey import Valkey

QUEUE = "work"
LOG = "hookline:log"
Process = Callable[[Job, Context], Awaitable[Any]]


def config(**settings: Any) -> Config:
    return Config(queues={QUEUE: {"processors": {"do": "x:y"}, "backoff": {"type": "fixed", "delay": "20ms"}, **settings}})


class Bench:
    """A queue, a worker factory and the log over one store."""

    def __init__(self, url: str, settings: Config) -> None:
        self.url = url
        self.config = settings
        self.redis = connection.connect(url)
        self.blocking = connection.connect(url)
        self.queues = Queues(self.redis, settings)
        self.keys = self.queues.keys(QUEUE)
        self.log = Log(self.redis, LOG)

    def worker(self, process: Callable[..., Any], *, kind: Any = "async", **options: Any) -> Worker:
        processor = Processor(path="x:y", name="Doer", kind=kind, input=None, timeout=1000, memory=1 << 30, call=process)
        runner = Runner({"do": processor}, {}, concurrency=4)
        return Worker(self.redis, self.keys, self.config.queues[QUEUE], runner, log_key=LOG, name="w", **options)

    @contextlib.asynccontextmanager
    async def working(self, process: Callable[..., Any], **options: Any) -> AsyncIterator[Worker]:
        worker = self.worker(process, **options)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            await worker.stop(5)
            await task

    async def add(self, data: Any = None, name: str = "do") -> str:
        return (await self.queues.add(QUEUE, name, data)).job_id

    async def left_active(self) -> list[str]:
        return list(await self.redis.lrange(self.keys.key("active"), 0, -1))


@contextlib.asynccontextmanager
async def opened(valkey: Valkey, **settings: Any) -> AsyncIterator[Bench]:
    """One with these settings of its queue."""
    made = Bench(valkey.socket_url, config(**settings))
    try:
        yield made
    finally:
        await made.blocking.aclose()
        await made.redis.aclose()
