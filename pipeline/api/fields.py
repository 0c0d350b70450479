"""The kinds of value that requests carry, with their rules: ids, file names, media types, paths, times."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from pipeline.errors import InvalidInput
from pipeline.paths import NAME_BYTES, checked_filename, resolve

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MIME = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
MAX_INTEGER = 2**53 - 1
"""What every JSON implementation reads exactly."""


class Body(BaseModel):
    """What a request may carry: camelCase, nothing converted (`"12"` is no number), unknown fields left aside."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)

    def stored(self) -> dict[str, Any]:
        """The known fields as JSON, without those that were not given."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Query(BaseModel):
    """What a query string may carry; a parameter that is not known is a mistake, since ignoring a filter shows too much."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=False, validate_by_alias=True)


class Shape(BaseModel):
    """What an answer carries: camelCase."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


def _wrong(kind: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(kind, message)


def _id(text: str) -> str:
    # It becomes part of paths and keys.
    if not _ID.fullmatch(text) or text in (".", ".."):
        raise _wrong("id", "must be 1 to 128 of A-Z a-z 0-9 . _ - and not . or ..")
    return text


def _filename(text: str) -> str:
    if len(text.encode()) > NAME_BYTES:
        raise _wrong("filename", f"must have at most {NAME_BYTES} bytes in UTF-8")
    try:
        return checked_filename(text)
    except InvalidInput as error:
        raise _wrong("filename", "must be a file's name without / \\ or control characters, and not . or .. or .hookline") from error


def _mime_type(text: str) -> str:
    kind = text.partition(";")[0].strip()
    if len(text) > 255 or (kind and not _MIME.fullmatch(kind)):
        raise _wrong("mime_type", "must be a media type such as application/pdf, or empty if it is not known")
    return text


def _path(text: str) -> str:
    try:
        resolve(text)
    except InvalidInput as error:
        raise _wrong("path", "must be a path below the storage root, without .. \\ or control characters") from error
    return text


def _line(text: str) -> str:
    if _CONTROL.search(text):
        raise _wrong("line", "must be one line without control characters")
    return text


Id = Annotated[str, AfterValidator(_id)]
Filename = Annotated[str, AfterValidator(_filename)]
MimeType = Annotated[str, AfterValidator(_mime_type)]
"""As declared by the client; empty or application/octet-stream means undeclared, parameters are ignored by who reads it."""
StoragePath = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_path)]
Line = Annotated[str, AfterValidator(_line)]
