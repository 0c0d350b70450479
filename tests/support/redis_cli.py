"""`redis-cli` for machines without it: `python redis_cli.py COMMAND …` asks the store at $REDIS_URL and prints the answer as at a terminal."""

import os
import sys
from typing import Any

import redis

_ESCAPES = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 7: "\\a", 8: "\\b"}


def formatted(reply: Any, indent: str = "") -> str:
    """As at a terminal: `(integer) 3`, `"text"`, `1) …`."""
    if reply is None:
        return "(nil)"
    if isinstance(reply, int):
        return f"(integer) {reply}"
    if isinstance(reply, list):
        width = len(str(len(reply)))
        lines = [f"{n:>{width}}) {formatted(item, indent + ' ' * (width + 2))}" for n, item in enumerate(reply, 1)]
        return ("\n" + indent).join(lines) if lines else "(empty array)"
    return '"' + "".join(_ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in reply) + '"'


def answer(connection: "redis.Connection", *command: str) -> str:
    """Below the client, whose callbacks would turn replies into dictionaries and floats."""
    connection.send_command(*command)
    try:
        reply = connection.read_response(disable_decoding=True)
    except redis.ResponseError as error:
        return f"(error) {error}"
    # INFO is shown as it comes; status replies such as OK have no quotes either.
    plain = command[0].upper() in ("INFO", "PING") or [word.upper() for word in command[:2]] == ["CONFIG", "SET"]
    return reply.decode() if plain else formatted(reply)


if __name__ == "__main__":
    line = redis.Redis.from_url(os.environ["REDIS_URL"], protocol=2).connection_pool.get_connection()
    print(answer(line, *sys.argv[1:]))
