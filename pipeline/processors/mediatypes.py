"""What a document is: the type it is declared as, held against the type that its bytes say."""

import mimetypes
import re

UNDECLARED = ("", "application/octet-stream", "binary/octet-stream")
BINARY = "application/octet-stream"
OLE = "application/x-ole-storage"
"""The container of Word, Excel, PowerPoint and Outlook files before 2007; its bytes do not say which of them."""
_OLE_MARK = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_LOCKED_PART = "EncryptedPackage".encode("utf-16-le")
"""The name under which Office keeps an encrypted document in an OLE container."""
ZIP = "application/zip"
ARCHIVES = (ZIP, "application/gzip", "application/x-tar", "application/x-7z-compressed", "application/vnd.rar", "application/x-rar-compressed")

_ALIASES = {
    "application/x-pdf": "application/pdf",
    "application/acrobat": "application/pdf",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "text/rtf": "application/rtf",
    "application/x-rtf": "application/rtf",
    "text/xml": "application/xml",
    "text/json": "application/json",
    "application/xhtml+xml": "text/html",
    "application/csv": "text/csv",
    "text/x-markdown": "text/markdown",
    "application/x-zip-compressed": ZIP,
    "application/x-gzip": "application/gzip",
}
_IN_OLE = ("application/msword", "application/vnd.ms-", "application/x-ole-storage")
_IN_ZIP = ("application/vnd.openxmlformats-", "application/vnd.oasis.", "application/epub+zip", "application/vnd.ms-", "application/haansofthwpx")
_TEXTUAL = re.compile(r"text/.+|message/.+|application/(.+\+)?(json|xml|yaml|x-yaml|toml|javascript|sql|x-sh|x-ndjson|x-tex|x-latex)|image/svg\+xml")
_XML = re.compile(r"application/(.+\+)?xml|image/svg\+xml")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_BOMS = (b"\xff\xfe", b"\xfe\xff")
_CHARSET = re.compile(rb"charset=[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)


class Mismatch(ValueError):
    """The bytes are not what they are declared as; its text says both."""


def normalised(mime_type: str | None) -> str | None:
    """`Text/HTML; charset=x` → `text/html`; None if nothing is declared."""
    essence = (mime_type or "").split(";", 1)[0].strip().lower()
    return None if essence in UNDECLARED else _ALIASES.get(essence, essence)


def textual(mime_type: str) -> bool:
    return bool(_TEXTUAL.fullmatch(mime_type))


def detected(data: bytes, guess: str | None) -> str:
    """The type that the bytes say. `guess` is the extraction library's, which calls all that is no known format text."""
    if data.startswith(_OLE_MARK):
        return OLE
    if guess is None or textual(guess):
        if looks_textual(data):
            return guess or "text/plain"
        return BINARY
    return _ALIASES.get(guess, guess)


def xml(mime_type: str) -> bool:
    return bool(_XML.fullmatch(mime_type))


def locked(data: bytes) -> bool:
    """Whether it is an Office document with a password: whatever its name says, it is then an OLE container."""
    return data.startswith(_OLE_MARK) and _LOCKED_PART in data


def looks_textual(data: bytes) -> bool:
    """Whether the beginning is text in some encoding: no control characters but the usual ones."""
    return data.startswith(_BOMS) or not _CONTROL.search(data, 0, 8192)


def verified(declared: str | None, found: str, data: bytes, filename: str) -> str:
    """The type to read the document as.

    Undeclared, it is the found one, made precise by the name's ending where the bytes only say "text". Declared, it must agree
    with the found one; all that is text agrees with each other, since bytes cannot tell Markdown from CSV.
    Raises Mismatch.
    """
    if declared is None:
        by_name = normalised(mimetypes.guess_type(filename)[0])
        return by_name if by_name and found == "text/plain" and textual(by_name) else found
    if declared == found:
        return declared
    if textual(declared) and (textual(found) or _mentions_pdf(found, data)):
        return declared
    if (found == OLE and declared.startswith(_IN_OLE)) or (found == ZIP and declared.startswith(_IN_ZIP)):
        return declared
    what = "of no type that can be told" if found == BINARY else found
    advice = "; it holds control characters: save it as plain text" if found == BINARY and textual(declared) else ""
    raise Mismatch(f"{filename} is declared as {declared}, but its bytes are {what}{advice}")


def _mentions_pdf(found: str, data: bytes) -> bool:
    """A text about PDF: readers accept the mark anywhere in the first kilobyte."""
    return found == "application/pdf" and not data.lstrip().startswith(b"%PDF") and looks_textual(data)


def decoded(data: bytes, declared: str | None) -> tuple[str, bool]:
    """A text file's text, and whether its encoding was only guessed.

    Tried in turn: byte order mark, UTF-8, the declared charset, the one an HTML page names, Windows-1252.
    """
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, errors="replace"), False
    named = [match[1].decode() for match in (_CHARSET.search((declared or "").encode()), _CHARSET.search(data, 0, 2048)) if match]
    for encoding in ("utf-8", *named):
        try:
            text = data.decode(encoding)
            text.encode()  # Python has codecs of its own that make what is no text, or only raise
        except (UnicodeError, LookupError):
            continue
        return text, False
    return data.decode("cp1252", errors="replace"), True
