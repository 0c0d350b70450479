"""The webhooks package composed for tests: over the real log, with a clock that stands until it is moved."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio import Redis

from pipeline.filters import compile_filter
from pipeline.history import History
from pipeline.store.event import Event, event_id
from pipeline.store.group import Group
from pipeline.store.keys import Keys as PipelineKeys
from pipeline.store.log import Log
from webhooks import Webhooks, fanout
from webhooks.directory import Directory
from webhooks.fanout import Fanout
from webhooks.keys import Keys
from webhooks.mailbox import Mailbox
from webhooks.selecting import Filters

PREFIX = "t:webhooks"
T0 = 1_767_225_600_000


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> int:
        return self.now

    def forward(self, ms: int) -> None:
        self.now += ms


class Hooks:
    """One process's view; several over one store are several processes."""

    def __init__(self, redis: Redis, clock: Clock | None = None, *, consumer: str = "c", **options: Any) -> None:
        self.redis = redis
        self.clock = clock or Clock()
        self.keys = Keys(PREFIX)
        self.log = Log(redis, "t:log")
        self.group = Group(redis, "t:log", "webhooks", consumer)
        settings: dict[str, Any] = {"encryption_keys": [b"k" * 32], "allow_networks": ["127.0.0.0/8"], "schedule": (0, 1000, 5000)}
        self.webhooks = Webhooks(
            redis=redis,
            prefix=PREFIX,
            log=self.group,
            publish=self.publish,
            history=History(redis, PipelineKeys("t"), self.log, "webhooks"),
            filters=compile_filter,
            clock=self.clock,
            **(settings | options),
        )
        self.directory = Directory(redis, self.keys)
        self.fanout = Fanout(redis, self.keys, self.group, self.directory, Filters(compile_filter), settings["schedule"], self.clock)
        self.mailbox = Mailbox(redis, self.keys)

    async def publish(self, type: str, data: dict[str, Any], *, identity: Sequence[object]) -> None:
        await self.log.append([Event(id=event_id(type, *identity), type=type, timestamp=self.clock(), data=data)])

    async def event(self, type: str = "job.completed", n: object = 1, **data: Any) -> str:
        """Append one event; returns its id."""
        await self.publish(type, {"n": n, **data}, identity=[n])
        return event_id(type, n)

    async def endpoint(self, url: str = "http://127.0.0.1:9/", **more: Any) -> str:
        endpoint, _ = await self.webhooks.endpoints.create({"url": url, "types": ["*"], **more})
        return endpoint.id

    async def spread(self) -> int:
        """Fan out all that the log holds; returns how many deliveries there are of it."""
        await self.group.create()
        created = 0
        while True:
            made = await self.fanout.step(block_ms=1)
            created += made
            info = (await self.redis.xinfo_groups("t:log"))[0]
            if not info["lag"] and not info["pending"]:
                return created

    async def statuses(self) -> dict[str, str]:
        """Delivery → status, of all that there are."""
        page = await self.webhooks.deliveries.list(limit=1000)
        return {delivery.id: delivery.status.value for delivery in page.items}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Event]:
        """Both loops, drained at the end."""
        await self.group.create()
        # Stopping waits for a blocking read to end.
        fanout.BLOCK_MS = 20
        stop = asyncio.Event()
        tasks = [asyncio.create_task(self.webhooks.run_fanout(stop)), asyncio.create_task(self.webhooks.run_dispatcher(stop))]
        try:
            yield stop
        finally:
            stop.set()
            await asyncio.gather(*tasks)
