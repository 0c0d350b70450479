"""The text of an HTML page or an XML document: all of it, in order, however deep or wrong its tags are."""

import re
from html import unescape
from html.parser import HTMLParser

_SILENT = frozenset(("script", "style"))
"""Their content is not text; the parser itself finds where they end."""
_BLOCKS = re.compile(
    "address|article|aside|blockquote|body|button|caption|d[dlt]|details|dialog|div|fieldset|figcaption|figure|footer|form|h[1-6r]|head|header|html"
    "|iframe|legend|li|main|nav|noscript|[ou]l|optgroup|option|p|pre|section|select|summary|table|t(body|emplate|extarea|foot|head|itle|r)"
)
_CELLS = frozenset(("td", "th"))
_SPOKEN = ("alt", "title", "placeholder", "value", "aria-label")
"""Attributes that people read or hear."""
_SPACE = re.compile(r"[ \t\r\n\f]+")
_ADDRESSES = ("mailto:", "tel:")
_ENTITY = re.compile(r"(?:^|<!)ENTITY\s")
"""A declaration in a document type, which the parser gives as part of that, or as a comment."""


class Entities(ValueError):
    """The document declares entities: what they stand for is text that is never expanded."""


def text_of(page: str, *, xml: bool = False) -> str:
    """One line for each block, cells parted by ` | `; hidden elements included, scripts and styles not.

    In XML each element is a block, and each attribute's value is text. Nothing is fetched or expanded; raises Entities where that would
    lose text of an XML document.
    """
    reader = _Reader(xml)
    reader.feed(page)
    # What a tag or comment that nothing closes leaves. The parser's own end tries it anew at each `<`: minutes for a hundred kilobytes.
    reader.handle_data(unescape(reader.rawdata))
    return reader.text()


class _Reader(HTMLParser):
    def __init__(self, xml: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._xml = xml
        self._lines: list[str] = []
        self._line: list[str] = []
        self._silent = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent = tag in _SILENT
        if self._xml or tag == "br" or _BLOCKS.fullmatch(tag):
            self._break()
        elif tag in _CELLS and self._line:
            self._line.append(" | ")
        for name, value in attrs:
            if value and (name in _SPOKEN or (self._xml and not name.startswith("xmlns"))):
                self._line.append(f" {value} ")
            elif value and name == "href" and value.lower().startswith(_ADDRESSES):
                self._line.append(f" {value.partition(':')[2]} ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        # `<script/>` ends nothing to a browser, but what follows it is better read than lost.
        self._silent = False

    def handle_endtag(self, tag: str) -> None:
        self._silent = False
        if self._xml or _BLOCKS.fullmatch(tag):
            self._break()

    def handle_decl(self, decl: str) -> None:
        if self._xml and _ENTITY.search(decl):
            raise Entities

    def handle_comment(self, data: str) -> None:
        self.handle_decl(data)

    def unknown_decl(self, data: str) -> None:
        if data.startswith("CDATA["):
            self._line.append(data.removeprefix("CDATA["))

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._line.append(data)

    def text(self) -> str:
        self._break()
        return "\n".join(self._lines)

    def _break(self) -> None:
        line = _SPACE.sub(" ", "".join(self._line)).strip()
        if line:
            self._lines.append(line)
        self._line.clear()
