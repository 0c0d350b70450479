"""The Go file service, built and run against a real Hookline: the original's call without a token, and the upload that may be repeated."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from pipeline.client import Client
from tests.support.go import go, toolchain
from tests.support.runs import ended
from tests.support.service import ROOT, Service, token
from tests.support.subscriber import Subscriber

SOURCE = ROOT / "examples" / "file-service"
DOCUMENTS = ROOT / "examples" / "documents"
KEY = "hk_the-file-service-of-the-tests-0123456789"
SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
BOUNDARY = "file-service-test"
PDF, TEXT = "quarterly-report.pdf", "meeting-notes.txt"


def test_without_go_it_is_skipped_but_fails_in_ci(tmp_path: Path) -> None:
    nowhere = {"PATH": str(tmp_path)}
    for environ in (nowhere, nowhere | {"CI": "false"}):
        with pytest.raises(pytest.skip.Exception, match="not installed"):
            toolchain(environ)
    for environ in (nowhere | {"CI": "true"}, nowhere | {"GITHUB_ACTIONS": "true"}):
        with pytest.raises(pytest.fail.Exception, match="must run"):
            toolchain(environ)


@pytest.mark.timeout(300)  # the first build compiles Go's own library
async def test_its_own_tests_pass() -> None:
    await go(SOURCE, "vet", "./...")
    assert "ok" in await go(SOURCE, "test", "-count=1", "./...")


@asynccontextmanager
async def file_service(folder: Path, hookline: str) -> AsyncIterator[str]:
    """The built service beside a Hookline whose files are in `folder`; yields its URL, and checks at the end that it told no token."""
    binary = folder / "file-service"
    await go(SOURCE, "build", "-o", str(binary), ".")
    keep = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
    environment = keep | {"HOOKLINE_URL": hookline, "HOOKLINE_TOKEN": KEY, "STORAGE": str(folder / "storage")}
    process = await asyncio.create_subprocess_exec(
        binary, "-listen", "127.0.0.1:0", env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout
    try:
        url = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))["listening"]
        address = url.removeprefix("http://")
        probe = await asyncio.create_subprocess_exec(binary, "-health", "-listen", address)
        assert await probe.wait() == 0
        yield url
    finally:
        process.terminate()
        said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert KEY not in said


def form(filename: str, data: bytes, mime_type: str | None, user: str = "user-1") -> bytes:
    """A multipart form; `mime_type` None leaves the part's Content-Type out, as some clients do."""
    kind = "" if mime_type is None else f"Content-Type: {mime_type}\r\n"
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n{kind}\r\n'
    tail = f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="userId"\r\n\r\n{user}\r\n--{BOUNDARY}--\r\n'
    return head.encode() + data + tail.encode()


async def post(session: aiohttp.ClientSession, url: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    sent = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    async with session.post(url, data=body, headers=sent) as response:
        return response.status, await response.json(content_type=None)


async def all_arrived(client: Client, subscriber: Subscriber, runs: set[str]) -> None:
    """Every run completed, and each event that the subscriber wants was pushed to it."""
    due: set[str] = set()
    for run_id in runs:
        run = await client.run(run_id)
        assert run["status"] == "completed", run
        assert {name: step["status"] for name, step in run["steps"].items()} == dict.fromkeys(("process", "analyze", "notify"), "completed")
        due |= {event["id"] async for event in client.timeline(run_id) if event["type"].startswith(("job.completed", "workflow."))}
    assert len(due) == len(runs) * 8
    await subscriber.until(due)
    assert subscriber.refused == 0


def config(subscriber: Subscriber, **auth: Any) -> dict[str, Any]:
    webhooks = {"allow_networks": ["127.0.0.0/8"], "endpoints": [subscriber.endpoint("job.completed", "workflow.*")]}
    return SHIPPED | {"auth": auth, "webhooks": webhooks}


@pytest.mark.timeout(240)
async def test_the_originals_call_starts_the_chain_whatever_the_type_of_the_file(tmp_path: Path) -> None:
    pdf, text = (DOCUMENTS / PDF).read_bytes(), (DOCUMENTS / TEXT).read_bytes()
    uploads = [
        (PDF, pdf, "application/pdf"),
        (PDF, pdf, None),
        ("Größe 5.pdf", pdf, "application/octet-stream"),
        (TEXT, text, "text/plain; charset=utf-8"),
    ]
    async with (
        Subscriber() as subscriber,
        Service(tmp_path, config(subscriber, anonymous_jobs=True)) as service,
        file_service(tmp_path, service.url) as url,
        aiohttp.ClientSession() as session,
        Client(service.url, token()) as client,
    ):
        runs: dict[str, tuple[str, str | None]] = {}
        for filename, data, mime_type in uploads:
            status, answer = await post(session, f"{url}/upload", form(filename, data, mime_type))
            assert status == 202, answer
            assert (tmp_path / "storage" / "documents" / answer["documentId"] / filename).read_bytes() == data
            runs[answer["runId"]] = (filename, mime_type)
        assert await ended(client, len(uploads)) == set(runs)
        await all_arrived(client, subscriber, set(runs))
        for run_id, (filename, mime_type) in runs.items():
            run = await client.run(run_id)
            assert (run["userId"], run["input"]["filename"], run["input"]["mimeType"]) == ("user-1", filename, mime_type or "")
            found = run["steps"]["process"]["result"]["mimeType"]
            assert found == ("text/plain" if filename == TEXT else "application/pdf")
        # What Hookline will not take is refused there, said here, and leaves nothing.
        before = {path.name for path in (tmp_path / "storage" / "documents").iterdir()}
        status, answer = await post(session, f"{url}/upload", form("a.pdf", pdf, "not a media type"))
        assert (status, "mimeType" in answer["detail"]) == (422, True), answer
        assert {path.name for path in (tmp_path / "storage" / "documents").iterdir()} == before


@pytest.mark.timeout(240)
async def test_a_relayed_upload_starts_one_run_however_often_it_is_sent(tmp_path: Path) -> None:
    pdf = (DOCUMENTS / PDF).read_bytes()
    name = 'Bericht "Q3" – Größe.pdf'
    body = form(name.replace('"', '\\"'), pdf, "application/pdf")
    async with (
        Subscriber() as subscriber,
        Service(tmp_path, config(subscriber, api_keys={"file-service": KEY})) as service,
        file_service(tmp_path, service.url) as url,
        aiohttp.ClientSession() as session,
        Client(service.url, token()) as client,
    ):
        key = {"Idempotency-Key": "upload-1"}
        answers = [await post(session, f"{url}/relay", body, **key) for _ in range(2)]
        assert answers[0] == answers[1]
        status, answer = answers[0]
        assert status == 202, answer
        other, refused = await post(session, f"{url}/relay", form("b.txt", b"another", "text/plain"), **key)
        assert other == 409, refused
        # Another user's upload under the same key is another upload.
        _, theirs = await post(session, f"{url}/relay", form("b.txt", b"another", "text/plain", user="user-2"), **key)
        runs = {answer["runId"], theirs["runId"]}
        assert await ended(client, 2) == runs
        await all_arrived(client, subscriber, runs)
        assert len((await client.request("GET", "/api/runs"))["items"]) == 2
        run = await client.run(answer["runId"])
        assert (run["userId"], run["input"]["filename"]) == ("user-1", name)
        assert (tmp_path / "storage" / "documents" / answer["documentId"] / name).read_bytes() == pdf
        # Without a token, the way that the original takes is shut unless the configuration opens it.
        status, answer = await post(session, f"{url}/upload", body)
        assert (status, "Hookline answered 401" in answer["detail"]) == (502, True), answer
