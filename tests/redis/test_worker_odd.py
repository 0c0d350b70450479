"""Odd things done to a worker: by its processors, by other clients to its jobs and its queue, by a log that cannot be written."""

import asyncio
import errno
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from bullmq import FlowProducer
from redis.asyncio import Redis
from redis.exceptions import DataError, NoPermissionError

from pipeline import logs
from pipeline.jobs import calls
from pipeline.jobs.calls import keep_jobs
from pipeline.jobs.model import Context, Job
from pipeline.store import connection
from pipeline.store.scripts import Script, stock
from tests.support.bench import QUEUE, Bench, config, opened
from tests.support.events import count, events_until
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey

ADD = Script(stock("addStandardJob"))


@pytest.fixture
async def bench(valkey: Valkey, redis: Redis) -> AsyncIterator[Bench]:
    async with opened(valkey, concurrency=2) as made:
        yield made


async def add(bench: Bench, data: Any = None, *, job_id: str = "", **opts: Any) -> str:
    """A job with BullMQ's options as another client gives them."""
    return str(await ADD(bench.redis, *calls.add_standard(bench.keys, name="do", data=data, opts={"attempts": 1, **opts}, job_id=job_id)))


async def test_a_processor_that_cancels_its_task_and_is_gone_costs_no_slot(bench: Bench) -> None:
    async def run(job: Job, context: Context) -> None:
        task = asyncio.current_task()
        assert task
        task.cancel()
        if job.data % 2:
            raise ValueError("odd")

    async with bench.working(run):
        for number in range(6):
            await add(bench, number)
        told = await events_until(bench.log, lambda events: len(events) == 6, seconds=5)
    assert sorted(event.type for event in told) == ["job.completed"] * 3 + ["job.failed"] * 3
    assert await bench.left_active() == []


async def test_a_job_that_is_given_a_parent_while_it_runs_frees_it(bench: Bench, valkey: Valkey) -> None:
    started, release = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    async def run(job: Job, context: Context) -> None:
        ran.append(job.id)
        if job.id == "child":
            started.set()
            await release.wait()

    flows = FlowProducer({"connection": Redis(unix_socket_path=str(valkey.socket), decode_responses=True, socket_timeout=None)})
    async with bench.working(run):
        await add(bench, job_id="child")
        await started.wait()
        child = {"name": "do", "queueName": QUEUE, "data": {}, "opts": {"jobId": "child"}}
        await flows.add({"name": "do", "queueName": QUEUE, "data": {}, "opts": {"jobId": "parent"}, "children": [child]})
        release.set()
        await events_until(bench.log, count("job.completed", 2), seconds=5)
    assert ran == ["child", "parent"]
    await flows.close()


async def test_jobs_of_one_batch_are_kept_as_each_asks(bench: Bench, redis: Redis) -> None:
    """To Python 0 and False are the same; to BullMQ one removes all and the other none."""
    async with bench.working(_nothing):
        async with redis.pipeline(transaction=True):
            ids = [await add(bench, number, removeOnComplete=number % 2 == 0 and 0) for number in range(20)]
        await events_until(bench.log, count("job.completed", 20), seconds=5)
    kept = [job_id for job_id in ids if await redis.exists(bench.keys.key(job_id))]
    assert kept == ids[1::2]


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        (True, {"count": 0}),
        (False, {"count": -1}),
        (None, {"count": -1}),
        (0, {"count": 0}),
        (3, {"count": 3}),
        ("3", {"count": 3}),
        ({"count": "5"}, {"count": 5}),
        ({"count": 2.5, "age": 1}, {"count": 2, "age": 1}),
        ({"age": "yesterday", "limit": 1.5}, {"count": -1}),
        ({"age": 3600, "limit": "many"}, {"age": 3600}),
        ({"count": float("inf")}, {"count": -1}),
        ({"count": 1e300, "age": 1e300}, {"count": -1}),
        ({"count": False}, {"count": -1}),
        ([], {"count": -1}),
    ],
)
def test_what_is_to_be_kept_is_always_numbers(option: Any, wanted: dict[str, int]) -> None:
    assert keep_jobs(option) == wanted


async def test_a_job_with_an_odd_limit_of_its_stack_traces_fails_like_any_other(bench: Bench) -> None:
    async with bench.working(_fail):
        for limit in ("10", 1.5, None):
            await add(bench, stackTraceLimit=limit)
        await events_until(bench.log, count("job.failed", 3), seconds=5)


