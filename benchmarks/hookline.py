"""Our side of the benchmarks: `hookline serve` in processes of its own, as its operators run it, on the benchmark's store."""

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.support.chains import BUILTIN
from tests.support.service import ROOT, Service
from tests.support.valkey import Valkey

QUEUE = "bench"
STEPS = ("a", "b", "c")
"""The queues of the workflow."""


def config(concurrency: int) -> dict[str, Any]:
    """A config.yaml with one queue of no-op jobs and a workflow of three no-op steps; each reads the result of the one before."""
    noop = {"processors": {"do": "benchmarks.processors:noop"}, "concurrency": concurrency}
    step = {"processors": {"do": "benchmarks.processors:echo"}, "concurrency": concurrency}
    # The shipped queues without the shipped processors, whose libraries are no part of what is measured.
    shipped = {name: {"processors": {job: "benchmarks.processors:noop"}} for name, job in BUILTIN.items()}
    steps = {
        "one": {"queue": "a", "with": {"documentId": "${{ input.documentId }}", "filename": "${{ input.filename }}"}},
        "two": {"needs": ["one"], "queue": "b", "with": {"documentId": "${{ steps.one.result.documentId }}"}},
        "three": {"needs": ["two"], "queue": "c", "with": {"documentId": "${{ steps.two.result.documentId }}"}},
    }
    return {"queues": {**shipped, QUEUE: noop, **dict.fromkeys(STEPS, step)}, "workflows": {"chain": {"version": 1, "steps": steps}}}


@contextlib.asynccontextmanager
async def serving(
    store: Valkey, role: str, *, concurrency: int = 10, more: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Service]:
    """A service that is up; `more` goes into its config.yaml."""
    with tempfile.TemporaryDirectory(prefix="hookline-bench-") as folder:
        service = Service(
            Path(folder), {**config(concurrency), **(more or {})}, role=role, environment={"REDIS_URL": store.url, **(environment or {})}
        )
        try:
            await service.start()
            yield service
        finally:
            # Also one that did not come up within its time.
            await service.stop()


def processes(service: Service) -> list[psutil.Process]:
    """All of a service's processes; its store is not its own here."""
    main = psutil.Process(service.pid)
    return [main, *main.children(recursive=True)]


async def produced(settings: dict[str, Any]) -> dict[str, Any]:
    """What `benchmarks.producer` says of adding, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.producer", json.dumps(settings), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("benchmarks.producer failed")
    found: dict[str, Any] = json.loads(out)
    return found
