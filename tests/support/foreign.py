"""A foreign BullMQ worker in miniature: the stock scripts and nothing of ours, so that no event is appended."""

from typing import Any

from redis.asyncio import Redis

from pipeline.jobs import calls
from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.store.scripts import Script, stock
from tests.support.jobs import take

FINISH = Script(stock("moveToFinished"))
TOKEN = "foreign"


class Foreign:
    """Takes and ends the jobs of one queue, one by one."""

    def __init__(self, redis: Redis, queue: str) -> None:
        self._redis = redis
        self.keys = QueueKeys("bull", queue)

    async def take(self) -> str:
        """The next job's id; it is active and locked from now on."""
        fetched = await take(self._redis, self.keys, TOKEN, lock_ms=30_000)
        assert fetched
        return fetched.job_id

    async def end(self, job_id: str, result: str = "null", *, error: str | None = None, at: int | None = None, keep: Any = False) -> None:
        """As Node ends a job: `result` is what it wrote, `at` what its clock said, `keep` the job's removeOnComplete or removeOnFail."""
        call = calls.move_to_finished(
            self.keys,
            job_id=job_id,
            token=TOKEN,
            completed=error is None,
            value=result if error is None else error,
            keep=keep,
            attempts=3,
            attempts_made=1,
            opts={},
            now=at or now_ms(),
        )
        assert await FINISH(self._redis, *call) == 0

    async def do(self, result: str = "null", **more: Any) -> str:
        job_id = await self.take()
        await self.end(job_id, result, **more)
        return job_id