async def test_a_job_that_is_no_utf8_costs_no_other(bench: Bench, redis: Redis) -> None:
    async with bench.working(_nothing) as worker:
        assert worker
        ids = [await add(bench, number, job_id=f"j{number}") for number in range(4)]
        await redis.hset(bench.keys.key("odd"), mapping={"name": "do", "data": b'"\xff"', "opts": "{}", "timestamp": 1})
        await redis.lpush(bench.keys.key("wait"), "odd")
        await redis.zadd(bench.keys.key("marker"), {"0": 0})
        told = await events_until(bench.log, count("job.completed", 5), seconds=5)
    assert {event.data["jobId"] for event in told} == {*ids, "odd"}


async def test_large_jobs_come_a_few_at_a_time_and_all_come(bench: Bench, redis: Redis) -> None:
    many = Bench(bench.url, config(concurrency=64))
    for _ in range(24):
        await add(many, "x" * (1 << 20))
    await redis.config_resetstat()
    async with many.working(_nothing):
        await events_until(many.log, count("job.completed", 24), seconds=20)
    fetched = (await redis.info("commandstats"))["cmdstat_lpush"]["calls"]
    assert fetched >= 3, "all in one answer"
    await many.blocking.aclose()
    await many.redis.aclose()


class Full(io.StringIO):
    """What a full disk says."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_log_that_cannot_be_written_stops_no_work(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    logs.configure("json")
    try:
        async with bench.working(_fail_odd):
            for number in range(20):
                await add(bench, number)
            told = await events_until(bench.log, lambda events: len(events) == 20, seconds=10)
    finally:
        structlog.reset_defaults()
        logs._json = False
        monkeypatch.undo()
    assert len({event.id for event in told}) == 20


async def test_a_stop_keeps_its_deadline_while_the_store_stands_still(tmp_path: Path) -> None:
    with Valkey(tmp_path / "store") as server:
        bench = Bench(server.socket_url, config())
        started, told = asyncio.Event(), asyncio.Event()

        async def run(job: Job, context: Context) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                told.set()

        worker = bench.worker(run)
        task = asyncio.create_task(worker.run())
        await bench.add()
        await started.wait()
        assert server._process
        os.kill(server._process.pid, signal.SIGSTOP)
        try:
            await asyncio.wait_for(worker.stop(0.2), 5)
            await asyncio.wait_for(told.wait(), 5)
        finally:
            os.kill(server._process.pid, signal.SIGCONT)
        await asyncio.wait_for(task, 10)
        assert await bench.left_active() == []
        assert await bench.redis.llen(bench.keys.key("wait")) == 1
        await bench.blocking.aclose()
        await bench.redis.aclose()


async def test_a_wait_for_markers_that_is_refused_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.jobs.markers.AGAIN_SECONDS", 0.1)
    refused, bzpopmin = asyncio.Event(), bench.redis.bzpopmin

    async def once(*arguments: Any) -> Any:
        if not refused.is_set():
            refused.set()
            raise NoPermissionError("NOPERM this user has no permissions to run the 'bzpopmin' command")
        return await bzpopmin(*arguments)

    monkeypatch.setattr(bench.redis, "bzpopmin", once)
    async with bench.working(_nothing):
        await refused.wait()
        await add(bench)
        await events_until(bench.log, count("job.completed", 1), seconds=3)


async def test_upkeep_that_ends_ends_the_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Better a process that is started again than a worker that only looks alive."""
    worker = bench.worker(_nothing)

    async def end() -> None:
        raise RuntimeError("no locks any more")

    monkeypatch.setattr(worker._slots.locks, "run", end)
    with pytest.raises(RuntimeError, match="no locks"):
        await asyncio.wait_for(worker.run(), 5)


async def test_a_command_that_cannot_be_packed_lets_in_those_who_wait_for_room(valkey: Valkey) -> None:
    async with Proxy(valkey.port) as proxy:
        redis = connection.connect(proxy.url)
        await redis.ping()
        proxy.requests.clear()
        large = "x" * (5 << 20)
        commands = [redis.set(f"k{number}", large) for number in range(3)] + [redis.set(large, None), redis.set("after", large)]
        tasks = [asyncio.create_task(command) for command in commands]
        await asyncio.wait(tasks, timeout=0.1)
        proxy.requests.set()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert [type(one) for one in found] == [bool, bool, bool, DataError, bool]
        assert await asyncio.wait_for(redis.ping(), 5)
        await redis.aclose()


async def _nothing(job: Job, context: Context) -> None: ...


async def _fail(job: Job, context: Context) -> None:
    raise RuntimeError("no luck")


async def _fail_odd(job: Job, context: Context) -> None:
    if job.data % 2:
        raise RuntimeError("odd")
