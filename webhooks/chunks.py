"""The chunks of a body (RFC 9112, section 7.1), taken apart as their bytes come; without I/O."""

import re

MAX_FRAMING = 64 * 1024
"""Bytes around the chunks: bounds what a body of many tiny ones, of long extensions or of endless trailers costs."""
_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r?")


class NotChunked(Exception):
    """What is wrong with it, in words for the record."""


class Chunks:
    def __init__(self) -> None:
        self.ended = False
        self._framing = 0
        self._left = 0
        """Bytes of the present chunk that are still to come."""
        self._line = self._size

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Returns the pieces of the body in `data`, and what of `data` is to be fed again in front of the next. Raises NotChunked."""
        pieces: list[bytes] = []
        at = 0
        while not self.ended:
            if self._left:
                piece = data[at : at + self._left]
                if not piece:
                    break
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                continue
            end = data.find(b"\n", at)
            if self._framing + (end if end >= 0 else len(data)) - at > MAX_FRAMING:
                raise NotChunked("too much is around its chunks")
            if end < 0:
                break
            self._framing += end + 1 - at
            self._line(data[at:end])
            at = end + 1
        return pieces, data[at:]

    def _size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if not found:
            raise NotChunked("a chunk has no size")
        self._left = int(found[1], 16)
        self._line = self._after if self._left else self._trailer

    def _after(self, line: bytes) -> None:
        if line not in (b"", b"\r"):
            raise NotChunked("a chunk is longer than its size")
        self._line = self._size

    def _trailer(self, line: bytes) -> None:
        self.ended = line in (b"", b"\r")
