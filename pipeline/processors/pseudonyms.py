"""A text without the personal data that was recognised in it: placeholders instead, and the way back to where they stood."""

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.processors.rules import Span

PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]*_\d+\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """A stretch of the pseudonymised text: copied, or a placeholder."""

    start: int
    original: int
    """Where it begins in the original."""
    copied: bool
    original_end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pseudonymised:
    text: str
    cut: bool
    """Whether the original goes on after what is here."""
    _pieces: tuple[_Piece, ...]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the original that this one stands for; of a placeholder that is touched, the whole."""
        first, last = self._piece(start), self._piece(end - 1)
        begin = first.original + (start - first.start) if first.copied else first.original
        return begin, last.original + (end - last.start) if last.copied else last.original_end

    def _piece(self, at: int) -> _Piece:
        return self._pieces[bisect.bisect_right(self._pieces, at, key=lambda piece: piece.start) - 1]


def pseudonymised(text: str, spans: Sequence[Span], *, limit: int) -> Pseudonymised:
    """At most `limit` characters from the text's beginning, each span replaced by its kind and a number.

    The same value of the same kind has the same number throughout a text, so that a reader can tell whether two places speak of
    the same person; numbers begin at 1 in each text. `spans` as `merged` gives them. Nothing is cut within a word or a placeholder.
    """
    numbers: dict[tuple[str, str], int] = {}
    counts: dict[str, int] = {}
    parts: list[str] = []
    pieces: list[_Piece] = []
    at = size = 0
    for span in (*spans, None):
        end = span.start if span else len(text)
        copied = text[at:end]
        if size + len(copied) > limit:
            copied = _whole_words(copied, limit - size)
            parts.append(copied)
            pieces.append(_Piece(start=size, original=at, copied=True, original_end=at + len(copied)))
            return Pseudonymised(text="".join(parts), cut=True, _pieces=tuple(pieces))
        if copied:
            parts.append(copied)
            pieces.append(_Piece(start=size, original=at, copied=True, original_end=end))
            size += len(copied)
        if span is None:
            break
        value = (span.kind, re.sub(r"\W+", "", text[span.start : span.end]).casefold())
        if value not in numbers:
            counts[span.kind] = numbers[value] = counts.get(span.kind, 0) + 1
        placeholder = f"[{span.kind}_{numbers[value]}]"
        if size + len(placeholder) > limit:
            return Pseudonymised(text="".join(parts), cut=True, _pieces=tuple(pieces))
        parts.append(placeholder)
        pieces.append(_Piece(start=size, original=span.start, copied=False, original_end=span.end))
        size, at = size + len(placeholder), span.end
    return Pseudonymised(text="".join(parts), cut=False, _pieces=tuple(pieces))


def _whole_words(text: str, limit: int) -> str:
    if text[limit : limit + 1].isspace():
        return text[:limit]
    kept = text[:limit]
    space = max(kept.rfind(" "), kept.rfind("\n"))
    # A word of this length is none: half of it is better than nothing.
    return kept[: space + 1] if space >= limit - 200 else kept
