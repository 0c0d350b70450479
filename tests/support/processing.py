"""What the tests of the shipped processors share: the example documents, a context, a job."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import structlog

from pipeline.config import Config
from pipeline.jobs.inputs import validated
from pipeline.jobs.model import Job
from pipeline.jobs.registry import resolve

EXAMPLES = Path(__file__).parents[2] / "examples" / "documents"


def maker() -> ModuleType:
    """examples/documents/make.py."""
    spec = importlib.util.spec_from_file_location("make_documents", EXAMPLES / "make.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Told:
    """A blocking context that keeps what it is told."""

    idempotency_key = "key-1"
    cancelled = False

    def __init__(self) -> None:
        self.reported: list[int] = []
        self.log: Any = structlog.get_logger()

    def progress(self, percent: int) -> None:
        self.reported.append(percent)

    def heartbeat(self) -> None: ...


def run(path: str, config: Config, data: Any, *, job_id: str = "1", context: Any = None) -> Any:
    """One attempt of a processor in this process, its data checked as a child checks it."""
    processor = resolve(path, config)
    job = Job(id=job_id, queue="q", name="n", data=data, attempt=1, attempts=3, timestamp=1)
    return processor.call(validated(job, processor), context or Told())


def put(config: Config, document_id: str, filename: str, content: bytes) -> str:
    """A document's place in the storage, where it then is."""
    path = Path(config.storage.url) / "documents" / document_id / filename
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return f"documents/{document_id}/{filename}"
