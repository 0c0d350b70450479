"""Hazards of connections: many callers at once, connections that break, a reply lost at an addition, a store of the wrong kind."""

import asyncio
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.jobs.additions import ENQUEUE
from pipeline.jobs.model import Context, Job
from pipeline.store import connection
from tests.support.bench import Bench, config
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey


async def test_500_additions_at_once_need_one_connection(bench: Bench) -> None:
    """redis-py's pool raises MaxConnectionsError beyond 100."""
    before = len(await bench.redis.client_list())
    ids = await asyncio.gather(*(bench.add(number) for number in range(500)))
    assert len(set(ids)) == 500
    assert len(await bench.redis.client_list()) <= before + 1


async def test_connections_that_break_again_and_again_are_replaced_and_not_added_to(valkey: Valkey, bench: Bench) -> None:
    """Each of the stock worker's reconnections once left a connection behind."""
    ran: list[Any] = []

    async def run(job: Job, context: Context) -> None:
        ran.append(job.data)

    async def open_now() -> int:
        return len(await bench.redis.client_list()) - before

    async with Proxy(valkey.port) as proxy:
        far = Bench(proxy.url, config())
        before = len(await bench.redis.client_list())
        async with far.working(run):
            most = 0
            for number in range(8):
                await bench.add(number)
                async with asyncio.timeout(10):
                    while len(ran) <= number:
                        await bench.redis.ping()
                most = max(most, await open_now())
                proxy.drop()
        await far.redis.aclose()
        await far.blocking.aclose()
    assert ran == list(range(8))
    assert most <= 4, "one for commands, one to wait with, and what the store has not yet seen go"
    assert proxy.connections <= 3 * 8


async def test_a_redis_cluster_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """BullMQ's scripts build keys that a cluster would look for elsewhere."""
    info = {**await bench.redis.info(), "cluster_enabled": 1}

    async def told() -> dict[str, Any]:
        return info

    monkeypatch.setattr(bench.redis, "info", told)
    with pytest.raises(ConfigError, match="Redis Cluster"):
        await connection.check(bench.redis, owner="hookline", bull_prefix="bull")


async def test_a_reply_lost_at_an_addition_adds_each_job_once(valkey: Valkey, bench: Bench) -> None:
    """The stock client sends an addition again, and the job is there twice."""
    await bench.redis.script_load(ENQUEUE.source)
    async with Proxy(valkey.port) as proxy:
        far = Bench(proxy.url, config())
        proxy.swallow = ENQUEUE.sha.encode()
        adding = asyncio.gather(*(far.add("once") for _ in range(3)))
        async with asyncio.timeout(5):
            while not await bench.redis.llen(bench.keys.key("wait")):
                await bench.redis.ping()
        proxy.drop()
        proxy.replies.set()
        ids = await adding
        await far.redis.aclose()
        await far.blocking.aclose()
    assert await bench.redis.lrange(bench.keys.key("wait"), 0, -1) == ids[::-1]
