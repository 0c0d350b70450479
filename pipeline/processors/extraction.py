"""Text out of documents, by kreuzberg; runs in child processes alone, which is why the library is imported late."""

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.errors import InvalidInput, PermanentFailure
from pipeline.paths import text_path
from pipeline.processors import containers, hypertext, mediatypes
from pipeline.processors.extras import needed
from pipeline.storage import Storage

PAGE_END = "\f"
"""Ends each page in a stored text, as in pdftotext's output; a text without any has no pages."""
NO_TEXT = "no-text"
TEXT_LIMIT = 32 << 20
"""Bytes of UTF-8: what an analysis can read within its own time limit."""
METADATA_LIMIT = 8 * 1024
_VALUE_LIMIT = 500
_WARNINGS = 10
_FIRST = ("title", "authors", "author", "creator", "subject", "description", "keywords", "language", "created_at", "modified_at")
"""What is kept first when there is too much metadata."""
_DETAILS = ("pages", "headers", "links", "images", "structured_data", "format_type", "files", "file_list", "attachments")
"""What describes the content rather than the document, and grows with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extraction:
    text: str
    """With PAGE_END after each page, if the format has pages."""
    pages: int | None
    """None for formats without pages of their own (HTML, DOCX, text)."""
    language: str | None
    """ISO 639-3, where it could be told."""
    metadata: dict[str, Any]
    """Bounded to METADATA_LIMIT bytes of JSON."""
    warnings: tuple[str, ...]


def prepare() -> None:
    """Import the library, which a child does before its first job."""
    with needed("documents"):
        import kreuzberg

    kreuzberg.detect_mime_type(b"%PDF-1.4\n")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def type_of(data: bytes, declared: str | None, filename: str) -> str:
    """The document's media type.

    Raises PermanentFailure if it is declared as something else than its bytes are, or is of a kind that is not read.
    """
    from kreuzberg import detect_mime_type

    if not data:
        raise PermanentFailure(f"{filename} is empty; upload it again")
    if mediatypes.locked(data):
        raise PermanentFailure(_locked(filename))
    try:
        guess: str | None = detect_mime_type(data)
    except RuntimeError:
        # Its way to say that it knows no format like this.
        guess = None
    try:
        mime_type = mediatypes.verified(mediatypes.normalised(declared), mediatypes.detected(data, guess), data, filename)
    except mediatypes.Mismatch as mismatch:
        raise PermanentFailure(str(mismatch)) from mismatch
    if mime_type == mediatypes.BINARY:
        raise PermanentFailure(f"{filename} is of no known type: neither its mimeType nor its bytes say what it is; declare its mimeType")
    if mime_type in mediatypes.ARCHIVES:
        raise PermanentFailure(f"{filename} is an archive ({mime_type}), which is not opened; upload the documents in it one by one")
    return mime_type


def extract(data: bytes, mime_type: str, filename: str, *, declared: str | None = None) -> Extraction:
    """The text of a document of this type; `declared` may name its charset.

    Raises PermanentFailure for one that is damaged, locked or of a type that is not supported, with a reason to act on.
    """
    from kreuzberg import ExtractionConfig, LanguageDetectionConfig, PageConfig, extract_bytes_sync, validate_mime_type
    from kreuzberg.exceptions import KreuzbergError, MissingDependencyError, ValidationError

    warnings: list[str] = []
    if mediatypes.textual(mime_type):
        text, guessed = mediatypes.decoded(data, declared)
        data = text.encode()
        if guessed:
            warnings.append("encoding: the text is not UTF-8 and names no charset; it was read as Windows-1252")
        _bounded_text(len(data), filename)
    else:
        warnings += _looked_through(data, mime_type, filename)
    try:
        read_as = validate_mime_type(mime_type)
    except (ValidationError, ValueError):
        if not mediatypes.textual(mime_type):
            raise PermanentFailure(f"{filename} is {mime_type}, which is not a type of document that can be read") from None
        read_as = "text/plain"
    config = ExtractionConfig(
        use_cache=False,
        disable_ocr=True,
        pages=PageConfig(extract_pages=True),
        language_detection=LanguageDetectionConfig(enabled=True, min_confidence=0.5),
    )
    page = None
    if mime_type == "text/html":
        page = hypertext.text_of(text)
    elif mediatypes.xml(mime_type):
        # The library leaves out attributes, and takes a kilobyte for each level.
        try:
            read_as, data = "text/plain", hypertext.text_of(text, xml=True).encode()
        except hypertext.Entities as error:
            raise PermanentFailure(_entities(filename)) from error
    elif mime_type == "text/markdown":
        # The library leaves out what is HTML in it.
        read_as = "text/plain"
    try:
        result = extract_bytes_sync(data, read_as, config)
        # The library's own text of a page is for reading: it leaves out forms, text beside pictures, and all below a certain depth.
        languages = (result if page is None else extract_bytes_sync(page.encode(), "text/plain", config)).detected_languages
    except MissingDependencyError:
        raise
    except KreuzbergError as error:
        raise PermanentFailure(_reason(str(error), mime_type, filename)) from error
    metadata, cut = bounded(dict(result.metadata))
    if cut:
        warnings.append(f"metadata: more than {METADATA_LIMIT} bytes; the rest was left out")
    warnings += [f"extraction: {str(getattr(warning, 'message', warning))[:_VALUE_LIMIT]}" for warning in result.processing_warnings[:_WARNINGS]]
    paged = bool(result.pages) and "pages" in result.metadata
    text = "".join(_plain(page["content"]) + PAGE_END for page in result.pages) if paged else _plain(result.content if page is None else page)
    _bounded_text(len(text.encode()), filename)
    if not text.strip():
        warnings.append(NO_TEXT)
    return Extraction(
        text=text,
        pages=len(result.pages) if paged else None,
        language=languages[0] if languages else None,
        metadata=metadata,
        warnings=tuple(warnings),
    )


def stored_text(storage: Storage, path: str, *, document_id: str, declared: str | None) -> tuple[str, tuple[str, ...]]:
    """A document's text and warnings: as it was stored for these very bytes, else extracted now and stored.

    Raises NotFound, PermanentFailure.
    """
    data = storage.read(path)
    try:
        at = text_path(document_id, sha256(data))
    except InvalidInput as error:
        raise PermanentFailure(error.message) from error
    if storage.has(at):
        return storage.read_text(at), ()
    filename = path.rpartition("/")[2]
    extraction = extract(data, type_of(data, declared, filename), filename, declared=declared)
    storage.write_derived(at, extraction.text, document=path)
    return extraction.text, extraction.warnings


def bounded(metadata: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Metadata without what is empty and what grows with the content, within METADATA_LIMIT; and whether something had to go."""
    flat: dict[str, Any] = {}
    for key, value in metadata.items():
        if isinstance(value, dict) and key not in _DETAILS:
            flat |= {inner: item for inner, item in value.items() if inner not in flat}
        else:
            flat.setdefault(key, value)
    order = sorted(flat, key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), key))
    kept: dict[str, Any] = {}
    cut, size = False, 2
    for key in order:
        value = _short(flat[key])
        if key in _DETAILS or value in (None, "", [], {}):
            continue
        entry = len(orjson.dumps({key: value}))
        if size + entry > METADATA_LIMIT:
            cut = True
            continue
        kept[key] = value
        size += entry
    return kept, cut


