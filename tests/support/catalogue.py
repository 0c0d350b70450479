"""The hostile documents by name, each with what must become of it.

`python -m tests.support.catalogue FOLDER` writes them there, under a limit of memory: a mistake in a generator must not take the machine.
"""

import base64
import functools
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import hostile
from tests.support.hostile import DOCX, MIB, ODT, XLSX

GENERATOR_MEMORY = 3 << 30
"""Bytes of address space."""
TEXT = "text/plain"
PDF = "application/pdf"
HTML = "text/html"
KILLED = "exceeded its memory limit of 1 GiB"
ARCHIVE = "which is not opened; upload the documents in it one by one"
DAMAGED = "it is damaged or incomplete"
LOCKED = "is protected by a password; remove the protection and upload it again"
UNPACKED = "3,072 MiB once unpacked; at most 256 are read"
INTRICATE = "is too large or nested too deep inside to be read"
OTHER_TYPE = "is declared as"
ENTITIES = "declares XML entities, which are not expanded"
NOWHERE = 9
"""The port that the external references here name; whether it is dialled is another test's affair."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hostile:
    name: str
    what: str
    """In a few words, for the table of docs/documents.md."""
    mime_type: str
    """As it is declared."""
    make: Callable[[], bytes]
    reason: str | None
    """A part of the reason that its run fails with; None if it can do no harm and its run completes."""
    filename: str


def _documents() -> Iterator[Hostile]:
    def one(name: str, what: str, mime_type: str, make: Callable[[], bytes], reason: str | None, filename: str = "") -> Hostile:
        return Hostile(name=name, what=what, mime_type=mime_type, make=make, reason=reason, filename=filename or name)

    zeros = hostile.deflated_zeros
    # containers
    yield one("bomb.docx", "DOCX of 3 MiB, whose text unpacks to 3 GiB", DOCX, lambda: hostile.docx_bomb(3072), UNPACKED)
    yield one("liar.docx", "the same, but its headers tell 1,000 bytes", DOCX, lambda: hostile.docx_bomb(3072, claimed=1000), DAMAGED)
    yield one("bomb.odt", "ODT whose text unpacks to 3 GiB", ODT, lambda: hostile.container({"content.xml": zeros(3072)}, kind=ODT), UNPACKED)
    yield one("bomb.xlsx", "XLSX whose workbook unpacks to 3 GiB", XLSX, lambda: hostile.container({"xl/workbook.xml": zeros(3072)}), UNPACKED)
    yield one("bomb.zip", "zip archive of 3 GiB", "application/zip", lambda: hostile.zip_of_streams({"a": zeros(3072)}), ARCHIVE)
    yield one("bomb.gz", "gzip of 1 GiB", "", lambda: hostile.GZIP_HEAD + zeros(1024)[0], ARCHIVE)
    yield one("nested.zip", "50 zip archives in each other", "", lambda: hostile.nested(50), ARCHIVE)
    inner = "word/embeddings/"
    more = {inner + "a.zip": lambda: hostile.nested(50), inner + "b.docx": lambda: hostile.docx_bomb(3072)}
    yield one("nested.docx", "DOCX with archives and a bomb embedded", DOCX, lambda: hostile.docx(more={k: v() for k, v in more.items()}), None)
    text, repeated = "hello " * 200_000, "application/vnd.oasis.opendocument.spreadsheet"
    yield one("shared.xlsx", "XLSX whose 10,000 cells share a text of 1.2 MB", XLSX, lambda: hostile.xlsx_of_one_text(text, 10_000), KILLED)
    yield one("repeated.ods", "ODS whose one cell is repeated 2³⁴ times", repeated, hostile.ods_of_repeated_cells, INTRICATE)
    yield one("parts.docx", "DOCX of 60,000 parts", DOCX, lambda: hostile.docx(more={f"word/media/{n}": b"" for n in range(60_000)}), "60,003 parts")
    slip = {"../../../../tmp/slipped": b"x", "/tmp/slipped": b"x"}
    yield one("slip.docx", "DOCX with parts named `../../../../tmp/…`", DOCX, lambda: hostile.docx(more=slip), None)
    yield one("cut.docx", "DOCX, cut off in the middle", DOCX, lambda: hostile.docx()[:700], DAMAGED)
    # locked
    yield one("locked.docx", "DOCX with a password", DOCX, hostile.encrypted_docx, LOCKED)
    yield one("locked-parts.docx", "DOCX that an archiver encrypted", DOCX, hostile.docx_of_encrypted_parts, LOCKED)
    yield one("locked.odt", "ODT with a password", ODT, hostile.encrypted_odt, LOCKED)
    yield one("locked.epub", "EPUB whose pages are encrypted", hostile.EPUB, hostile.encrypted_epub, LOCKED)
    yield one("locked.pdf", "PDF with a password (AES-256)", PDF, hostile.encrypted_pdf, LOCKED)
    yield one("owner.pdf", "PDF that all may open and only its owner may change", PDF, lambda: hostile.encrypted_pdf(user=""), None)
    yield one("locked.zip", "zip archive with a password (AES)", "application/zip", hostile.encrypted_zip, ARCHIVE)
    # PDF
    yield one("bomb.pdf", "PDF whose page unpacks to 2 GiB, twice compressed", PDF, lambda: hostile.pdf_bomb(2048), KILLED)
    yield one("words.pdf", "PDF of 200 KB that draws 10 million words on one page", PDF, lambda: hostile.pdf_of_much_text(100), KILLED)
    yield one("pages.pdf", "PDF of 10,000 pages", PDF, lambda: hostile.pdf_pages(10_000), None)
    yield one("circle.pdf", "PDF whose page tree is a circle of a billion pages", PDF, hostile.pdf_in_circles, DAMAGED)
    yield one("cut.pdf", "PDF, cut off in the middle", PDF, lambda: hostile.pdf_pages(100)[:6000], DAMAGED)
    yield one("noise.pdf", "PDF of 99 MiB of noise", PDF, lambda: b"%PDF-1.7\n" + hostile.random_bytes(99), DAMAGED)
    # markup
    yield one("deep.xml", "XML, a million elements deep", "application/xml", lambda: hostile.deep("<a>", "</a>", 1_000_000), None)
    yield one("laughs.xml", "XML whose entities expand to 30 GB", "application/xml", hostile.laughs, ENTITIES)
    yield one("laughs.docx", "DOCX whose entities expand to 30 GB", DOCX, hostile.laughing_docx, ENTITIES)
    yield one("deep.docx", "DOCX, 100,000 tables in each other", DOCX, lambda: hostile.deep_docx(100_000), None)
    yield one("deep.html", "HTML, 500,000 elements deep", HTML, lambda: hostile.HTML_HEAD + hostile.deep("<div>", "</div>", 500_000), None)
    yield one("open.html", "HTML of a million tags that nothing closes", HTML, lambda: hostile.HTML_HEAD + b"<a " * 1_000_000, None)
    yield one(
        "image.html", "HTML with 53 MiB of picture in it", HTML, lambda: hostile.html_with_image(base64.b64encode(bytes(40 * MIB))), "53 MiB of text"
    )
    yield one("deep.json", "JSON, a million lists deep", "application/json", lambda: hostile.deep("[", "]", 1_000_000, "1"), INTRICATE)
    yield one("laughs.yaml", "YAML whose anchors expand to 10⁹ items", "application/yaml", hostile.yaml_laughs, INTRICATE)
    yield one("deep.md", "Markdown, 200,000 quotations deep", "text/markdown", lambda: b">" * 200_000 + b" x", None)
    yield one("deep.rtf", "RTF, a million groups deep", "application/rtf", lambda: b"{\\rtf1 " + hostile.deep("{", "}", 1_000_000) + b"}", None)
    yield one("deep.eml", "mail in mail, 20,000 times", "message/rfc822", lambda: hostile.MAIL_IN_MAIL * 20_000 + b"Subject: x\r\n\r\nx", None)
    yield one("wide.csv", "CSV of one row with 10 million columns", "text/csv", lambda: b"a," * (10 * MIB), KILLED)
    # references to files and hosts outside
    for key, (filename, mime_type, content) in hostile.external(NOWHERE).items():
        kind = filename.rpartition(".")[2]
        name = f"external.{kind}" if key != "docx entities" else "entities.docx"
        reason = ENTITIES if key in ("xml", "svg", "docx entities") else None
        yield one(name, f"{kind.upper()} that names files and hosts to be fetched", mime_type, functools.partial(bytes, content), reason)
    # polyglots
    yield one("both.pdf", "PDF and zip archive in one, declared as PDF", PDF, hostile.pdf_and_zip, None)
    yield one("both.docx", "the same, declared as DOCX", DOCX, hostile.pdf_and_zip, OTHER_TYPE)
    yield one("both.html", "HTML page with a PDF after it", HTML, lambda: hostile.HTML_HEAD + b"<p>hello</p>\n" + hostile.pdf_pages(1), None)
    yield one("program.pdf", "Windows program with a PDF in it, declared as PDF", PDF, lambda: b"MZ" + bytes(500) + hostile.pdf_pages(1), OTHER_TYPE)
    yield one("bomb.png", "PNG of 74 bytes and 50,000 × 50,000 pixels", "image/png", hostile.image_bomb, INTRICATE)
    # sizes and characters
    yield one("empty.pdf", "0 bytes", PDF, lambda: b"", "is empty; upload it again")
    yield one("words.txt", "text of 99 MiB", TEXT, lambda: (b"Words that are many. " * 50_000 + b"\n") * 99, "99 MiB of text")
    yield one("word.txt", "text of 100 MiB without a space", TEXT, lambda: b"x" * (100 * MIB), "100 MiB of text")
    yield one("nul.txt", "text with control characters", TEXT, lambda: b"text\x00\x01\x02" * 1000, "of no type that can be told")
    name = "\U0001d54c\U0001d55f\U0001d55a \U0001f9fe \u202etxt.exe"
    yield one(
        "escapes.txt", "text with a terminal's escape sequences and other control characters", TEXT, lambda: b"\x1b[31m\x01" * 99, "control char"
    )
    up = "../../up.txt"
    yield one("up", f"text with the name `{up}`", TEXT, lambda: b"a text", "is a path", up)
    yield one("controls", "text with control characters in its name", TEXT, lambda: b"a text", "holds control characters", "a\x1b[2J\nb.txt")
    yield one(
        "unicode", "4-byte Unicode in text and name, and a mark that turns it round", TEXT, lambda: "\U00010348 \U0001f9fe".encode(), None, name
    )


DOCUMENTS = tuple(_documents())


def main(folder: Path) -> None:
    """Each document as `<folder>/<name>`."""
    resource.setrlimit(resource.RLIMIT_AS, (GENERATOR_MEMORY, GENERATOR_MEMORY))
    for document in DOCUMENTS:
        (folder / document.name).write_bytes(document.make())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
