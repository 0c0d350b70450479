"""An HTTP/1.1 answer, taken apart as its bytes come: strict in its framing, bounded in every direction, without I/O."""

import re
import zlib
from collections.abc import Callable
from functools import lru_cache

from webhooks.chunks import Chunks, NotChunked

MAX_ANSWER = 64 * 1024
"""Bytes of a body that are read, counted on the wire and after decompression."""
MAX_HEAD = 64 * 1024
MAX_HEADER_LINE = 8190
MAX_HEADERS = 100
"""Of a whole answer, those before a `100 Continue` and behind the last chunk included."""
MAX_VALUE = 200
"""Characters of a header that are handed on."""
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: |\r?\n)")
_NAME = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH = re.compile(rb"[0-9]{1,18}")
_KNOWN = frozenset({b"connection", b"content-encoding", b"content-length", b"retry-after", b"transfer-encoding", b"webhook-delivery"})
_WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_Fields = dict[bytes, list[bytes]]


class ExchangeFailed(Exception):
    """Why there is no answer, in words for the record."""


class NotHttp(ExchangeFailed):
    def __init__(self, why: str) -> None:
        super().__init__(f"the answer is not HTTP, or its headers exceed the limits: {why}")


class Closed(ExchangeFailed):
    """Before a byte of an answer."""

    def __init__(self) -> None:
        super().__init__("the receiver closed the connection without an answer")


class BrokenOff(ExchangeFailed):
    def __init__(self) -> None:
        super().__init__("the answer's body broke off")


