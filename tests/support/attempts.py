"""Attempts of the document processor at hostile documents, in its real child process, with what each took."""

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.config import Config
from pipeline.errors import PermanentFailure
from pipeline.jobs.isolation import IsolatedPool
from pipeline.jobs.model import Job
from pipeline.jobs.registry import resolve
from tests.support.catalogue import DOCUMENTS, Hostile
from tests.unit.test_isolation import Recorder

ROOT = Path(__file__).parents[2]
PATH = "pipeline.processors.documents:DocumentProcessingProcessor"
LOOK_EVERY = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    document: Hostile
    size: int
    seconds: float
    mib: int
    """The most that the child held."""
    reason: str | None
    result: dict[str, Any] | None


def generate(folder: Path) -> None:
    """All documents into an empty folder, by a process of its own under a memory limit."""
    subprocess.run([sys.executable, "-m", "tests.support.catalogue", str(folder)], cwd=ROOT, check=True, timeout=300)


async def attempts(folder: Path) -> AsyncIterator[Attempt]:
    """Each document in turn; `folder` is for the files and is left nearly empty. Raises what is no PermanentFailure."""
    generated = folder / "generated"
    generated.mkdir()
    await asyncio.to_thread(generate, generated)
    config = Config.model_validate({"storage": {"url": str(folder / "storage")}})
    pool = IsolatedPool(resolve(PATH, config), config, 1)
    try:
        for number, document in enumerate(DOCUMENTS):
            place = folder / "storage" / "documents" / f"d{number}" / document.filename
            # Where each name leads, if it is followed.
            place.parent.mkdir(parents=True, exist_ok=True)
            (generated / document.name).rename(place)
            await pool.warm()
            yield await _attempt(pool, document, f"d{number}", place.stat().st_size)
            place.unlink()
    finally:
        await pool.close()


async def _attempt(pool: IsolatedPool, document: Hostile, document_id: str, size: int) -> Attempt:
    data = {"documentId": document_id, "filename": document.filename, "mimeType": document.mime_type}
    _forget_peaks()
    task = asyncio.ensure_future(pool.run(Job(id="1", queue="q", name="n", data=data, attempt=1, attempts=3, timestamp=1), Recorder()))
    began, most, reason, result = time.monotonic(), 0, None, None
    while not task.done():
        await asyncio.wait({task}, timeout=LOOK_EVERY)
        most = max(most, *(_peak(child.pid) for child in psutil.Process().children()), 0)
    seconds = time.monotonic() - began
    try:
        result = task.result()
    except PermanentFailure as failure:
        reason = failure.message
    return Attempt(document=document, size=size, seconds=seconds, mib=most >> 20, reason=reason, result=result)


def _forget_peaks() -> None:
    """What the child held before is not this document's."""
    for child in psutil.Process().children():
        Path(f"/proc/{child.pid}/clear_refs").write_text("5")


def _peak(pid: int) -> int:
    """Bytes; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()):
            return int(found[1]) * 1024
    return 0
