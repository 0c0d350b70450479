"""The Lua scripts that lie beside these modules, called by hash."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

_FOLDER = Path(__file__).parent

Store = Any
"""A `redis.asyncio.Redis` with `decode_responses=True`. redis-py types each reply as a union of all that it could be."""


class Script:
    """One script with the shared prelude before it. Each may be repeated with the same arguments: clients do so after a lost reply."""

    def __init__(self, redis: Store, *names: str) -> None:
        """The last of `names` is the script, those before it are what it has of its own to share."""
        self._redis = redis
        self._text = "".join((_FOLDER / f"{name}.lua").read_text() for name in ("prelude", *names))
        self._hash = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        try:
            return await self._redis.evalsha(self._hash, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self._redis.eval(self._text, len(keys), *keys, *arguments)
