"""Everything that a store holds below a prefix, to be compared."""

from collections import defaultdict
from typing import Any

from redis.asyncio import Redis


async def contents(redis: Redis, prefix: str) -> dict[str, Any]:
    """By the rest of the key. BullMQ's events are by job: where several are done at once, only those of one keep their order."""
    found: dict[str, Any] = {}
    for key in await redis.keys(f"{prefix}:*"):
        name, kind = key.removeprefix(prefix), await redis.type(key)
        match kind:
            case "string":
                found[name] = await redis.get(key)
            case "hash":
                found[name] = await redis.hgetall(key)
            case "list":
                found[name] = await redis.lrange(key, 0, -1)
            case "set":
                found[name] = await redis.smembers(key)
            case "zset":
                found[name] = await redis.zrange(key, 0, -1, withscores=True)
            case "stream":
                entries = [fields for _, fields in await redis.xrange(key)]
                found[name] = entries if name == ":log" else _by_job(entries)
        if await redis.pttl(key) > 0:
            found[name] = (found[name], "expires")
    return found


def _by_job(entries: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    told = defaultdict(list)
    for entry in entries:
        told[entry.get("jobId", "")].append(entry)
    return dict(told)
