"""The store's client: one connection and one write for what is issued together, each reply to its caller, nothing disturbed by others."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import DataError, ExecAbortError, NoScriptError, ResponseError, WatchError

from pipeline.store.connection import Store, connect
from pipeline.store.scripts import Script
from pipeline.store.wire import NotSent, ReplyLost, Wire, pack
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many replies were expected of each write so far."""
    counts: list[int] = []
    write = Wire.write

    def counted(self: Wire, packed: list[bytes], slots: list[Any]) -> None:
        counts.append(len(slots))
        write(self, packed, slots)

    monkeypatch.setattr(Wire, "write", counted)
    return counts


@pytest.fixture
async def proxy(valkey: Valkey) -> AsyncIterator[Proxy]:
    async with Proxy(valkey.port) as proxy:
        yield proxy


async def connections(redis: Store) -> int:
    return len([one for one in await redis.client_list() if one["cmd"] != "client|list"])


async def until_blocked(redis: Store) -> None:
    while not any("b" in one["flags"] for one in await redis.client_list()):
        pass


async def test_what_one_tick_issues_is_one_write_on_one_connection(redis: Store, writes: list[int]) -> None:
    writes.clear()
    replies = await asyncio.gather(*(redis.incr("n") for _ in range(500)), *(redis.echo(str(n)) for n in range(500)))
    assert replies == [*range(1, 501), *map(str, range(500))]
    assert writes == [1000]
    assert await connections(redis) == 1


async def test_replies_reach_their_callers_in_any_mix(redis: Store) -> None:
    await redis.set("text", "x")
    rng = random.Random(1)

    async def caller(number: int) -> None:
        for turn in range(rng.randrange(20)):
            mark = f"{number}/{turn}"
            kind = rng.randrange(6)
            if kind == 0:
                with pytest.raises(ResponseError, match="wrong kind of value"):
                    await redis.lpush("text", mark)
            elif kind == 1:
                with pytest.raises(ResponseError, match=f"unknown command 'NONSENSE{number}'"):
                    await redis.execute_command(f"NONSENSE{number}", mark)
            elif kind == 2:
                async with redis.pipeline(transaction=bool(turn % 2)) as pipe:
                    assert await pipe.echo(mark).echo("b").execute() == [mark, "b"]
            elif kind == 3:
                assert await redis.eval("return {ARGV[1], KEYS[1]}", 1, "k", mark) == [mark, "k"]
            elif kind == 4:
                assert await redis.eval(r"return '\255'", 0) == "\ufffd"
            else:
                assert await redis.echo(mark) == mark

    await asyncio.gather(*(caller(number) for number in range(200)))
    assert await connections(redis) == 1


async def test_values_that_redis_py_takes_or_refuses(redis: Store) -> None:
    for value, kept in (("ä", "ä"), (b"b", "b"), (bytearray(b"c"), "c"), (memoryview(b"d"), "d"), (7, "7"), (10**30, "1" + "0" * 30), (1.5, "1.5")):
        await redis.set("k", value)
        assert await redis.get("k") == kept
    for value in (True, None, [], object()):
        with pytest.raises(DataError, match="Invalid input of type"):
            await redis.set("k", value)
    assert await redis.ping()


async def test_many_words_and_any_case_make_a_command(redis: Store) -> None:
    assert await redis.execute_command("config get", "maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert await redis.execute_command("object", "HELP")
    assert await redis.execute_command("blpop", "nothing", 0.01) is None
    assert await redis.execute_command(b"ECHO", "x") == "x"


async def test_packed_commands_can_be_sent_by_hand(redis: Store, writes: list[int]) -> None:
    writes.clear()
    good, bad = redis.send(pack(("SET", "k", 1))), redis.send(pack(("LPUSH", "k", 1)))
    assert await good == "OK"
    with pytest.raises(ResponseError):
        await bad
    assert writes == [2]


# --- what has a connection of its own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", ["bzpopmin", "blpop", "xread", "xreadgroup", "wait"])
async def test_blocking_commands_hold_up_nobody(redis: Store, blocking: str) -> None:
    await redis.xgroup_create("stream", "group", mkstream=True)
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "bzpopmin": lambda: redis.bzpopmin("set", 20),
        "blpop": lambda: redis.blpop("list", 20),
        "xread": lambda: redis.xread({"stream": "$"}, block=20_000),
        "xreadgroup": lambda: redis.xreadgroup("group", "me", {"stream": ">"}, block=20_000),
        "wait": lambda: redis.wait(1, 20_000),
    }
    waiting = asyncio.ensure_future(calls[blocking]())
    await until_blocked(redis)
    assert await asyncio.wait_for(redis.echo("x"), 5) == "x"
    assert not waiting.done()
    if blocking == "wait":
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return
    await redis.zadd("set", {"m": 1})
    await redis.rpush("list", "m")
    await redis.xadd("stream", {"m": 1})
    assert await asyncio.wait_for(waiting, 5)


