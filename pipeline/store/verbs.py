"""What is known of the store's commands: which need a connection of their own, and which may be sent again after a lost reply."""

from collections.abc import Sequence
from typing import Any


def _set(*names: str) -> frozenset[str]:
    return frozenset(name for line in names for name in line.split())


APART = _set(
    # They block …
    "BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF",
    # … or change the connection that they come by, or what comes back on it.
    "AUTH HELLO SELECT RESET QUIT CLIENT READONLY READWRITE ASKING HIMPORT SYNC PSYNC REPLCONF MONITOR",
    "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MULTI EXEC DISCARD WATCH UNWATCH",
)
MAY_BLOCK = frozenset({"XREAD", "XREADGROUP"})

REPEATABLE = _set(
    # Reads.
    "BITCOUNT BITPOS DBSIZE ECHO EXISTS EXPIRETIME GET GETBIT GETRANGE HEXISTS HGET HGETALL HKEYS HLEN HMGET HRANDFIELD HSCAN HSTRLEN HVALS",
    "INFO KEYS LASTSAVE LINDEX LLEN LPOS LRANGE MGET PEXPIRETIME PING PTTL RANDOMKEY ROLE SCAN SCARD SDIFF SINTER SISMEMBER SMEMBERS SMISMEMBER",
    "SRANDMEMBER SSCAN STRLEN SUNION TIME TTL TYPE XLEN XPENDING XRANGE XREAD XREVRANGE ZCARD ZCOUNT ZLEXCOUNT ZMSCORE ZRANGE ZRANGEBYLEX",
    "ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE COMMAND XINFO OBJECT MEMORY",
    # Writes that leave the store as it is when they come again. The reply tells of the last one: whoever looks at what `SET … NX` or
    # `DEL` answered compares the value as well (as `Idempotency.begin` does).
    "SET MSET SETEX PSETEX SETNX DEL UNLINK HSET HMSET HSETNX HDEL SADD SREM ZADD ZREM ZREMRANGEBYSCORE ZREMRANGEBYRANK LSET",
    "EXPIRE PEXPIRE EXPIREAT PEXPIREAT PERSIST XACK XDEL XTRIM PFADD SETBIT",
    # Scripts: each of ours may be repeated with the same arguments (`Script` in store/scripts.py and webhooks/scripts.py).
    "EVAL EVALSHA EVAL_RO EVALSHA_RO",
) | {"CONFIG GET", "CONFIG SET", "SCRIPT LOAD", "SCRIPT EXISTS", "SCRIPT FLUSH"}
_EXCEPT = {"SET": (3, "GET"), "ZADD": (2, "INCR")}
"""Options that make a repeatable command one that is not, and where options begin."""


def word(arg: Any) -> str:
    return (arg.decode(errors="replace") if isinstance(arg, bytes) else str(arg)).upper()


def apart(args: Sequence[Any]) -> bool:
    """Whether a command must not share a connection."""
    name = word(args[0]).partition(" ")[0]
    return name in APART or (name in MAY_BLOCK and "BLOCK" in map(word, args[1:8]))


def repeatable(args: Sequence[Any]) -> bool:
    """Whether a command that may have been run may be sent again."""
    name = word(args[0])
    if name in _EXCEPT:
        start, option = _EXCEPT[name]
        if option in map(word, args[start:]):
            return False
    first = name.partition(" ")[0]
    if first in REPEATABLE:
        return True
    return (name if " " in name or len(args) < 2 else f"{name} {word(args[1])}") in REPEATABLE
