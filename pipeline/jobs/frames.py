"""The frames that a worker and its child processes exchange: a length of four bytes, then that much JSON."""

import struct
from typing import IO, Any

import orjson

FRAME_LIMIT = 64 << 20
"""A child that asks for more than this is out of its mind; a job's data, the largest honest frame, is far below."""
HEADER = struct.Struct(">I")


class BadFrame(ValueError):
    """What came is no frame of ours."""


def pack(frame: dict[str, Any]) -> bytes:
    body = orjson.dumps(frame)
    return HEADER.pack(len(body)) + body


def body_size(header: bytes) -> int:
    """Raises BadFrame."""
    size = int(HEADER.unpack(header)[0])
    if size > FRAME_LIMIT:
        raise BadFrame(f"a frame of {size:,} bytes; the limit is {FRAME_LIMIT:,}")
    return size


def unpack(body: bytes) -> dict[str, Any]:
    """Raises BadFrame."""
    try:
        frame = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadFrame(f"not JSON: {error}") from error
    if not isinstance(frame, dict):
        raise BadFrame(f"a {type(frame).__name__} instead of an object")
    return frame


def read(pipe: IO[bytes]) -> dict[str, Any] | None:
    """The next frame of a blocking pipe; None at its end."""
    header = pipe.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    size = body_size(header)
    body = pipe.read(size)
    return unpack(body) if len(body) == size else None
