"""The document processor: from a stored document to its stored text, and what can be said of it."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from pipeline.config import Config
from pipeline.errors import InvalidInput, PermanentFailure
from pipeline.jobs.model import Job
from pipeline.jobs.registry import processor
from pipeline.paths import document_path, resolve, text_path
from pipeline.processors import extraction
from pipeline.storage import Storage


class ProcessDocument(BaseModel):
    """The data of a `process-document` job. Unknown fields are ignored: clients send more than we need."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    document_id: str
    user_id: str | None = None
    filename: str
    mime_type: str | None = None
    """Empty or application/octet-stream: undeclared; parameters are ignored."""
    file_size: int | None = Field(None, ge=0)
    """Bytes; 0 or nothing: undeclared."""
    path: str | None = None
    """Where the document is, if not at `documents/<documentId>/<filename>`; relative to the storage's root."""


class DocumentProcessed(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    path: str
    text_path: str
    pages: int | None
    mime_type: str
    size: int
    sha256: str
    language: str | None
    metadata: dict[str, Any]
    warnings: list[str]


@processor(
    "process-document",
    input=ProcessDocument,
    isolated=True,
    timeout="2m",
    memory="1GiB",
    advice="the document is too large or too intricate to be read: split it, or upload its text",
)
class DocumentProcessingProcessor:
    """Verifies a document's declared type and size, extracts its text, stores that beside it."""

    def __init__(self, config: Config) -> None:
        self._storage = Storage(config.storage.url, base=Path(config.folder))

    def prepare(self) -> None:
        extraction.prepare()

    def process(self, job: Job, context: Any) -> DocumentProcessed:
        """Raises NotFound while the document is not there yet (a retry may find it); PermanentFailure for one that is not as
        declared, damaged, or of a type that cannot be read."""
        wanted: ProcessDocument = job.data
        try:
            named = document_path(wanted.document_id, wanted.filename)
            path = resolve(wanted.path) if wanted.path else named
        except InvalidInput as error:
            raise PermanentFailure(error.message) from error
        data = self._storage.read(path)
        context.progress(10)
        if wanted.file_size and wanted.file_size != len(data):
            raise PermanentFailure(f"{wanted.filename} is declared to have {wanted.file_size} bytes, but has {len(data)}")
        mime_type = extraction.type_of(data, wanted.mime_type, wanted.filename)
        digest = extraction.sha256(data)
        context.progress(20)
        extracted = extraction.extract(data, mime_type, wanted.filename, declared=wanted.mime_type)
        context.progress(80)
        at = text_path(wanted.document_id, digest)
        self._storage.write_derived(at, extracted.text, document=path)
        context.progress(100)
        context.log.info("document processed", mimeType=mime_type, size=len(data), pages=extracted.pages, characters=len(extracted.text))
        return DocumentProcessed(
            path=path,
            text_path=at,
            pages=extracted.pages,
            mime_type=mime_type,
            size=len(data),
            sha256=digest,
            language=extracted.language,
            metadata=extracted.metadata,
            warnings=list(extracted.warnings),
        )
