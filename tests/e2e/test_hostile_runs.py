"""Hostile documents through the whole service: a failed run that says why, after one attempt, and a worker that goes on."""

import io
from pathlib import Path

import aiohttp
import yaml

from pipeline.client import Client
from tests.support.catalogue import DOCUMENTS
from tests.support.runs import ended
from tests.support.service import ROOT, Service, token

CHOSEN = ("bomb.docx", "bomb.pdf", "locked.pdf", "locked.docx", "cut.pdf", "deep.json", "nul.txt", "both.docx")


async def test_each_is_a_failed_run_with_its_reason(tmp_path: Path) -> None:
    hostile = [document for document in DOCUMENTS if document.name in CHOSEN]
    assert len(hostile) == len(CHOSEN)
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text())
    runs: dict[str, str] = {}
    async with (
        Service(tmp_path, {name: shipped[name] for name in ("workflows", "uploads")}) as service,
        Client(service.url, token()) as client,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token()}"}) as session,
    ):

        async def upload(filename: str, mime_type: str, content: bytes) -> str:
            form = aiohttp.FormData(default_to_multipart=True)
            form.add_field("file", io.BytesIO(content), filename=filename, content_type=mime_type)
            async with session.post(f"{service.url}/api/documents", data=form) as response:
                assert response.status == 202, await response.text()
                return str((await response.json())["runId"])

        for document in hostile:
            runs[document.name] = await upload(document.filename, document.mime_type, document.make())
        runs["ordinary"] = await upload("\U0001f9fe \u202ename.txt", "text/plain", b"an ordinary text")
        await ended(client, len(runs))
        shown = {name: await client.run(run) for name, run in runs.items()}
    assert shown.pop("ordinary")["status"] == "completed"
    for document in hostile:
        run = shown[document.name]
        assert (run["status"], run["steps"]["process"]["attempts"], run["steps"]["analyze"]["status"]) == ("failed", 1, "blocked"), document.name
        assert document.reason
        assert document.reason in run["error"], document.name
