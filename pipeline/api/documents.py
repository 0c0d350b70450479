"""Documents: receive a file, put it into the storage, start the workflow bound to uploads."""

import asyncio
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from pydantic import Field

from pipeline.api import ownership
from pipeline.api.fields import Body, Filename, Id, MimeType
from pipeline.api.requests import claim_of, parse, refuse_compressed, require_own, respond, too_large
from pipeline.api.routing import Route
from pipeline.api.runs import RunStarted
from pipeline.api.services import Services, principal_of, services_of
from pipeline.api.uploads import Upload
from pipeline.api.workflows import started_answer
from pipeline.errors import Fault, HooklineError, InvalidInput, NotFound, Unsupported
from pipeline.ids import new_id
from pipeline.jobs.calls import now_ms
from pipeline.paths import document_folder, document_path
from pipeline.store.idempotency import Idempotency

_CHUNK = 256 * 1024
_IN_MEMORY = 1024 * 1024
_FIELD_LIMIT = 4 * 1024
_OVERHEAD = 64 * 1024
"""Boundaries, part headers and the small fields, which do not count as the file."""
_PARTS = 100
"""More than any form has; each costs us much more than it costs its sender."""
_FIELDS = {"documentId": "document_id", "mimeType": "mime_type", "userId": "user_id"}


class UploadForm(Body):
    """The parts of an upload; their order does not matter."""

    file: bytes = Field(json_schema_extra={"format": "binary"})
    document_id: Id | None = None
    """Without it, one is made."""
    mime_type: MimeType | None = None
    """Without it, the file part's own Content-Type."""
    user_id: Id | None = None
    """For services: whose document it is; without it, the caller's."""


class UploadFields(Body):
    """What an upload says about its file, once all parts have come."""

    filename: Filename
    document_id: Id | None = None
    mime_type: MimeType = ""
    user_id: Id | None = None


class DocumentAccepted(RunStarted):
    document_id: str


async def upload(request: web.Request) -> web.Response:
    services, principal = services_of(request), principal_of(request)
    workflow = services.config.uploads.workflow
    if workflow not in services.runs.definitions:
        raise NotFound(f"uploads start the workflow {workflow!r}, which is not declared", hint="declare it below workflows:, or set uploads.workflow")
    async with _receive(request, services.config.server.upload_limit) as received:
        if received.fields.user_id is not None:
            require_own(principal, received.fields.user_id)
        user_id = received.fields.user_id or principal.sub
        claim = claim_of(request, received.fields.filename, received.sha256)
        if claim and (first := await Idempotency(services.redis).peek(claim)):
            return respond(first, replayed=True)
        document_id = received.fields.document_id or new_id("doc", now_ms())
        answer = started_answer(workflow, documentId=document_id)
        data = {
            "documentId": document_id,
            "filename": received.fields.filename,
            "mimeType": received.fields.mime_type,
            "fileSize": received.size,
        }
        under_way = Upload(services, document_id)
        await _store(services, received, document_id, user_id, under_way)
        try:
            started = await services.runs.start(workflow, data, user_id=user_id, claim=claim, answer=answer)
        except HooklineError:
            # Refused for certain. After a lost connection there may be a run, and it needs the document: the sweep will see.
            await under_way.abandon()
            raise
        if started.replay:
            await under_way.abandon()
            return respond(started.replay, replayed=True)
        await under_way.finish()
    return respond(answer.filled(run=started.run_id, status=started.status))


@dataclass(kw_only=True, slots=True)
class _Received:
    """A file that has come whole, in memory or on the local disk until its place is known."""

    spool: IO[bytes]
    size: int = 0
    sha256: str = ""
    fields: UploadFields = field(default_factory=lambda: UploadFields(filename="unnamed"))

    async def chunks(self) -> AsyncIterator[bytes]:
        await asyncio.to_thread(self.spool.seek, 0)
        while chunk := await asyncio.to_thread(self.spool.read, _CHUNK):
            yield chunk


