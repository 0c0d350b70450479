"""Adds jobs or starts runs as the API does and says how long that took: the counterpart of node/producer.js.

python -m benchmarks.producer '{"url", "how": "one" | "hundred" | "bulk" | "runs" | "paced", "count", "warmup"}' prints {"seconds", "cpu"}.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.hookline import QUEUE, config
from benchmarks.jobs import DATA
from pipeline.config import Config
from pipeline.jobs.queues import Queues
from pipeline.store import connection
from pipeline.store.keys import Keys
from pipeline.workflows.definition import compile_all
from pipeline.workflows.definitions import Definitions
from pipeline.workflows.runs import Runs
from pipeline.workflows.transitions import Transitions

AT_ONCE = {"one": 1, "hundred": 100, "bulk": 1000, "runs": 200, "paced": 1}
PER_SECOND = 100
"""Runs, one after the other, where they are paced."""


def _adder(how: str, redis: Any) -> Callable[[int], Awaitable[Any]]:
    settings = Config(**config(10))
    queues = Queues(redis, settings)
    if how not in ("runs", "paced"):
        return lambda number: queues.add(QUEUE, "do", DATA | {"documentId": f"doc-{number}"})
    keys = Keys(settings.redis.prefix)
    definitions = Definitions(redis, keys, compile_all(settings))
    runs = Runs(redis, keys, queues, definitions, Transitions(redis, keys, queues, definitions))
    return lambda number: runs.start("chain", DATA | {"documentId": f"doc-{number}"}, user_id="user-1")


async def main(url: str, how: str, count: int, warmup: int) -> None:
    redis = connection.connect(url)
    add, at_once = _adder(how, redis), AT_ONCE[how]

    async def added(total: int) -> None:
        started = time.perf_counter()
        for first in range(0, total, at_once):
            if how == "paced":
                await asyncio.sleep(started + first / PER_SECOND - time.perf_counter())
            await asyncio.gather(*(add(number) for number in range(first, min(first + at_once, total))))

    await added(warmup)
    begun, used = time.perf_counter(), time.process_time()
    await added(count)
    print(json.dumps({"seconds": time.perf_counter() - begun, "cpu": time.process_time() - used}))
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
