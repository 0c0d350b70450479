"""A process that says one line and waits to be killed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def speaking(*command: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process and its line, '' if it ended without one; it is over, and waited for, at the end."""
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert process.stdout
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