class Answer:
    """The answer as far as it has come."""

    def __init__(self) -> None:
        self.status: int | None = None
        """As soon as its headers are whole."""
        self.retry_after: str | None = None
        self.webhook_delivery: str | None = None
        self.body = bytearray()
        """Decompressed, at most MAX_ANSWER."""
        self.complete = False
        """Nothing more is wanted: it has ended, or what is read of one has been read."""
        self.reusable = False
        """It has ended such that the connection may serve the next request."""
        self._take: Callable[[bytes], bytes] = self._take_head
        self._rest = b""
        self._searched = 0
        self._head_room = MAX_HEAD
        self._headers = 0
        self._received = 0
        self._left = 0
        self._chunks: Chunks | None = None
        self._decoder: zlib._Decompress | None = None
        self._keep = False

    def feed(self, data: bytes) -> bool:
        """Take what came; returns whether the answer is complete. Raises NotHttp."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        while data and not self.complete:
            data = self._take(data)
        # Who says more than was asked for could put an answer into the mouth of the next one.
        self.reusable = self.complete and self._keep and not data
        return self.complete

    def end(self) -> None:
        """The receiver closed the connection. Raises Closed or BrokenOff where it had not finished."""
        if self.complete:
            return
        if self.status is None:
            raise Closed
        if self._take != self._take_rest:
            raise BrokenOff
        self.complete = True

    def text(self, size: int) -> str | None:
        """The first `size` bytes of the body, as text."""
        if self.status is None:
            return None
        return self.body[:size].decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")

    # --- head ---------------------------------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> bytes:
        # From where the last search ended, or a head that comes byte by byte would be searched as often.
        end, after = _empty_line(data, max(self._searched - 2, 0))
        size = after if end >= 0 else len(data)
        if size > self._head_room:
            raise NotHttp(f"more than {MAX_HEAD:,} bytes of headers")
        if end < 0:
            if size - data.rfind(b"\n") > MAX_HEADER_LINE:
                raise NotHttp("a line is too long")
            self._rest, self._searched = data, size
            return b""
        self._searched = 0
        self._head_room -= size
        head = data[:end].removesuffix(b"\r").replace(b"\r\n", b"\n")
        if b"\r" in head:
            # To others it ends a line.
            raise NotHttp("a CR is not followed by a LF")
        first, *lines = head.split(b"\n")
        status = _STATUS.match(data)
        if not status or len(first) > MAX_HEADER_LINE:
            raise NotHttp("its first line is no status")
        fields = self._parse(lines)
        code = int(status[2])
        # An interim answer is followed by the real one, within the same limits; 101 is none: nobody asked to switch.
        if code >= 200 or code == 101:
            self.status = code
            self.retry_after = _text(fields, b"retry-after")
            self.webhook_delivery = _text(fields, b"webhook-delivery")
            self._keep = status[1] == b"1" and code != 101 and b"close" not in _tokens(fields, b"connection")
            self._frame(code, fields)
        return data[size:]

    def _parse(self, lines: list[bytes]) -> _Fields:
        self._headers += len(lines)
        if self._headers > MAX_HEADERS:
            raise NotHttp(f"more than {MAX_HEADERS} headers")
        fields: _Fields = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise NotHttp("a line is no header")
            if len(line) > MAX_HEADER_LINE:
                raise NotHttp("a line is too long")
            if known := _known(name):
                fields.setdefault(known, []).append(value.strip(b" \t"))
        return fields

    def _frame(self, code: int, fields: _Fields) -> None:
        """How the body ends (RFC 9112, section 6.3); where two ways are told or one is in doubt, it is refused."""
        coding, lengths = fields.get(b"transfer-encoding", []), fields.get(b"content-length", [])
        if coding and ([one.lower() for one in coding] != [b"chunked"] or lengths):
            raise NotHttp("its length is told in two ways, or in one that nobody asked for")
        if len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
            raise NotHttp("its Content-Length is no number")
        if code in (101, 204, 304):
            self.complete = True
            # A body that they announce and must not have would begin the next answer if it came all the same.
            self._keep = self._keep and not coding and lengths in ([], [b"0"])
            return
        encoding = _tokens(fields, b"content-encoding")
        if len(encoding) == 1 and (window := _WINDOWS.get(encoding[0])):
            self._decoder = zlib.decompressobj(window)
        if coding:
            self._take, self._chunks = self._take_chunks, Chunks()
        elif lengths:
            self._left = int(lengths[0])
            self._take = self._take_length
            self.complete = self._left == 0
        else:
            self._take, self._keep = self._take_rest, False

    # --- body ---------------------------------------------------------------------------------------------------------

    def _take_length(self, data: bytes) -> bytes:
        piece = data[: self._left]
        self._left -= len(piece)
        self.complete = self._left == 0
        self._add(piece)
        return data[len(piece) :]

    def _take_chunks(self, data: bytes) -> bytes:
        assert self._chunks
        try:
            pieces, rest = self._chunks.feed(data)
        except NotChunked as error:
            raise NotHttp(str(error)) from None
        self.complete = self._chunks.ended
        self._add(b"".join(pieces))
        if self.complete:
            return rest
        self._rest = rest
        return b""

    def _take_rest(self, data: bytes) -> bytes:
        self._add(data)
        return b""

    def _add(self, piece: bytes) -> None:
        """What lies beyond the first 64 KiB is cut off, together with the connection."""
        self._received += len(piece)
        room = MAX_ANSWER - len(self.body)
        if self._decoder:
            try:
                piece = self._decoder.decompress(piece, room)
            except zlib.error:
                # It is not what its header says: kept as it came.
                self._decoder = None
        self.body += piece[:room]
        if self._received > MAX_ANSWER or len(self.body) >= MAX_ANSWER:
            self.complete, self._keep = True, False


@lru_cache(256)
def _known(name: bytes) -> bytes | None:
    """A header's name in lower case if we ask for its value; kept, because receivers send the same ones. Raises NotHttp for what is none."""
    if not name or name.translate(None, _NAME):
        raise NotHttp("a line is no header")
    lower = name.lower()
    return lower if lower in _KNOWN else None


def _empty_line(data: bytes, start: int) -> tuple[int, int]:
    """Where the line before the first empty one ends, and where the bytes behind it begin; -1 and 0 without one. A line may end in a bare LF."""
    usual = data.find(b"\n\r\n", start)
    bare = data.find(b"\n\n", start) if usual < 0 else data.find(b"\n\n", start, usual)
    if bare >= 0:
        return bare, bare + 2
    return usual, usual + 3


def _tokens(fields: _Fields, name: bytes) -> list[bytes]:
    """A header's comma-separated words, in lower case."""
    if name not in fields:
        return []
    return [word for value in fields[name] for part in value.split(b",") if (word := part.strip().lower())]


def _text(fields: _Fields, name: bytes) -> str | None:
    values = fields.get(name)
    return values[0][:MAX_VALUE].decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}") if values else None
