"""The store's client when connections break and stores go away: every command succeeds or says whether it was run, and no reply goes astray."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ResponseError

from pipeline.store import pool, verbs, wire
from pipeline.store.connection import STORE_ERRORS, Store, connect
from pipeline.store.event import Event
from pipeline.store.log import Log
from pipeline.store.scripts import Script
from pipeline.store.wire import NotSent, Refused, ReplyLost
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey, free_port

APPEND = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])")
Call = Callable[[Store], Any]


@pytest.fixture
async def proxy(valkey: Valkey) -> AsyncIterator[Proxy]:
    async with Proxy(valkey.port) as proxy:
        yield proxy


@pytest.fixture
async def proxied(redis: Redis, proxy: Proxy) -> AsyncIterator[Store]:
    client = connect(proxy.url)
    await client.ping()
    yield client
    await client.aclose()


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Valkey]:
    with Valkey(tmp_path / "own", appendfsync="always") as server:
        yield server


# --- what is said, and what is tried again -------------------------------------------------------------------------------


async def test_a_store_that_is_away_is_tried_so_often_and_then_said_to_have_got_nothing() -> None:
    attempts: list[None] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(None)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    for retries in (0, 2):
        redis = connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", retries=retries)
        attempts.clear()
        outcomes = await asyncio.gather(redis.incr("n"), *(redis.get("k") for _ in range(100)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {NotSent}
        assert len(attempts) == 1 + retries  # for all of them together
        assert issubclass(NotSent, STORE_ERRORS)
        with pytest.raises(NotSent):
            await redis.blpop("list", 1)
        with pytest.raises(NotSent):
            await redis.pipeline().incr("n").execute()
        await redis.aclose()
    server.close()
    await server.wait_closed()


async def test_refused_credentials_are_not_tried_again(valkey: Valkey) -> None:
    redis = connect(valkey.url.replace("://", "://nobody:wrong@"), retries=1000)
    for call in (redis.incr("n"), redis.blpop("list", 1)):
        with pytest.raises(Refused, match="invalid username-password") as raised:
            await asyncio.wait_for(call, 10)
        assert isinstance(raised.value, AuthenticationError | NotSent)
    await redis.aclose()


async def test_a_database_that_does_not_exist_is_no_lost_connection(valkey: Valkey) -> None:
    redis = connect(f"{valkey.url}/99")
    with pytest.raises(ResponseError, match="DB index is out of range"):
        await redis.get("k")
    await redis.aclose()


REPEATED: dict[str, Call] = {
    "read": lambda redis: redis.get("k"),
    "plain write": lambda redis: redis.set("k", "v"),
    "script": lambda redis: APPEND(redis, ["list"], ["x"]),
    "script by text": lambda redis: redis.eval(APPEND.source, 1, "list", "x"),
    "transaction of plain writes": lambda redis: redis.pipeline().set("k", "v").delete("l").execute(),
    "pipeline of reads": lambda redis: redis.pipeline(transaction=False).get("k").hgetall("h").execute(),
    "blocking read": lambda redis: redis.xread({"stream": "0"}, block=20_000),
}
SURFACING: dict[str, Call] = {
    "INCR": lambda redis: redis.incr("n"),
    "LPUSH": lambda redis: redis.lpush("list", "x"),
    "XADD": lambda redis: redis.xadd("stream", {"a": "b"}),
    "SET GET": lambda redis: redis.set("k", "v", get=True),
    "ZADD INCR": lambda redis: redis.zadd("z", {"m": 1}, incr=True),
    "XADD in MULTI": lambda redis: redis.pipeline().xadd("stream", {"a": "b"}).execute(),
    "INCR among reads": lambda redis: redis.pipeline(transaction=False).get("k").incr("n").execute(),
    "BLPOP": lambda redis: redis.blpop("list", 20),
}


async def lose_the_reply(proxy: Proxy, proxied: Store, call: Call) -> Any:
    """What comes of a call whose command arrives and whose reply is cut off."""
    if call in (REPEATED["blocking read"], SURFACING["BLPOP"]):
        # Their connection is there before the cut.
        await proxied.blpop("nothing", 0.01)
    proxy.replies.clear()
    before = proxy.up
    pending = asyncio.ensure_future(call(proxied))
    await proxy.until(up=before + 1)
    proxy.drop()
    proxy.replies.set()
    (outcome,) = await asyncio.gather(pending, return_exceptions=True)
    return outcome


@pytest.mark.parametrize("name", REPEATED)
async def test_what_may_be_repeated_is_after_a_lost_reply(proxy: Proxy, proxied: Store, redis: Redis, name: str) -> None:
    await redis.xadd("stream", {"a": "b"})
    assert not isinstance(await lose_the_reply(proxy, proxied, REPEATED[name]), Exception)
    assert await redis.llen("list") <= 2


@pytest.mark.parametrize("name", SURFACING)
async def test_what_must_not_be_repeated_says_that_its_reply_was_lost(proxy: Proxy, proxied: Store, redis: Redis, name: str) -> None:
    if name == "BLPOP":
        await redis.rpush("list", "a", "b")
    outcome = await lose_the_reply(proxy, proxied, SURFACING[name])
    assert isinstance(outcome, ReplyLost)
    assert isinstance(outcome, STORE_ERRORS)
    assert int(await redis.get("n") or 0) <= 1
    assert await redis.xlen("stream") <= 1
    assert await redis.llen("list") <= 1
    assert await proxied.ping()  # on a new connection


async def test_an_append_to_the_log_is_one_entry_though_its_reply_was_lost(proxy: Proxy, proxied: Store, redis: Redis) -> None:
    events = [Event(id=f"evt_{n}", type="test.done", timestamp=n, data={}) for n in range(3)]
    log = Log(proxied, "log")
    await log.append(events[:1])
    cursors = await lose_the_reply(proxy, proxied, lambda _: log.append(events[1:]))
    assert [(found.cursor, found.id) for found in await log.after("", limit=10)][1:] == list(zip(cursors, ["evt_1", "evt_2"], strict=True))


def test_the_commands_that_may_be_repeated_are_known_by_all_their_names() -> None:
    assert verbs.repeatable(["get", "k"])
    assert verbs.repeatable([b"CONFIG", "GET", "x"])
    assert verbs.repeatable(["XINFO STREAM", "s"])
    assert verbs.repeatable(["SET", "GET", "v"])  # a key of that name
    assert not verbs.repeatable(["SET", "k", "v", b"get"])
    assert not verbs.repeatable(["CONFIG", "RESETSTAT"])
    assert not verbs.repeatable(["UNKNOWN"])


# --- the wire is cut anywhere --------------------------------------------------------------------------------------------


async def test_a_reply_cut_at_any_byte_goes_to_nobody(proxy: Proxy, proxied: Store) -> None:
    marks = ["first", "second" * 3, "third"]
    size = sum(len(f"${len(mark)}\r\n{mark}\r\n") for mark in marks)
    for at in range(size + 1):
        proxy.cut(down=at)
        replies = [asyncio.ensure_future(proxied.send(wire.pack(("ECHO", mark)))) for mark in marks]
        outcomes = await asyncio.gather(*replies, return_exceptions=True)
        whole = 0
        for mark, outcome in zip(marks, outcomes, strict=True):
            assert outcome == mark or isinstance(outcome, ReplyLost)
            whole += outcome == mark
        arrived = [sum(len(f"${len(mark)}\r\n{mark}\r\n") for mark in marks[: n + 1]) <= at for n in range(3)]
        assert whole == sum(arrived)
        assert await proxied.echo("after") == "after"


async def test_a_command_cut_at_any_byte_was_run_or_not_but_not_twice(proxy: Proxy, proxied: Store, redis: Redis) -> None:
    command = wire.pack(("INCR", "n"))
    for at in range(len(command) + 1):
        await redis.delete("n")
        await proxied.ping()
        proxy.cut(up=at)
        with contextlib.suppress(ReplyLost):
            await proxied.incr("n")
        assert int(await redis.get("n") or 0) <= (at == len(command))


async def test_dialling_is_paced(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[int] = []
    monkeypatch.setattr(pool.Pace, "pause", lambda _, tries: pauses.append(tries) or 0.01)
    away = connect(f"redis://127.0.0.1:{free_port()}", retries=3)
    with pytest.raises(NotSent):
        await away.get("k")
    assert pauses == [1, 2, 3, 4]
    await away.aclose()
    pauses.clear()
    client = connect(proxy.url)
    await client.ping()
    assert pauses == []
    (young,) = client._line._wires
    client._line._born += 60  # its first second is not over, however slow this machine
    proxy.drop()
    await young.lost.wait()
    assert pauses == [1]
    await client.ping()
    (old,) = client._line._wires
    client._line._born -= 1
    proxy.drop()
    await old.lost.wait()
    assert pauses == [1]
    await client.aclose()


# --- it goes away and comes back -----------------------------------------------------------------------------------------


async def test_scripts_survive_a_restart(own: Valkey) -> None:
    redis = connect(own.url)
    assert await APPEND(redis, ["list"], ["x"]) == 1
    own.kill()
    await asyncio.to_thread(own.start)
    assert sorted(await asyncio.gather(*(APPEND(redis, ["list"], ["x"]) for _ in range(100)))) == [*range(2, 102)]
    await redis.aclose()


async def test_a_subscriber_hears_again_after_a_restart(own: Valkey) -> None:
    redis = connect(own.url)
    async with redis.pubsub(ignore_subscribe_messages=True) as subscriber:
        await subscriber.subscribe("channel")
        assert await subscriber.get_message(timeout=5) is None  # that it is subscribed
        own.kill()
        with pytest.raises(STORE_ERRORS):
            await subscriber.get_message(timeout=5)
        await asyncio.to_thread(own.start)
        while not await redis.publish("channel", "hello"):
            await subscriber.get_message(timeout=0.05)
        while (message := await subscriber.get_message(timeout=5)) is None:
            pass
        assert message["data"] == "hello"
    await redis.aclose()


async def test_each_of_thousands_of_commands_succeeds_or_says_what_is_known_while_the_store_is_killed(own: Valkey) -> None:
    redis = connect(own.url, retries=1)
    await redis.set("pushed", 0)
    counts = {"sure": 0, "lost": 0, "not sent": 0, "reads": 0}
    stop = asyncio.Event()
    rng = random.Random(3)

    async def write(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            mark = f"{number}/{turn}"
            try:
                if turn % 3:
                    await redis.rpush("pushed:list", mark)
                else:
                    assert await redis.pipeline().rpush("pushed:list", mark).echo(mark).execute() == [pytest.approx(0, abs=10**9), mark]
                counts["sure"] += 1
            except ReplyLost:
                counts["lost"] += 1
            except NotSent:
                counts["not sent"] += 1
                await asyncio.sleep(0.01)

    async def read(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            with contextlib.suppress(NotSent, ReplyLost):
                assert await redis.echo(f"{number}/{turn}") == f"{number}/{turn}"
                assert await redis.eval("return ARGV[1]", 0, f"{number}.{turn}") == f"{number}.{turn}"
                counts["reads"] += 1

    async def reached(sure: int) -> None:
        # Looked at in any moment of the loop, so that the kill may come between any two steps of it.
        while counts["sure"] < sure:  # noqa: ASYNC110
            await asyncio.sleep(rng.random() / 50)

    work = [asyncio.ensure_future(task) for n in range(100) for task in (write(n), read(n))]
    for _ in range(3):
        before = counts["sure"]
        await asyncio.wait_for(reached(before + 1000), 30)
        own.kill()
        await asyncio.to_thread(own.start)
    stop.set()
    await asyncio.wait_for(asyncio.gather(*work), 30)
    stored = await redis.lrange("pushed:list", 0, -1)
    assert len(stored) == len(set(stored)), "something was pushed twice"
    assert counts["sure"] <= len(stored) <= counts["sure"] + counts["lost"]
    assert counts["lost"]
    assert counts["reads"]
    await redis.aclose()


async def test_a_server_that_says_nothing_is_not_waited_for_for_ever(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr("pipeline.store.line.CONNECT_SECONDS", 0.1)
    proxy.replies.clear()
    redis = connect(proxy.url, retries=1)
    for call in (redis.get("k"), redis.blpop("list", 0)):
        with pytest.raises(NotSent, match="did not complete a connection"):
            await asyncio.wait_for(call, 10)
    proxy.replies.set()
    monkeypatch.undo()
    assert await redis.get("k") is None
    await redis.aclose()
