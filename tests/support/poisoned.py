"""Works on a queue whose first job kills its worker process each time; prints how many processes died until the queue was done.

A process of its own, without threads: it forks a worker for every round.
"""

import asyncio
import json
import os
import signal
import sys
from typing import Any

from pipeline.jobs.model import Context, Job
from tests.support.bench import Bench, config
from tests.support.events import events_until


async def deadly(job: Job, context: Context) -> Any:
    if job.data == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


async def work(url: str, ends: int) -> None:
    bench = Bench(url, config(concurrency=1))
    # The shipped limit of stalls; only the times are short.
    async with bench.working(deadly, lock_ms=60, stalled_ms=30):
        await events_until(bench.log, lambda told: len(told) >= ends, seconds=20)


def main(url: str, ends: int) -> None:
    deaths = 0
    while True:
        child = os.fork()
        if child == 0:
            asyncio.run(work(url, ends))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            print(json.dumps({"deaths": deaths, "exit": os.waitstatus_to_exitcode(status)}))
            return
        deaths += 1
        if deaths > 30:
            sys.exit("it circles for ever")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