async def test_reads_that_do_not_block_share_the_connection(redis: Store) -> None:
    await redis.xadd("stream", {"a": "b"}, id="1-1")
    assert await redis.xread({"stream": "0"}) == [["stream", [("1-1", {"a": "b"})]]]
    assert await connections(redis) == 1


@pytest.mark.parametrize("block", [(), ("BLOCK", 5)], ids=["shared", "of its own"])
async def test_a_command_named_in_bytes_is_answered_barely(redis: Store, block: tuple[Any, ...]) -> None:
    await redis.xadd("stream", {"a": "b"}, id="1-1")
    assert await redis.execute_command(b"XREAD", *block, "STREAMS", "stream", "0") == [["stream", [["1-1", ["a", "b"]]]]]
    assert await redis.execute_command(b"XREAD", *block, "STREAMS", "stream", "1-1") is None


async def test_subscribers_and_monitors_hear(redis: Store) -> None:
    async with redis.pubsub() as subscriber, redis.monitor() as monitor:
        await subscriber.subscribe("channel")
        assert (await subscriber.get_message(timeout=5))["type"] == "subscribe"
        await redis.publish("channel", "hello")
        assert (await subscriber.get_message(timeout=5))["data"] == "hello"
        async for seen in monitor.listen():
            if seen["command"] == "PUBLISH channel hello":
                break


async def test_commands_that_change_their_connection_do_not_change_ours(redis: Store) -> None:
    await redis.set("k", "v")
    await redis.client_setname("other")
    await redis.execute_command("MULTI")
    assert await redis.get("k") == "v"


async def test_a_watched_key_that_changes_fails_the_transaction(redis: Store) -> None:
    async with redis.pipeline() as pipe:
        await pipe.watch("k")
        assert await pipe.get("k") is None
        await redis.set("k", "theirs")
        pipe.multi()
        pipe.set("k", "ours")
        with pytest.raises(WatchError):
            await pipe.execute()

    def change(pipe: Any) -> None:
        pipe.multi()
        pipe.set("k", "ours")

    assert await redis.transaction(change, "k") == [True]
    assert await redis.get("k") == "ours"


# --- pipelines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transaction", [True, False])
async def test_a_pipeline_is_one_piece_among_others(redis: Store, writes: list[int], transaction: bool) -> None:
    writes.clear()

    async def pair(number: int) -> None:
        async with redis.pipeline(transaction=transaction) as pipe:
            pipe.set("k", number).get("k").incr("n").get("k")
            _, first, _, last = await pipe.execute()
        assert first == last == str(number)

    await asyncio.gather(*(pair(n) for n in range(100)), *(redis.set("k", f"other {n}") for n in range(100)))
    assert await redis.get("n") == "100"
    assert len(writes) == 2  # all of the above, and the GET
    assert await connections(redis) == 1


async def test_a_transaction_with_a_refused_command_runs_nothing(redis: Store) -> None:
    async with redis.pipeline() as pipe:
        pipe.set("k", "v").execute_command("NONSENSE").set("l", "v")
        with pytest.raises(ResponseError, match=r"Command # 2 \(NONSENSE\) of pipeline caused error: .*unknown command") as raised:
            await pipe.execute()
    assert isinstance(raised.value.__cause__, ExecAbortError)
    assert not await redis.exists("k", "l")


# --- scripts -------------------------------------------------------------------------------------------------------------


async def test_a_forgotten_script_travels_once(redis: Store) -> None:
    script = Script("return ARGV[1] -- " + "x" * 10_000)
    for _ in range(2):
        await redis.script_flush()
        await redis.config_resetstat()
        assert await asyncio.gather(*(script(redis, [], [n]) for n in range(300))) == [str(n) for n in range(300)]
        stats = await redis.info("commandstats")
        assert stats["cmdstat_eval"]["calls"] == 1
        assert stats["cmdstat_evalsha"]["calls"] == 300 + 299


