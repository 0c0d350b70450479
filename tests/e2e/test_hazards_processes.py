"""Hazards of real processes: a worker killed, and a store that is away for a second, ten, a minute; with the settings that are shipped."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.jobs import calls
from pipeline.jobs.queues import Queues
from pipeline.store import connection
from pipeline.store.log import Log
from pipeline.store.scripts import Script, stock
from tests.support import soak
from tests.support.chains import queue
from tests.support.events import count, events_until
from tests.support.service import Service
from tests.support.valkey import Valkey

LEAD = 4.0
"""Seconds that a machine has, be it slow, to bring jobs into each state before the store is killed."""
OUTAGES = [1, 10, *([60] if soak.FULL else [])]
ADD_STANDARD, ADD_DELAYED = Script(stock("addStandardJob")), Script(stock("addDelayedJob"))
QUEUES: dict[str, Any] = {
    "work": queue(concurrency=4),
    "retry": queue("fail_once", concurrency=20),
    "hold": queue("wait_for_ever"),
}


class Worked:
    """A service of workers over a store of its own, and what a producer sees of it."""

    def __init__(self, folder: Path, server: Valkey) -> None:
        self.folder = folder
        self.server = server
        settings = {"queues": QUEUES, "server": {"drain": "1s"}}
        self.service = Service(folder, settings, role="worker", workers=2, environment={"REDIS_URL": server.url})
        self.redis = connection.connect(server.url)
        self.queues = Queues(self.redis, Config(queues=QUEUES))
        self.log = Log(self.redis, "hookline:log")

    async def add(self, name: str, *, delay: int = 0, ms: int = 0, **opts: Any) -> None:
        keys = self.queues.keys(name)
        opts = {"attempts": 3, **opts, **({"delay": delay} if delay else {})}
        plain, args = calls.add_standard(keys, name="do", data={"ms": ms}, opts=opts)
        if delay:
            await ADD_DELAYED(self.redis, keys.keys("marker", "meta", "id", "delayed", "completed", "events"), args)
        else:
            await ADD_STANDARD(self.redis, plain, args)

    def ledger(self, what: str) -> list[tuple[str, ...]]:
        path = self.folder / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return [tuple(line.split()[1:]) for line in lines if line.startswith(f"{what} ")]

    async def begun(self, number: int, *, seconds: float = 30) -> None:
        """Wait until so many attempts have begun (a file has no signal to wait for)."""
        async with asyncio.timeout(seconds):
            while len(self.ledger("begin")) < number:  # noqa: ASYNC110  a file has no signal
                await asyncio.sleep(0.005)


@pytest.mark.soak
@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.timeout(240)
async def test_an_outage_of_the_store_loses_strands_and_repeats_no_job(tmp_path: Path, outage: int) -> None:
    with Valkey(tmp_path / "store", appendfsync="always") as server:
        worked = Worked(tmp_path, server)
        async with contextlib.aclosing(worked.redis), worked.service:
            running, waiting, delayed, retrying = 8, 24, 16, 16
            spread, away = outage * 1000 // 10, round(LEAD * 1000) + 200
            at = time.monotonic() + LEAD
            for number in range(running):  # half of them end while the store is away, half afterwards
                await worked.add("work", ms=away if number % 2 else away + outage * 1000)
            for number in range(retrying):
                await worked.add("retry", backoff={"type": "fixed", "delay": away + number * spread})
            for number in range(delayed):
                await worked.add("work", delay=away + number * spread, ms=5)
            for _ in range(waiting):
                await worked.add("work", ms=5)
            await worked.begun(running + retrying)
            async with asyncio.timeout(10):
                while await worked.redis.zcard(worked.queues.keys("retry").key("delayed")) < retrying:
                    await worked.redis.ping()
            await asyncio.sleep(at - time.monotonic())  # the instant is what is tested: ends, delays and retries are due while the store is away
            # The kill must find jobs in each state.
            left = {name: await worked.queues.counts(name) for name in ("work", "retry")}
            began = len(worked.ledger("begin"))
            server.kill()
            await asyncio.sleep(outage)  # how long it is away is what is tested
            server.start()
            back = time.monotonic()
            await worked.begun(began + 1)
            first = time.monotonic() - back
            total = running + waiting + delayed + retrying
            told = await events_until(worked.log, count("job.completed", total), seconds=60)
            all_done = time.monotonic() - back
            at_rest = {name: await worked.queues.counts(name) for name in left}
        again = Counter(worked.ledger("begin"))
        lines = [
            f"outage of {outage} s: at the kill {left['work']['active']} active, {left['work']['waiting']} waiting, "
            f"{left['work']['delayed']} delayed, {left['retry']['delayed']} between attempts",
            f"first attempt {first:.2f} s after the store was back, all {total} jobs completed after {all_done:.2f} s; "
            f"executed more than once: {sum(times > 1 for times in again.values())}",
        ]
        soak.report(f"outage of the store, {outage} s", lines)
        assert min(left["work"]["active"], left["work"]["waiting"], left["work"]["delayed"], left["retry"]["delayed"]) > 0
        ends = [event for event in told if event.type != "job.progress"]
        assert [event.type for event in ends] == ["job.completed"] * total, "each is told once, and nothing else"
        assert len({event.id for event in ends}) == total
        assert set(again.values()) == {1}, "an attempt was executed again, though no worker died"
        assert len(again) == total + retrying
        for counts in at_rest.values():
            assert {counts[state] for state in ("waiting", "active", "delayed", "prioritized", "failed")} == {0}
        assert first < 6


@pytest.mark.timeout(90)
async def test_the_jobs_of_a_worker_killed_with_kill_9_are_begun_again_within_15_s(tmp_path: Path) -> None:
    """The stock settings take 60 s."""
    with Valkey(tmp_path / "store", appendfsync="always") as server:
        worked = Worked(tmp_path, server)
        async with contextlib.aclosing(worked.redis), worked.service:
            jobs = 5
            for _ in range(jobs):
                await worked.add("hold")
            await worked.begun(jobs)
            holders = Counter([await worked.redis.hget(worked.queues.keys("hold").key(str(number)), "pb") for number in range(1, jobs + 1)])
            victim, held = holders.most_common(1)[0]
            os.kill(int(victim.split(":")[1]), signal.SIGKILL)
            killed = time.monotonic()
            await worked.begun(jobs + held, seconds=25)
            took = time.monotonic() - killed
            print(f"kill -9 of a worker with {held} jobs: all begun again after {took:.1f} s")
        again = Counter(worked.ledger("begin"))
        assert took < 15
        assert sum(times - 1 for times in again.values()) == held, "others' jobs were run again"
