"""Runs the jobs of an isolated processor in warm child processes, which are killed when they overstep their limits."""

import asyncio
from collections import deque
from typing import Any

from pipeline.config import Config
from pipeline.errors import AttemptFailed
from pipeline.jobs.childprocess import ChildProcess
from pipeline.jobs.model import Context, Job
from pipeline.jobs.registry import Processor


class IsolatedPool:
    """At most `size` children of one processor; each is started when it is first needed, and then kept."""

    def __init__(self, processor: Processor, config: Config, size: int) -> None:
        self._processor = processor
        self._config = config
        self._slots = asyncio.Semaphore(size)
        self._idle: deque[ChildProcess] = deque()
        self._all: set[ChildProcess] = set()
        self._closed = False

    async def run(self, job: Job, context: Context) -> Any:
        """Do one attempt; `job.data` is plain JSON and checked in the child.

        Raises PermanentFailure for wrong data, for what the processor raises as such, and for an attempt that was killed because
        it took too long or too much memory: running it again would only take as long and as much. Raises AttemptFailed if the
        processor raised anything else or its process died. Cancelling the call, or `context.cancelled`, kills the child.
        """
        async with self._slots:
            while True:
                child = await self._take()
                fresh = child.jobs == 0
                try:
                    return await child.perform(job, context)
                except AttemptFailed:
                    # One that died while it was idle never saw the job, so the job is not the worse for it.
                    if fresh or child.accepted:
                        raise
                finally:
                    await self._give_back(child)

    async def warm(self) -> None:
        """Start one child beforehand, so that the first job does not wait for the processor's imports."""
        async with self._slots:
            try:
                child = await self._take()
            except AttemptFailed:
                if self._closed:
                    return  # killed by `close` while it started
                raise
            await self._give_back(child)

    async def close(self) -> None:
        """Kill the children, those at work included."""
        self._closed = True
        await asyncio.gather(*(child.end() for child in tuple(self._all)))
        self._all.clear()
        self._idle.clear()

    async def _take(self) -> "ChildProcess":
        while self._idle:
            # The one used last: its pages are still in memory.
            child = self._idle.pop()
            if child.usable:
                return child
            await self._forget(child)
        if self._closed:
            raise AttemptFailed(f"the pool of {self._processor.name} is closed")
        child = ChildProcess(self._processor)
        self._all.add(child)
        try:
            await child.start(self._config)
        except BaseException:
            await self._forget(child)
            raise
        return child

    async def _give_back(self, child: "ChildProcess") -> None:
        if child.usable and not self._closed:
            self._idle.append(child)
        else:
            await self._forget(child)

    async def _forget(self, child: "ChildProcess") -> None:
        await child.end()
        self._all.discard(child)
