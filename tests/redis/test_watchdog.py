"""A loop that stands still is reported with the processor that holds it; a plain `def` cannot do that."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog

from pipeline.jobs.model import Context, Job
from pipeline.jobs.watchdog import Watchdog
from tests.support.bench import Bench
from tests.support.events import count, events_until


def blocked(logs: list[Any]) -> list[Mapping[str, Any]]:
    return [line for line in logs if line["event"] == "event loop blocked"]


async def test_an_async_processor_that_blocks_is_named(bench: Bench) -> None:
    async def rude(job: Job, context: Context) -> None:
        time.sleep(2)  # noqa: ASYNC251 -- the fault under test

    with structlog.testing.capture_logs() as logs, Watchdog():
        async with bench.working(rude):
            job_id = await bench.add()
            await events_until(bench.log, count("job.completed", 1))
    (report,) = blocked(logs)
    assert (report["processor"], report["queue"], report["jobId"]) == ("Doer", "work", job_id)
    assert "time.sleep(2)" in report["stack"]


async def test_a_plain_def_does_not_block(bench: Bench) -> None:
    release = threading.Event()

    def slow(job: Job, context: Any) -> str:
        release.wait(20)
        return "done"

    with structlog.testing.capture_logs() as logs, Watchdog(limit=5):
        async with bench.working(slow, kind="thread"):
            await bench.add()
            for _ in range(200):  # the loop answers all the while
                await bench.redis.ping()
            release.set()
            await events_until(bench.log, count("job.completed", 1))
    assert blocked(logs) == []
