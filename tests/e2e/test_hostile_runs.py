"""Hostile documents through the whole service: a failed run that says why, after one attempt, and workers that go on."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
import yaml

from pipeline.client import Client, RequestFailed
from pipeline.errors import InvalidInput
from pipeline.paths import checked_filename
from tests.support.attempts import generate
from tests.support.catalogue import DOCUMENTS, Hostile
from tests.support.runs import ended
from tests.support.service import ROOT, Service, token


def _named(document: Hostile) -> bool:
    """Whether it has a name that the API takes."""
    try:
        return checked_filename(document.filename) == document.filename
    except InvalidInput:
        return False


def _move(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)


@pytest.mark.timeout(300)
async def test_each_is_a_failed_run_with_its_reason_or_does_no_harm(tmp_path: Path) -> None:
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text())
    generated = tmp_path / "generated"
    generated.mkdir()
    await asyncio.to_thread(generate, generated)
    runs: dict[str, str] = {}
    async with (
        Service(tmp_path, {name: shipped[name] for name in ("workflows", "uploads")}) as service,
        Client(service.url, token()) as client,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token()}"}) as session,
    ):

        async def upload(document: Hostile, path: Path) -> str:
            form = aiohttp.FormData(default_to_multipart=True)
            with path.open("rb") as file:
                form.add_field("file", file, filename=document.filename, content_type=document.mime_type or "application/octet-stream")
                async with session.post(f"{service.url}/api/documents", data=form) as response:
                    assert response.status == 202, (document.name, await response.text())
                    return str((await response.json())["runId"])

        async def post(document: Hostile, path: Path) -> str:
            """As services do that put documents into the storage themselves."""
            place = tmp_path / "storage" / "documents" / document.name / document.filename
            await asyncio.to_thread(_move, path, place)
            body = {"documentId": document.name, "userId": "u", "filename": document.filename, "mimeType": document.mime_type, "fileSize": 0}
            return str((await client.add_job("document-processing", body))["runId"])

        for document in DOCUMENTS:
            path = generated / document.name
            if not _named(document):
                with pytest.raises(RequestFailed, match="filename"):
                    await post(document, path)
            elif path.stat().st_size == 0:
                runs[document.name] = await post(document, path)
            else:
                runs[document.name] = await upload(document, path)
        await ended(client, len(runs), seconds=240)
        shown = {name: await client.run(run) for name, run in runs.items()}
        assert "process died" not in service.log
    for document in DOCUMENTS:
        if document.name not in shown:
            continue
        run = shown[document.name]
        if document.reason is None:
            assert run["status"] == "completed", (document.name, run["error"])
        else:
            ends = (run["status"], run["steps"]["process"]["attempts"], run["steps"]["analyze"]["status"])
            assert ends == ("failed", 1, "blocked"), document.name
            assert document.reason in run["error"], document.name
