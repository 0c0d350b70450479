"""Where in the storage each file is, and which names people may give: pure.

    documents/<documentId>/<filename>                        the document, as it came
    documents/<documentId>/.hookline/<sha256>.txt            its text; pages are parted by form feeds
    documents/<documentId>/.hookline/findings-<jobId>.json   all findings of one analysis
    .incoming/<random>                                       files that are still being written

The text's name is the hash of the bytes it was taken from, so that a replaced document never meets the text of the old one.
"""

import re

from pipeline.errors import Fault, InvalidInput

DERIVED = ".hookline"
INCOMING = ".incoming"
NAME_BYTES = 255
"""What common file systems allow for one name."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def checked_id(document_id: str) -> str:
    """The id itself. Raises InvalidInput unless it is 1 to 128 of A-Z a-z 0-9 . _ - and not `.` or `..`."""
    if not _ID.fullmatch(document_id) or document_id in (".", ".."):
        raise _invalid("documentId", f"{document_id!r} is not a document id", "use 1 to 128 of A-Z a-z 0-9 . _ - (and not . or ..)")
    return document_id


def checked_filename(filename: str) -> str:
    """The name itself. Raises InvalidInput for a name that is a path, reserved, too long, or holds control characters."""
    if not filename or filename in (".", "..", DERIVED):
        raise _invalid("filename", f"{filename!r} is not a file name" if filename != DERIVED else f"{DERIVED!r} is reserved", "rename the file")
    if "/" in filename or "\\" in filename:
        raise _invalid("filename", f"{filename!r} is a path", "send the last part of it alone")
    if _CONTROL.search(filename):
        raise _invalid("filename", f"{filename!r} holds control characters", "rename the file")
    try:
        size = len(filename.encode())
    except UnicodeEncodeError:
        raise _invalid("filename", f"{filename!r} cannot be written as UTF-8", "rename the file") from None
    if size > NAME_BYTES:
        raise _invalid("filename", f"has {size} bytes", f"shorten it to {NAME_BYTES}")
    return filename


def document_path(document_id: str, filename: str) -> str:
    """`documents/<documentId>/<filename>`. Raises InvalidInput."""
    return f"documents/{checked_id(document_id)}/{checked_filename(filename)}"


def document_folder(document_id: str) -> str:
    """Of the document and all that is derived from it. Raises InvalidInput."""
    return f"documents/{checked_id(document_id)}"


def text_path(document_id: str, sha256: str) -> str:
    return f"documents/{checked_id(document_id)}/{DERIVED}/{sha256}.txt"


def findings_path(document_id: str, job_id: str) -> str:
    """One file per job: two analyses of a document, for other frameworks, do not overwrite each other."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", job_id)[:200]
    return f"documents/{checked_id(document_id)}/{DERIVED}/findings-{name}.json"


def resolve(path: str) -> str:
    """A path as people write it, relative to the storage root: a leading slash is dropped.

    Raises InvalidInput for one that is empty or leaves the root.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\\" in path or _CONTROL.search(path):
        raise _invalid("documentPath", f"{path!r} is not a path below the storage root", "write it without .., \\ and control characters")
    if not parts:
        raise _invalid("documentPath", f"{path!r} names no file", "write it as documents/<documentId>/<filename>")
    return "/".join(parts)


def _invalid(path: str, message: str, hint: str) -> InvalidInput:
    return InvalidInput(
        f"{path} {message}" if message.startswith("has ") else f"{path}: {message}", faults=(Fault(path=path, message=message),), hint=hint
    )
