"""Lua scripts: our own, and BullMQ's files composed unchanged into ours so that two writes are both-or-neither."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
from redis.exceptions import NoScriptError

from pipeline.store.connection import Store

Argument = str | bytes | int
Call = tuple[list[str], list[Argument]]


@cache
def _commands() -> dict[str, str]:
    # Looked up, not imported: the library's Python is not used, and each process would pay for it.
    folder = Path(str(importlib.metadata.distribution("bullmq").locate_file("bullmq/commands")))
    return {file.name.split("-")[0]: file.read_text() for file in folder.glob("*.lua")}


def stock(name: str) -> str:
    """The text of BullMQ's own script, for example `moveToFinished`."""
    return _commands()[name]


def digest(name: str) -> str:
    """Content hash of a stock script; a test pins those we call, because they are private to the library."""
    return hashlib.sha256(stock(name).encode()).hexdigest()[:16]


def bullmq_version() -> str:
    return importlib.metadata.version("bullmq")


class Script:
    """A Lua script that is called by hash and loaded again when the store has forgotten it.

    The client sends a call again whose reply was lost. So each script must do no harm when it comes twice with the same keys and
    arguments: what it writes the second time is what stands there, or it recognises that it was there, and answers accordingly.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        # SHA-1 is what EVALSHA names scripts by.
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Store, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        try:
            return await redis.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await redis.eval(self.source, len(keys), *keys, *args)

    async def once(self, redis: Store, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """As a call, but not sent again after a lost reply (`Client.once`)."""
        try:
            return await redis.once("EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await redis.once("EVAL", self.source, len(keys), *keys, *args)


def composed(body: str, *names: str) -> Script:
    """A script whose `body` may call each named stock script as `name(KEYS, ARGV)`.

    The wrapping function's parameters shadow the globals of those names, so the files need no change.
    """
    functions = "".join(f"local function {name}(KEYS, ARGV)\n{stock(name)}\nend\n" for name in names)
    return Script(functions + body)


def lua(package: str, name: str) -> str:
    """The text of our own Lua file that lies beside its caller."""
    return (importlib.resources.files(package) / name).read_text()


def pack(value: Any) -> bytes:
    """msgpack as the store's cmsgpack reads it (it refuses the `bin` type)."""
    return bytes(msgpack.packb(value, use_bin_type=False))


def pack_call(call: Call) -> list[Any]:
    """A call's keys and arguments as strings: what a script would see in KEYS and ARGV."""
    keys, args = call
    return [keys, [arg if isinstance(arg, str | bytes) else str(arg) for arg in args]]
