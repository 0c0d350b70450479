"""Several hashes of the store, read in one round trip."""

from collections.abc import Iterable

from webhooks.scripts import Store


async def read(redis: Store, keys: Iterable[str]) -> list[dict[str, str]]:
    """Each one's fields, none where there is no such hash. Of very many, ask for some at a time: the store serves nobody else meanwhile."""
    async with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(key)
        found: list[dict[str, str]] = await pipe.execute()
    return found
