"""Jobs in a queue, the same for both sides: filled in by BullMQ's own script, held by a pause, let go and waited for."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pipeline.jobs import calls
from pipeline.jobs.calls import QueueKeys
from pipeline.store.scripts import Script, composed, stock

FILL = composed("for number = 1, tonumber(ARGV[4]) do addStandardJob(KEYS, ARGV) end", "addStandardJob")
PAUSE = Script(stock("pause"))
PART = 1000
"""Jobs a script, so that the store goes on answering meanwhile."""
DATA = {"documentId": "doc-1", "userId": "user-1", "filename": "report.pdf", "mimeType": "application/pdf", "fileSize": 12345}
KEEPS: dict[str, Any] = {"removed": True, "keep 100": {"count": 100}}
"""What happens to a job that is done: BullMQ's `removeOnComplete`."""


def options(keep: str) -> dict[str, Any]:
    """A job's options, which both sides obey."""
    return {"attempts": 3, "backoff": {"type": "exponential", "delay": 2000}, "removeOnComplete": KEEPS[keep], "removeOnFail": {"count": 50}}


async def fill(redis: Any, queue: QueueKeys, count: int, keep: str) -> None:
    keys, args = calls.add_standard(queue, name="do", data=DATA, opts=options(keep))
    while count > 0:
        await FILL(redis, keys, [*args, min(count, PART)])
        count -= PART


async def pause(redis: Any, queue: QueueKeys) -> None:
    await PAUSE(redis, queue.keys("wait", "paused", "meta", "prioritized", "events", "delayed", "marker"), ["paused", "1"])


async def resume(redis: Any, queue: QueueKeys) -> None:
    await PAUSE(redis, queue.keys("paused", "wait", "meta", "prioritized", "events", "delayed", "marker"), ["resumed", "1"])


async def left(redis: Any, *queues: QueueKeys) -> int:
    """Jobs that are not done."""
    pipe = redis.pipeline(transaction=False)
    for queue in queues:
        pipe.llen(queue.key("wait")).llen(queue.key("active")).zcard(queue.key("delayed")).zcard(queue.key("waiting-children"))
    return int(sum(await pipe.execute()))


async def until_done(redis: Any, *queues: QueueKeys, seconds: float = 120.0) -> None:
    """Returns when nothing is left. Raises TimeoutError, or RuntimeError if a job failed: then the figures would be of something else."""
    await until(lambda: left(redis, *queues), seconds=seconds)
    failed = sum([int(await redis.zcard(queue.key("failed"))) for queue in queues])
    if failed:
        raise RuntimeError(f"{failed} jobs failed")


async def until(remaining: Callable[[], Awaitable[int]], *, seconds: float = 120.0) -> None:
    """Returns when nothing remains. Raises TimeoutError."""
    whole = await remaining()
    deadline = time.monotonic() + seconds
    while (now := await remaining()) > 0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{now} of {whole} were not done within {seconds} s")
        # Asking costs the store and a core a little: seldom at first, often when the end is near.
        await asyncio.sleep(0.02 if now > whole / 10 else 0.002)