def _short(value: Any) -> Any:
    """A value as plain JSON of bounded size; deep structures are left out."""
    if value is None or isinstance(value, (bool, int, float)):
        return value if value is None or abs(value) < 2**53 else None
    if isinstance(value, str):
        return value[:_VALUE_LIMIT].encode(errors="replace").decode()
    if isinstance(value, (list, tuple)):
        return [item[:_VALUE_LIMIT] for item in value[:20] if isinstance(item, str)]
    if isinstance(value, dict):
        return None
    return str(value)[:_VALUE_LIMIT]


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace(PAGE_END, "\n")


def _bounded_text(size: int, filename: str) -> None:
    if size > TEXT_LIMIT:
        raise PermanentFailure(
            f"{filename} has {size >> 20} MiB of text, but at most {TEXT_LIMIT >> 20} MiB are analysed; split it and upload its parts"
        )


def _looked_through(data: bytes, mime_type: str, filename: str) -> list[str]:
    """Warnings about what is in a document's container. Raises PermanentFailure for one that is better not unpacked."""
    try:
        embedded = containers.checked(data).embedded
    except containers.Locked as error:
        raise PermanentFailure(_locked(filename)) from error
    except containers.Entities as error:
        raise PermanentFailure(_entities(filename)) from error
    except containers.TooMuch as error:
        raise PermanentFailure(f"{filename} has {error}; remove what is large in it, or split it, and upload it again") from error
    except containers.Damaged as error:
        raise PermanentFailure(_damaged(str(error)[:200], mime_type, filename)) from error
    if not embedded:
        return []
    return [f"embedded: {len(embedded)} files in the document were not read ({', '.join(embedded)[:_VALUE_LIMIT]}); upload them one by one"]


def _locked(filename: str) -> str:
    return f"{filename} is protected by a password; remove the protection and upload it again"


def _entities(filename: str) -> str:
    return f"{filename} declares XML entities, which are not expanded: not all of its text could be read; save it without them and upload it again"


def _damaged(cause: str, mime_type: str, filename: str) -> str:
    return f"{filename} cannot be read as {mime_type}: it is damaged or incomplete ({cause}); upload it again"


def _reason(error: str, mime_type: str, filename: str) -> str:
    if "password" in error.lower() or "encrypt" in error.lower():
        return _locked(filename)
    cause = error.rpartition(": ")[2].strip()[:200] or "unknown"
    if "limit" in cause.lower():
        return f"{filename} is too large or nested too deep inside to be read as {mime_type} ({cause}); split it, or save it anew in a simpler form"
    return _damaged(cause, mime_type, filename)
