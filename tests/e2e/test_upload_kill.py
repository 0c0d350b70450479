"""An upload whose process is killed with SIGKILL, while it comes in or while it is being stored, leaves nothing."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil

from tests.support.api import DOCUMENT_UPLOAD
from tests.support.service import Service, token

MIB = 1 << 20
CONFIG = {"workflows": {"document-upload": DOCUMENT_UPLOAD}, "server": {"upload_limit": "400MiB"}}


def _form(chunks: AsyncIterator[bytes]) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("documentId", "d")
    form.add_field("file", chunks, filename="big.txt", content_type="text/plain")
    return form


async def _mib(count: int, *, then_wait: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * MIB
    if then_wait:
        then_wait.set()
        await asyncio.Event().wait()


def _files(*folders: Path) -> list[str]:
    return sorted(path.name for folder in folders for path in folder.rglob("*") if path.is_file())


def _wait_until_empty(*folders: Path) -> None:
    """Nobody tells when the sweep has been there."""
    until = time.monotonic() + 20
    while left := _files(*folders):
        assert time.monotonic() < until, left
        time.sleep(0.02)


async def test_an_upload_whose_process_is_killed_leaves_nothing(tmp_path: Path) -> None:
    stored, spools = tmp_path / "storage", tmp_path / "tmp"
    spools.mkdir()
    service = Service(tmp_path, CONFIG, role="api", environment={"TMPDIR": str(spools)})
    await service.start()
    try:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token()}"}) as session:
            sent = asyncio.Event()
            upload = asyncio.create_task(session.post(f"{service.url}/api/documents", data=_form(_mib(40, then_wait=sent))))
            await asyncio.wait_for(sent.wait(), 30)
            assert not upload.done()
            await service.kill()
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
            assert await asyncio.to_thread(_files, stored, spools) == []

            await service.start()
            api = [child for child in psutil.Process(service.pid).children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
            upload = asyncio.create_task(session.post(f"{service.url}/api/documents", data=_form(_mib(300))))
            incoming = stored / ".incoming"
            while not await asyncio.to_thread(_files, incoming):
                assert not upload.done()
                await asyncio.sleep(0.001)
            for process in (psutil.Process(service.pid), *api):
                os.kill(process.pid, signal.SIGSTOP)
            [left] = await asyncio.to_thread(_files, stored)
            assert (incoming / left).stat().st_size < 300 * MIB, "it was killed too late to tell anything"
            await service.kill()
            await asyncio.gather(upload, return_exceptions=True)
            assert await asyncio.to_thread(_files, stored) == [left]

            await service.start()
            await asyncio.to_thread(_wait_until_empty, stored, spools)
            async with session.post(f"{service.url}/api/documents", data=_form(_mib(300))) as response:
                assert response.status == 202, await response.text()
            assert await asyncio.to_thread(_files, stored) == ["big.txt"]
    finally:
        await service.stop()
