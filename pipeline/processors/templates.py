"""A notification's template: text or HTML with `{places}` for a job's data, checked when it is loaded, escaped when it is filled in."""

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Literal

from pipeline.yamlsource import suggestion

Kind = Literal["subject", "text", "html"]
NAMES = ("subject", "message", "userId", "to", "type")
"""What a place may name, besides `data.<name>` for an entry of the job's own `data`."""
MAX_LENGTH = 65_536
MAX_FILLED = 1 << 20
"""Characters of a filled-in template: a long message named often would grow to any size."""
_PLACE = re.compile(r"\{([A-Za-z_]\w*(?:\.\w+)*)\}")
_MUSTACHE = re.compile(r"\{\{\s*([\w.]+)\s*\}\}")
_URL_ATTRIBUTES = ("href", "src", "action", "formaction", "background", "cite", "poster")
_FIXED_TARGET = re.compile(r"https?://[\w.-]+(:\d+)?[/?#]|(mailto|tel):", re.IGNORECASE)
_NO_ENTITIES = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "plaintext")
"""Elements in which `&lt;` is no `<`, or in which nobody would look for a message."""

Value = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """What is wrong with a template, and where: characters from its beginning."""

    message: str
    offset: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    name: str
    start: int
    end: int


class UnfilledPlace(ValueError):
    """The job's data has no value for a place; the text says which."""


def mistakes(text: str, kind: Kind) -> list[Mistake]:
    """Everything that is wrong with a template, in its order."""
    if len(text) > MAX_LENGTH:
        return [Mistake(message=f"has {len(text):,} characters; at most {MAX_LENGTH:,}", offset=0)]
    if not text.strip():
        return [Mistake(message="is empty; leave it out to use what the job says", offset=0)]
    found = [
        Mistake(message=f"{match[0]!r}: a place is written with single braces: {{{match[1]}}}", offset=match.start())
        for match in _MUSTACHE.finditer(text)
    ]
    for place in _places(text):
        if place.name.startswith("data.") and place.name.count(".") == 1:
            continue
        if place.name not in NAMES:
            hint = suggestion(place.name, (*NAMES, "data.<name>"))
            found.append(Mistake(message=f"there is nothing called {place.name!r} to fill in{hint}", offset=place.start))
    if kind == "subject" and "\n" in text.strip():
        found.append(Mistake(message="a subject is one line", offset=0))
    if kind == "html":
        found += _unsafe(text)
    return sorted(found, key=lambda mistake: mistake.offset)


def filled(text: str, values: Mapping[str, Value], kind: Kind) -> str:
    """The template with its places filled in; in HTML the values are escaped, and their line breaks kept.

    `values` has the entries of `data` as `data.<name>`. Raises UnfilledPlace for a value that is missing or null, and ValueError for a
    result of more than MAX_FILLED characters.
    """
    parts: list[str] = []
    at = size = 0
    breaks = _breaks(text) if kind == "html" else frozenset()
    for place in _places(text):
        value = values.get(place.name)
        if value is None:
            raise UnfilledPlace(f"{{{place.name}}} has no value: the job names no {place.name}")
        written = ("true" if value else "false") if isinstance(value, bool) else str(value)
        if kind == "html":
            written = html.escape(written, quote=True)
            written = re.sub(r"\r\n|\r|\n", "<br>\n", written) if place.start in breaks else written
        parts += [text[at : place.start], written]
        at, size = place.end, size + len(written)
        if size > MAX_FILLED:
            raise ValueError(f"filled in, it has more than {MAX_FILLED:,} characters")
    return "".join([*parts, text[at:]])


def _places(text: str) -> Iterator[_Place]:
    doubled = {match.start() + 1 for match in _MUSTACHE.finditer(text)}
    return (_Place(name=match[1], start=match.start(), end=match.end()) for match in _PLACE.finditer(text) if match.start() not in doubled)


def _breaks(text: str) -> frozenset[int]:
    """Where places stand between tags: there, a line break is a `<br>`."""
    reader = _Reader(text)
    return frozenset(place.start for place, where in zip(_places(text), reader.where, strict=False) if where == "text")


def _unsafe(text: str) -> list[Mistake]:
    reader = _Reader(text)
    places = list(_places(text))
    found = [Mistake(message=reason, offset=places[number].start) for number, reason in reader.refused.items() if number < len(places)]
    if len(reader.where) != len(places):
        found.append(
            Mistake(message="a place stands where HTML has neither text nor an attribute's value (in a tag's name or a declaration)", offset=0)
        )
    return found


class _Reader(HTMLParser):
    """Finds out for each place of a template, in its order, what it is part of, and where escaping would not be enough."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.where: list[str] = []
        self.refused: dict[int, str] = {}
        self._raw: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        written = self.get_starttag_text() or ""
        for name, value in attrs:
            for match in _PLACE.finditer(value or ""):
                if not re.search(rf"""=\s*("[^"]*{re.escape(match[0])}|'[^']*{re.escape(match[0])})""", written):
                    self._refuse(f"the value of {name} needs quotes around it")
                elif name.startswith("on") or name in ("style", "srcdoc"):
                    self._refuse(f"nothing can be filled into {name} safely")
                elif name in _URL_ATTRIBUTES and not _FIXED_TARGET.match((value or "")[: match.start()]):
                    self._refuse(f"where {name} leads is to be written out (https://host/…, mailto:); only what follows can be filled in")
                self.where.append("attribute")
        self._raw = tag if tag in _NO_ENTITIES else self._raw

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        self._raw = None if tag == self._raw else self._raw

    def handle_data(self, data: str) -> None:
        for _ in _PLACE.finditer(data):
            if self._raw:
                self._refuse(f"nothing can be filled into <{self._raw}> safely")
            self.where.append("text")

    def handle_comment(self, data: str) -> None:
        for _ in _PLACE.finditer(data):
            self._refuse("a comment is sent with the message; leave the place out")
            self.where.append("comment")

    def _refuse(self, reason: str) -> None:
        self.refused[len(self.where)] = reason
