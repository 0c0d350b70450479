"""The store's client answers as redis-py's own: the same calls on the same data, compared one by one."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from pipeline.store.connection import Store
from tests.support.valkey import Valkey

Call = Callable[[Any], Awaitable[Any]]


async def memory(redis: Any) -> Any:
    """The store does not take the same number of bytes each time."""
    return type(await redis.memory_usage("hash"))


PREPARED: list[Call] = [
    lambda r: r.set("text", "ä"),
    lambda r: r.set("n", 5),
    lambda r: r.hset("hash", mapping={"a": 1, "b": "two"}),
    lambda r: r.rpush("list", "a", "b", "a", "c"),
    lambda r: r.sadd("set", "a", "b"),
    lambda r: r.zadd("zset", {"a": 1, "b": 2.5, "c": "inf"}),
    lambda r: r.xadd("stream", {"f": "v"}, id="1-1"),
    lambda r: r.xadd("stream", {"f": "w", "g": "x"}, id="2-1"),
    lambda r: r.xgroup_create("stream", "group", id="0"),
]

CALLS: list[Call] = [
    # What Hookline calls.
    lambda r: r.ping(),
    lambda r: r.get("text"),
    lambda r: r.get("missing"),
    lambda r: r.set("x", "1"),
    lambda r: r.set("x", "2", nx=True),
    lambda r: r.set("y", "2", nx=True, ex=60),
    lambda r: r.set("x", "3", get=True),
    lambda r: r.delete("x", "missing"),
    lambda r: r.exists("text", "n", "missing"),
    lambda r: r.hget("hash", "a"),
    lambda r: r.hget("hash", "missing"),
    lambda r: r.hgetall("hash"),
    lambda r: r.hgetall("missing"),
    lambda r: r.hmget("hash", "a", "missing", "b"),
    lambda r: r.hexists("hash", "a"),
    lambda r: r.hset("hash", "c", 3),
    lambda r: r.hset("hash", mapping={"c": 4, "d": 5}),
    lambda r: r.hsetnx("hash", "a", 9),
    lambda r: r.hdel("hash", "c", "missing"),
    lambda r: r.lrange("list", 0, -1),
    lambda r: r.lrange("missing", 0, -1),
    lambda r: r.lpush("list", "z"),
    lambda r: r.lrem("list", 1, "a"),
    lambda r: r.llen("list"),
    lambda r: r.smembers("set"),
    lambda r: r.smembers("missing"),
    lambda r: r.zadd("zset", {"d": 4}),
    lambda r: r.zadd("zset", {"d": 5}, ch=True),
    lambda r: r.zadd("zset", {"d": 1}, incr=True),
    lambda r: r.zcard("zset"),
    lambda r: r.zcount("zset", "(1", "+inf"),
    lambda r: r.zrange("zset", 0, -1),
    lambda r: r.zrange("zset", 0, -1, withscores=True),
    lambda r: r.zrange("zset", "-inf", "(3", byscore=True, offset=0, num=10),
    lambda r: r.zrange("zset", "+inf", "-inf", byscore=True, desc=True, offset=0, num=2, withscores=True),
    lambda r: r.zrange("missing", 0, 0, withscores=True),
    lambda r: r.zrevrange("zset", 0, 1, withscores=True),
    lambda r: r.zrank("zset", "b"),
    lambda r: r.zrevrank("zset", "missing"),
    lambda r: r.zrank("zset", "b", withscore=True),
    lambda r: r.zscore("zset", "b"),
    lambda r: r.zscore("zset", "c"),
    lambda r: r.zscore("zset", "missing"),
    lambda r: r.zrem("zset", "d"),
    lambda r: r.xadd("stream", {"f": "y"}, id="3-1"),
    lambda r: r.xlen("stream"),
    lambda r: r.xrange("stream", min="(1-1", max="+", count=5),
    lambda r: r.xrange("missing"),
    lambda r: r.xrevrange("stream", count=1),
    lambda r: r.xread({"stream": "0", "missing": "0"}, count=2),
    lambda r: r.xread({"stream": "9-9"}),
    lambda r: r.xread({"stream": "0"}, block=5, count=1),
    lambda r: r.xread({"stream": "$"}, block=1),
    lambda r: r.xreadgroup("group", "me", {"stream": ">"}, count=2),
    lambda r: r.xreadgroup("group", "me", {"stream": ">"}, count=9, block=5),
    lambda r: r.xreadgroup("group", "me", {"stream": ">"}, block=1),
    lambda r: r.xreadgroup("nobody", "me", {"stream": ">"}),
    lambda r: r.xpending("stream", "group"),
    lambda r: r.xpending_range("stream", "group", min="-", max="+", count=1, idle=0),
    lambda r: r.xautoclaim("stream", "group", "you", min_idle_time=0, count=1),
    lambda r: r.xclaim("stream", "group", "you", 0, ["2-1"], justid=True),
    lambda r: r.xack("stream", "group", "1-1", "7-7"),
    lambda r: r.xinfo_consumers("stream", "group"),
    lambda r: r.xinfo_groups("stream"),
    lambda r: r.xinfo_stream("stream"),
    lambda r: r.xinfo_stream("stream", full=True),
    lambda r: r.xinfo_stream("missing"),
    lambda r: r.xgroup_create("stream", "group", id="0", mkstream=True),
    lambda r: r.xgroup_delconsumer("stream", "group", "me"),
    lambda r: r.xtrim("stream", minid="2-1"),
    lambda r: r.xdel("stream", "2-1"),
    lambda r: memory(r),
    lambda r: r.memory_usage("missing"),
    lambda r: r.config_get("append*"),
    lambda r: r.config_set("maxmemory", 0),
    lambda r: r.info("server"),
    lambda r: r.info("replication"),
    lambda r: r.info(),
    lambda r: r.blpop("list", timeout=1),
    lambda r: r.blpop("missing", timeout=0.001),
    lambda r: r.bzpopmin("zset", 1),
    lambda r: r.bzpopmin("missing", 0.001),
    lambda r: r.eval("return {1, 'a', false, {2}, 3.7}", 0),
    lambda r: r.eval("return {ok = 'fine'}", 0),
    lambda r: r.eval("return redis.error_reply('ERR mine')", 0),
    lambda r: r.eval("return redis.call('INCR', KEYS[1])", 1, "text"),
    lambda r: r.evalsha("0" * 40, 0),
    lambda r: r.script_load("return 1"),
    lambda r: r.script_exists("0" * 40),
    lambda r: r.dbsize(),
    # And more.
    lambda r: r.incr("n"),
    lambda r: r.incrby("n", 3),
    lambda r: r.incrbyfloat("n", 0.5),
    lambda r: r.incr("text"),
    lambda r: r.mget("text", "missing"),
    lambda r: r.mset({"m1": 1, "m2": 2}),
    lambda r: r.append("text", "b"),
    lambda r: r.getrange("text", 0, 1),
    lambda r: r.strlen("text"),
    lambda r: r.getdel("m1"),
    lambda r: r.getex("m2", ex=10),
    lambda r: r.expire("m2", 100),
    lambda r: r.pexpireat("m2", 1 << 50),
    lambda r: r.ttl("missing"),
    lambda r: r.persist("m2"),
    lambda r: r.type("hash"),
    lambda r: r.rename("m2", "m3"),
    lambda r: r.keys("h*"),
    lambda r: r.scan(0, match="ha*", count=1000),
    lambda r: r.hscan("hash"),
    lambda r: r.hscan("hash", no_values=True),
    lambda r: r.sscan("set"),
    lambda r: r.zscan("zset"),
    lambda r: r.hkeys("hash"),
    lambda r: r.hincrbyfloat("hash", "a", 0.1),
    lambda r: r.hlen("hash"),
    lambda r: r.lpos("list", "a"),
    lambda r: r.lmove("list", "other", "LEFT", "RIGHT"),
    lambda r: r.blmove("missing", "other", 0.001),
    lambda r: r.lpop("list", 2),
    lambda r: r.sismember("set", "a"),
    lambda r: r.smismember("set", ["a", "z"]),
    lambda r: r.sinter("set", "set"),
    lambda r: r.zincrby("zset", 2, "b"),
    lambda r: r.zmscore("zset", ["b", "missing"]),
    lambda r: r.zpopmin("zset"),
    lambda r: r.zrangebyscore("zset", "-inf", "+inf", withscores=True),
    lambda r: r.zunion({"zset": 2}, withscores=True),
    lambda r: r.zinter(["zset", "zset"]),
    lambda r: r.geoadd("geo", (13.36, 38.11, "Palermo")),
    lambda r: r.geopos("geo", "Palermo", "missing"),
    lambda r: r.geosearch("geo", longitude=13, latitude=38, radius=100, unit="km", withdist=True, withcoord=True),
    lambda r: r.pfadd("hll", "a", "b"),
    lambda r: r.pfcount("hll"),
    lambda r: r.setbit("bits", 7, 1),
    lambda r: r.bitfield("bits").get("u8", 0).execute(),
    lambda r: r.object("encoding", "n"),
    lambda r: r.sort("list", alpha=True),
    lambda r: r.dump("set"),
    lambda r: r.restore("copy", 0, b"nonsense"),
    lambda r: r.command_count(),
    lambda r: r.command_getkeys("SET", "a", "b"),
    lambda r: r.acl_whoami(),
    lambda r: r.acl_getuser("default"),
    lambda r: r.client_getname(),
    lambda r: r.slowlog_get(0),
    lambda r: r.lastsave(),
    lambda r: r.role(),
    lambda r: r.function_list(),
    lambda r: r.publish("channel", "x"),
    lambda r: r.pubsub_numsub("channel"),
    lambda r: r.wait(0, 1),
    lambda r: r.echo("x"),
    lambda r: r.lpush("hash", "x"),
    lambda r: r.execute_command("NONSENSE", "x"),
    lambda r: r.execute_command("get", "text"),
    lambda r: r.execute_command("HGETALL", "hash"),
    lambda r: r.execute_command("CONFIG GET", "maxmemory"),
    lambda r: r.execute_command("SET", "k"),
    lambda r: r.set("k", None),
    lambda r: r.set("k", True),
    # Pipelines.
    lambda r: r.pipeline().set("p", 1).incr("p").hgetall("hash").zrange("zset", 0, -1, withscores=True).xinfo_groups("stream").execute(),
    lambda r: r.pipeline(transaction=False).set("p", 1).incr("p").hgetall("hash").smembers("set").config_get("maxmemory").execute(),
    lambda r: r.pipeline().execute(),
    lambda r: r.pipeline().get("text").lpush("hash", "x").get("n").execute(),
    lambda r: r.pipeline().get("text").lpush("hash", "x").get("n").execute(raise_on_error=False),
    lambda r: r.pipeline(transaction=False).get("text").lpush("hash", "x").get("n").execute(),
    lambda r: r.pipeline(transaction=False).get("text").lpush("hash", "x").get("n").execute(raise_on_error=False),
    lambda r: r.pipeline().execute_command("NONSENSE").get("n").execute(),
    lambda r: r.pipeline().execute_command("NONSENSE").get("n").execute(raise_on_error=False),
    lambda r: r.pipeline(transaction=False).execute_command("NONSENSE").get("n").execute(raise_on_error=False),
    lambda r: r.pipeline().eval("return redis.error_reply('ERR mine')", 0).execute(),
    lambda r: r.pipeline().blpop("missing", 1).execute(),
    lambda r: r.pipeline(transaction=False).blpop("missing", 0.001).execute(),
    lambda r: r.pipeline(transaction=False).dump("set").execute(),
    lambda r: r.pipeline().set("p", None).execute(),
]
BARE: list[Call] = [
    # Without a callback of redis-py's, the two protocols differ.
    lambda r: r.execute_command("CONFIG", "GET", "maxmemory"),
    lambda r: r.execute_command("config get", "maxmemory"),
    lambda r: r.execute_command("XINFO", "STREAM", "missing"),
]
VOLATILE = ("idle", "time_since_delivered", "inactive", "seen-time", "active-time", "delivery-time")


@pytest.fixture(params=[None, 2], ids=["RESP3", "RESP2"])
async def stock(valkey: Valkey, request: pytest.FixtureRequest) -> Any:
    client = Redis(unix_socket_path=str(valkey.socket), decode_responses=True, socket_timeout=None, protocol=request.param)
    yield client
    await client.aclose()


async def outcome(call: Call, redis: Any) -> Any:
    try:
        return await call(redis)
    except (RedisError, TypeError, ValueError) as error:
        return (type(error), str(error))


async def test_every_call_has_the_same_outcome(redis: Store, stock: Redis) -> None:
    calls = CALLS + BARE if stock.connection_pool.get_protocol() == 2 else CALLS
    outcomes = []
    for client in (redis, stock):
        await client.flushall()
        for prepare in PREPARED:
            await prepare(client)
        outcomes.append([settled(await outcome(call, client)) for call in calls])
    for number, (ours, theirs) in enumerate(zip(*outcomes, strict=True)):
        assert ours == theirs, f"call {number}"
        assert type(ours) is type(theirs)
    # Most of them succeed, so that it is replies which are compared.
    assert sum(not (isinstance(found, tuple) and isinstance(found[0], type)) for found in outcomes[0]) > 0.85 * len(calls)


def settled(value: Any) -> Any:
    """Without what differs from one moment to the next."""
    if isinstance(value, dict):
        if "redis_version" in value or "role" in value:
            return {name: type(one) for name, one in value.items() if not name.startswith("errorstat_")}
        return {name: settled(one) for name, one in value.items() if name not in VOLATILE}
    if isinstance(value, tuple) and value and isinstance(value[0], type):
        return value
    if isinstance(value, Exception):
        return (type(value), str(value))
    if isinstance(value, int) and value > 10**12:
        return "a time, ms"
    if isinstance(value, list | tuple):
        return type(value)(settled(one) for one in value)
    return value