@contextlib.asynccontextmanager
async def _receive(request: web.Request, limit: int) -> AsyncIterator[_Received]:
    """Take in a multipart body.

    Where the file belongs is known only when all parts have come (their order is the client's affair), and whether it is
    wanted at all only when its hash is: hence the spool.
    Raises Unsupported, TooLarge, InvalidInput.
    """
    if not request.content_type == "multipart/form-data":
        raise Unsupported(
            f"the body's type is {request.content_type}; this route takes multipart/form-data", hint="curl -F file=@report.pdf sends that"
        )
    refuse_compressed(request)
    if (request.content_length or 0) > limit + _OVERHEAD:
        raise too_large(limit, "file")
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
        received = _Received(spool=spool)
        try:
            values = await _parts(request, received, limit)
        except (ValueError, RuntimeError, AssertionError) as error:
            # What aiohttp's reader raises for a missing boundary, a cut-off part, headers that are none, a part named _charset_.
            raise InvalidInput(f"the multipart body cannot be read: {error}", code="invalid-multipart") from error
        received.fields = parse(UploadFields, values, what="the upload")
        yield received


class _Bounded:
    """A body as the multipart reader reads it; raises TooLarge as soon as more has come, in whatever part, than a file of `limit` bytes needs."""

    def __init__(self, content: StreamReader, limit: int) -> None:
        self._content = content
        self._limit = limit

    def __getattr__(self, name: str) -> Any:
        if self._content.total_bytes > self._limit + _OVERHEAD:
            raise too_large(self._limit, "file")
        return getattr(self._content, name)


async def _parts(request: web.Request, received: _Received, limit: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    seen, count = False, 0
    async for part in MultipartReader(request.headers, cast(StreamReader, _Bounded(request.content, limit))):
        count += 1
        if count > _PARTS:
            raise InvalidInput(f"the body has more than {_PARTS} parts", code="invalid-multipart")
        if not isinstance(part, BodyPartReader):
            raise InvalidInput("a part of the body is multipart itself", code="invalid-multipart")
        if part.name == "file":
            if seen:
                raise _wrong_file("there are two; upload one file a request")
            seen = True
            await _spool(part, received, limit)
            if part.filename is None:
                raise _wrong_file("has no filename in its Content-Disposition")
            values["filename"] = part.filename
            values.setdefault("mimeType", part.headers.get("Content-Type", ""))
        elif part.name in _FIELDS:
            text = await _text(part)
            if text or part.name == "mimeType":
                values[part.name] = text
    if not seen:
        raise _wrong_file("is required")
    if received.size == 0:
        raise _wrong_file("is empty")
    return values


async def _spool(part: BodyPartReader, received: _Received, limit: int) -> None:
    digest = hashlib.sha256()
    while chunk := await part.read_chunk(_CHUNK):
        received.size += len(chunk)
        if received.size > limit:
            raise too_large(limit, "file")
        digest.update(chunk)
        await asyncio.to_thread(received.spool.write, chunk)
    received.sha256 = digest.hexdigest()


async def _text(part: BodyPartReader) -> str:
    raw = b""
    while chunk := await part.read_chunk(_FIELD_LIMIT):
        raw += chunk
        if len(raw) > _FIELD_LIMIT:
            raise InvalidInput(f"{part.name} has more than {_FIELD_LIMIT} bytes", faults=(Fault(path=part.name or "", message="is too long"),))
    return raw.decode().strip()


def _wrong_file(message: str) -> InvalidInput:
    return InvalidInput("the upload does not fit: file", faults=(Fault(path="file", message=message),), hint="send it as the multipart field `file`")


async def _store(services: Services, received: _Received, document_id: str, user_id: str, under_way: Upload) -> None:
    """Put the document into its place. Raises Conflict if there is another document of this id."""
    filename = received.fields.filename
    try:
        if received.fields.document_id and await _is_foreign(services, document_id):
            raise ownership.taken(document_id)
        of = {"user_id": user_id, "filename": filename, "sha256": received.sha256}
        await ownership.claim(services.redis, services.keys, document_id, **of, upload=under_way.name)
        chunks = under_way.alive(received.chunks())
        await services.storage.write(document_path(document_id, filename), chunks, services.config.server.upload_limit)
    except BaseException:
        await under_way.abandon()
        raise


async def _is_foreign(services: Services, document_id: str) -> bool:
    """Whether the document was put into the storage by somebody else than the API."""
    if await ownership.record(services.redis, services.keys, document_id) is not None:
        return False
    # Asked again: what is there may be what the same upload, sent twice, has just written.
    return await services.storage.exists(document_folder(document_id)) and await ownership.record(services.redis, services.keys, document_id) is None


ROUTES = (
    Route(
        method="POST",
        path="/api/documents",
        handler=upload,
        summary="Upload a document and start the workflow bound to uploads",
        multipart=UploadForm,
        status=202,
        answer=DocumentAccepted,
        idempotent=True,
        problems=(403, 404, 409, 503),
    ),
)
