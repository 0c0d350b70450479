"""The store's client when the store answers that it cannot, or is no longer the one to ask: it waits, or asks the right one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError, RedisError

from pipeline.store import wire
from pipeline.store.connection import connect
from pipeline.store.scripts import Script
from pipeline.store.wire import Later, NotSent
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey, free_port

APPEND = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])")


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Valkey]:
    # While it loads, it answers after each 1,024 bytes.
    options = ["--enable-debug-command", "yes", "--loading-process-events-interval-bytes", "1024"]
    with Valkey(tmp_path / "own", appendfsync="always", options=options) as server:
        yield server


class Codes(set[str]):
    """Codes of error replies, which can be waited for."""

    def __init__(self) -> None:
        self._more = asyncio.Event()

    def note(self, code: str) -> None:
        self.add(code)
        self._more.set()

    async def until(self, code: str) -> None:
        while code not in self:
            self._more.clear()
            await self._more.wait()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Codes:
    """The codes of the error replies of connections made from now on."""
    codes = Codes()
    error_of = wire.error_of

    def noted(message: str) -> Exception:
        codes.note(message.split(" ")[0])
        return error_of(message)

    monkeypatch.setattr(wire, "error_of", noted)
    return codes


async def test_a_loading_store_is_waited_for(own: Valkey, seen: Codes) -> None:
    redis = connect(own.url)
    await redis.config_set("key-load-delay", 1000)  # µs
    pipe = redis.pipeline(transaction=False)
    for n in range(400):
        pipe.set(f"k{n}", n)
    await pipe.execute()
    other = connect(own.url)
    await other.ping()
    loading = asyncio.ensure_future(other.execute_command("DEBUG", "RELOAD"))
    await asyncio.sleep(0)
    results = await asyncio.gather(redis.incr("n"), redis.get("k7"), redis.pipeline().incr("m").execute(), redis.pipeline(False).get("k8").execute())
    assert results == [1, "7", [1], ["8"]]
    await loading
    assert "LOADING" in seen
    await redis.aclose()
    await other.aclose()


async def test_a_replica_without_its_primary_is_waited_for(own: Valkey, seen: Codes) -> None:
    redis = connect(own.url)
    await redis.config_set("replica-serve-stale-data", "no")
    await redis.replicaof("127.0.0.1", free_port())
    reads = asyncio.gather(redis.get("k"), redis.pipeline().get("k").execute())
    await seen.until("MASTERDOWN")
    await redis.execute_command("REPLICAOF", "NO", "ONE")
    assert await reads == [None, [None]]
    assert "MASTERDOWN" in seen
    await redis.aclose()


async def test_a_store_that_lacks_replicas_is_waited_for_and_then_said_to_have_run_nothing(own: Valkey) -> None:
    redis = connect(own.url, retries=1)
    await redis.config_set("min-replicas-to-write", 1)
    for call in (redis.incr("n"), APPEND(redis, ["list"], ["x"]), redis.pipeline().incr("n").execute()):
        with pytest.raises(Later, match="NOREPLICAS"):
            await call
    assert issubclass(Later, NotSent)
    await redis.config_set("min-replicas-to-write", 0)
    assert await redis.incr("n") == 1
    await redis.aclose()


async def test_a_store_busy_with_a_script_is_waited_for(own: Valkey, seen: Codes) -> None:
    redis, other = connect(own.url), connect(own.url)
    await redis.config_set("busy-reply-threshold", 1)
    await other.ping()
    long = asyncio.ensure_future(other.eval("local t = redis.call('TIME') repeat local n = redis.call('TIME') until n[1] - t[1] > 1", 0))

    async def ask() -> object:
        # Again, should the first have come before the script.
        while True:
            value = await redis.get("k")
            if "BUSY" in seen:
                return value

    value = asyncio.ensure_future(ask())
    await seen.until("BUSY")
    await redis.execute_command("SCRIPT KILL")
    assert await value is None
    assert isinstance((await asyncio.gather(long, return_exceptions=True))[0], RedisError)
    await redis.aclose()
    await other.aclose()


async def test_a_primary_that_became_a_replica_is_left(own: Valkey, seen: Codes) -> None:
    redis = connect(own.url, retries=2)
    first = await redis.info("clients") and set(redis._line._wires)
    await redis.replicaof("127.0.0.1", free_port())
    outcomes = await asyncio.gather(redis.incr("n"), redis.get("k"), redis.pipeline().incr("n").execute(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ReadOnlyError, type(None), ReadOnlyError]
    assert not first & redis._line._wires
    seen.clear()
    # A failover that ends within the time of the retries is not noticed.
    pending = asyncio.gather(redis.incr("n"), APPEND(redis, ["list"], ["x"]), redis.pipeline().incr("n").execute(), redis.blmove("a", "b", 0.01))
    await seen.until("READONLY")
    await redis.execute_command("REPLICAOF", "NO", "ONE")
    first, appended, (second,), moved = await pending
    assert ({first, second}, appended, moved) == ({1, 2}, 1, None)
    await redis.aclose()


async def test_an_address_that_leads_to_a_new_primary_is_dialled_again(own: Valkey, valkey: Valkey, redis: Redis) -> None:
    async with Proxy(own.port) as proxy:
        client = connect(proxy.url)
        assert await client.blpop("list", 0.01) is None
        assert await client.incr("n") == 1
        await client.replicaof("127.0.0.1", free_port())
        proxy.target = valkey.port
        await redis.rpush("list", "x")
        # Each kind of connection is still that to the old one.
        assert await client.blpop("list", 5) == ("list", "x")
        assert await client.incr("n") == 1
        await client.aclose()
