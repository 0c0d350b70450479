"""What the parts of one process share: a client of the store, and what is made over it."""

import asyncio
import base64
from typing import Any

from pipeline.config import Config
from pipeline.jobs.callbacks import Callbacks, Links
from pipeline.jobs.queues import Queues
from pipeline.store.connection import Store
from pipeline.store.keys import Keys
from pipeline.store.log import Log


class House:
    def __init__(self, config: Config, redis: Store, consumer: str) -> None:
        self.config = config
        self.redis = redis
        self.consumer = consumer
        self.keys = Keys(config.redis.prefix)
        self.log = Log(redis, self.keys.log)
        self.queues = Queues(redis, config)
        self.parts: list[asyncio.Task[None]] = []
        """What runs until it is told to stop."""

    def callbacks(self) -> Callbacks:
        return Callbacks(self.redis, prefix=self.config.redis.prefix, bull_prefix=self.config.bullmq.prefix)

    def links(self) -> Links:
        server = self.config.server
        return Links(server.public_url or f"http://{server.host}:{server.port}", self.encryption_keys())

    def encryption_keys(self) -> list[bytes]:
        return [base64.b64decode(key.get_secret_value()) for key in self.config.encryption_keys]


async def cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
