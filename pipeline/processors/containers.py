"""Zip containers (DOCX, XLSX, ODT, EPUB …) before they are read: whether that is safe, and what in them stays unread."""

import io
import re
import zipfile
import zlib
from dataclasses import dataclass

INFLATED_LIMIT = 256 << 20
"""Bytes of all parts together; a hundred times what long reports have, and a quarter of what the processor may hold."""
PARTS_LIMIT = 10_000
_MARK = b"PK\x03\x04"
_LOCKED = 0x1
"""Bit of an entry's flags: its bytes are encrypted."""
_MARKUP = (".xml", ".rels", ".xhtml", ".html", ".htm", ".opf", ".ncx")
_EMBEDDED = ("/embeddings/", "/Embeddings/")
_LOCKED_PARTS = {
    "META-INF/manifest.xml": re.compile(rb"encryption-data"),
    "META-INF/encryption.xml": re.compile(rb"""CipherReference\s[^>]{0,99}URI=["'][^"']{0,999}\.(?:xhtml|html?|xml|opf|ncx)["']""", re.IGNORECASE),
}
"""Where OpenDocument and EPUB tell that parts are encrypted, which the zip's own directory does not; encrypted fonts lock no text."""
_ENTITY = b"<!ENTITY"
_CHUNK = 1 << 20


class Locked(ValueError):
    """Parts of the container are encrypted."""


class TooMuch(ValueError):
    """There is more in the container than may be read; its text says what."""


class Entities(ValueError):
    """A part declares XML entities: what they stand for is text that is never expanded."""


class Damaged(ValueError):
    """The container's parts are not what its directory says; its text says which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    embedded: tuple[str, ...] = ()
    """Names of documents inside the document."""


def checked(data: bytes) -> Contents:
    """Look through a document's container, without holding more than a chunk of it. Raises Locked, TooMuch, Entities, Damaged."""
    if not data.startswith(_MARK):
        return Contents()
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # the latter two for offsets and versions that no archive has
        # Without a directory nothing can be unpacked; the library that reads the document says so.
        return Contents()
    with archive:
        entries = archive.infolist()
        if any(entry.flag_bits & _LOCKED for entry in entries):
            raise Locked
        if len(entries) > PARTS_LIMIT:
            raise TooMuch(f"{len(entries):,} parts; at most {PARTS_LIMIT:,} are read")
        if (total := sum(entry.file_size for entry in entries)) > INFLATED_LIMIT:
            raise TooMuch(f"{total >> 20:,} MiB once unpacked; at most {INFLATED_LIMIT >> 20} are read")
        for entry in entries:
            if entry.filename.lower().endswith(_MARKUP):
                _verify(archive, entry, _LOCKED_PARTS.get(entry.filename))
    return Contents(embedded=tuple(entry.filename for entry in entries if any(folder in entry.filename for folder in _EMBEDDED)))


def _verify(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, lock: re.Pattern[bytes] | None) -> None:
    """Unpack a part to its end: one that lies about its size would be read in part, and its rest analysed by nobody."""
    locked = entities = False
    try:
        with archive.open(entry) as part:
            end = b""
            while chunk := part.read(_CHUNK):
                entities |= _ENTITY in end + chunk
                locked |= bool(lock and lock.search(chunk))
                end = chunk[1 - len(_ENTITY) :]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:  # what zipfile lets out of a damaged entry
        raise Damaged(f"{entry.filename}: {error}") from error
    if locked:
        raise Locked
    if entities:
        raise Entities