async def test_scripts_go_on_while_they_are_forgotten_again_and_again(redis: Store) -> None:
    script = Script("return ARGV[1]")

    async def forget() -> None:
        for _ in range(50):
            await redis.script_flush()

    async def call(n: int) -> None:
        for turn in range(20):
            assert await script(redis, [], [f"{n}/{turn}"]) == f"{n}/{turn}"

    await asyncio.gather(forget(), *(call(n) for n in range(50)))


async def test_a_script_that_fails_fails_for_its_callers_alone(redis: Store) -> None:
    broken = Script("return redis.call('NONSENSE')")
    results = await asyncio.gather(*(broken(redis, [], []) for _ in range(10)), redis.echo("x"), return_exceptions=True)
    assert results[-1] == "x"
    assert all(isinstance(result, ResponseError) and not isinstance(result, NoScriptError) for result in results[:-1])


async def test_scripts_registered_with_redis_py_run_in_pipelines(redis: Store) -> None:
    script = redis.register_script("return ARGV[1]")
    async with redis.pipeline() as pipe:
        await script(args=["a"], client=pipe)
        pipe.echo("b")
        assert await pipe.execute() == ["a", "b"]


# --- cancellation --------------------------------------------------------------------------------------------------------


async def test_a_command_cancelled_before_it_was_sent_is_not_sent(redis: Store) -> None:
    await redis.ping()
    cancelled = redis.send(pack(("SET", "k", "cancelled")))
    others = [asyncio.ensure_future(redis.echo(str(n))) for n in range(10)]
    cancelled.cancel()
    assert await asyncio.gather(*others) == [str(n) for n in range(10)]
    assert await redis.exists("k") == 0


async def test_commands_cancelled_at_any_moment_disturb_no_other(redis: Store) -> None:
    rng = random.Random(2)

    async def transaction(mark: str) -> None:
        async with redis.pipeline() as pipe:
            assert await pipe.echo(mark).echo(f"{mark}!").execute() == [mark, f"{mark}!"]

    async def command(mark: str) -> None:
        assert await redis.echo(mark) == mark

    tasks = [asyncio.ensure_future((transaction if n % 3 else command)(str(n))) for n in range(3000)]
    victims = set(rng.sample(range(3000), 1000))
    for n, task in enumerate(tasks):
        if n in victims:
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {n for n, outcome in enumerate(outcomes) if outcome is not None} <= victims
    assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert await redis.echo("after") == "after"
    assert await connections(redis) == 1


async def test_a_cancelled_blocking_command_leaves_its_connection_clean(redis: Store) -> None:
    for _ in range(5):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(redis.blpop("list", 20), 0.02)
    await redis.rpush("list", "x")
    assert await redis.blpop("list", 5) == ("list", "x")


# --- its loop and its end ------------------------------------------------------------------------------------------------


async def test_another_event_loop_is_refused(redis: Store) -> None:
    await redis.ping()
    with pytest.raises(RuntimeError, match="belongs to another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(redis.ping()))
    assert await redis.ping()


async def test_closing_fails_what_waits(proxy: Proxy) -> None:
    redis = connect(proxy.url)
    await redis.ping()
    blocked = asyncio.ensure_future(redis.blpop("list", 20))
    await until_blocked(redis)
    proxy.replies.clear()
    passed = proxy.up
    sent = [asyncio.ensure_future(redis.get("k")), asyncio.ensure_future(redis.incr("n"))]
    await proxy.until(up=passed + 1)
    unsent = asyncio.ensure_future(redis.get("k"))
    await asyncio.sleep(0)
    await redis.aclose()
    outcomes = await asyncio.gather(*sent, unsent, blocked, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ReplyLost, ReplyLost, NotSent, ReplyLost]
    for again in (redis.get("k"), redis.blpop("list", 1), redis.pipeline().get("k").execute()):
        with pytest.raises(NotSent, match="closed"):
            await again
    await redis.aclose()


async def test_closing_while_it_connects(valkey: Valkey) -> None:
    redis = connect(valkey.url)
    pending = asyncio.ensure_future(redis.get("k"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await redis.aclose()
    with pytest.raises(NotSent, match="closed"):
        await pending


async def test_it_is_a_context_and_a_redis(valkey: Valkey) -> None:
    async with connect(valkey.url) as redis:
        assert isinstance(redis, Redis)
        assert await redis.ping()
        async with redis.client() as single:
            assert type(single) is Redis
            assert await single.client_setname("mine")
            assert await single.client_getname() == "mine"
        async with redis.lock("lock", timeout=5):
            assert await redis.exists("lock")
