"""The service's memory does not grow with an upload, and one that is cut off leaves nothing, told by a service in processes of its own."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.support.api import DOCUMENT_UPLOAD
from tests.support.service import Service, token

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
MIB = 1 << 20
ALLOWED = 24 * MIB
"""Buffers, and what Python does not give back at once; a quarter of the file."""


def _memory(pids: list[int], what: str) -> dict[int, int]:
    """Bytes by process; VmRSS is what it holds now, VmHWM the most since `_forget`."""
    found = {}
    for pid in pids:
        text = Path(f"/proc/{pid}/status").read_text()
        if match := re.search(rf"{what}:\s+(\d+) kB", text):
            found[pid] = int(match[1]) * 1024
    return found


def _forget(pids: list[int]) -> None:
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _form(chunks: AsyncIterator[bytes]) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("file", chunks, filename="big.txt", content_type="text/plain")
    return form


async def _mib(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * MIB


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_memory_stays_flat_for_100_mib_and_a_cut_off_upload_leaves_nothing(tmp_path: Path) -> None:
    stored = tmp_path / "storage"
    async with Service(tmp_path, {"workflows": {"document-upload": DOCUMENT_UPLOAD}}, role="api") as service:
        url = f"{service.url}/api/documents"
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token()}"}) as session:
            async with session.post(url, data=_form(_mib(4))) as response:
                assert response.status == 202
            main = psutil.Process(service.pid)
            pids = [main.pid, *(child.pid for child in main.children(recursive=True))]
            _forget(pids)
            before = _memory(pids, "VmRSS")
            async with session.post(url, data=_form(_mib(100))) as response:
                assert response.status == 202
            grown = {pid: most - before[pid] for pid, most in _memory(pids, "VmHWM").items()}
            assert max(grown.values()) < ALLOWED, grown
            whole = await asyncio.to_thread(_files, stored)
            assert sorted(path.stat().st_size for path in whole) == [4 * MIB, 100 * MIB]

            sent = asyncio.Event()

            async def endless() -> AsyncIterator[bytes]:
                async for chunk in _mib(40):
                    yield chunk
                sent.set()
                await asyncio.Event().wait()

            upload = asyncio.create_task(session.post(url, data=_form(endless())))
            await asyncio.wait_for(sent.wait(), 30)
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
        assert await service.stop() == 0
        assert await asyncio.to_thread(_files, stored) == whole
