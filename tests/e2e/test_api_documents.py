"""An upload is stored whole or not at all, starts one run, and never overwrites a document that is there."""

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from pipeline.api import uploads
from pipeline.api.uploads import Upload
from tests.support.api import DOCUMENT_UPLOAD, Api, Reply, serving

PDF = b"%PDF-1.7 not much of one"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
async def api(redis: Redis, folder: Path) -> AsyncIterator[Api]:
    async with serving(redis, folder, workflows={"document-upload": DOCUMENT_UPLOAD}, server={"upload_limit": "2MiB"}) as api:
        yield api


def _form(content: Any = PDF, *, filename: str = "report.pdf", kind: str = "application/pdf", last: bool = False, **fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True, quote_fields=False)
    pairs = list(fields.items())
    for name, value in [] if last else pairs:
        form.add_field(name, value)
    form.add_field("file", io.BytesIO(content) if isinstance(content, bytes) else content, filename=filename, content_type=kind)
    for name, value in pairs if last else []:
        form.add_field(name, value)
    return form


async def _upload(api: Api, form: Any = None, **more: Any) -> Reply:
    return await api.call("POST", "/api/documents", data=form or _form(), **more)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_an_upload_is_stored_and_starts_a_run(api: Api, folder: Path) -> None:
    reply = await _upload(api)
    assert reply.status == 202
    run, document = reply.json["runId"], reply.json["documentId"]
    assert reply.json == {"runId": run, "workflow": "document-upload", "status": "running", "documentId": document}
    assert reply.headers["Location"] == f"/api/runs/{run}"
    assert document.startswith("doc_")
    assert (folder / "documents" / document / "report.pdf").read_bytes() == PDF
    shown = (await api.call("GET", f"/api/runs/{run}")).json
    assert shown["userId"] == "alice"
    assert shown["input"] == {"documentId": document, "filename": "report.pdf", "mimeType": "application/pdf", "fileSize": len(PDF)}


@pytest.mark.parametrize("last", [False, True], ids=["fields first", "file first"])
async def test_fields_may_come_before_or_after_the_file(api: Api, folder: Path, last: bool) -> None:
    form = _form(last=last, documentId="d-1", mimeType="text/plain", userId="bob", other="ignored")
    reply = await _upload(api, form, as_="service")
    assert reply.json["documentId"] == "d-1"
    shown = (await api.call("GET", f"/api/runs/{reply.json['runId']}", as_="bob")).json
    assert shown["input"] == {"documentId": "d-1", "filename": "report.pdf", "mimeType": "text/plain", "fileSize": len(PDF)}
    assert _files(folder) == ["documents/d-1/report.pdf"]


async def test_a_file_larger_than_memory_comes_through_whole(api: Api, folder: Path) -> None:
    content = bytes(range(256)) * 7000
    document = (await _upload(api, _form(content))).json["documentId"]
    stored = (folder / "documents" / document / "report.pdf").read_bytes()
    assert hashlib.sha256(stored).digest() == hashlib.sha256(content).digest()


# --- refused ----------------------------------------------------------------------------------------------------------


async def _refused(api: Api, folder: Path, redis: Redis, reply: Reply, status: int, detail: str, errors: list[dict[str, str]] | None = None) -> None:
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert (reply.status, reply.json["detail"]) == (status, detail)
    assert reply.json.get("errors") == errors
    assert _files(folder) == []
    assert await redis.keys("hookline:document:*") == []
    assert await redis.zcard("hookline:runs:all") == 0


@pytest.mark.parametrize(
    ("form", "path", "message"),
    [
        (lambda: _form(filename="../up.pdf"), "filename", "must be a file's name without / \\ or control characters, and not . or .. or .hookline"),
        (lambda: _form(documentId="a/b"), "documentId", "must be 1 to 128 of A-Z a-z 0-9 . _ - and not . or .."),
        (lambda: _form(mimeType="pdf"), "mimeType", "must be a media type such as application/pdf, or empty if it is not known"),
        (lambda: _form(documentId="x" * 5000), "documentId", "is too long"),
        (lambda: _form(b""), "file", "is empty"),
    ],
)
async def test_what_does_not_fit_is_named_and_leaves_nothing(api: Api, folder: Path, redis: Redis, form: Any, path: str, message: str) -> None:
    reply = await _upload(api, form())
    await _refused(api, folder, redis, reply, 422, reply.json["detail"], [{"path": path, "message": message}])
    assert path in reply.json["detail"]


async def test_no_file_and_two_files(api: Api, folder: Path, redis: Redis) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("documentId", "d")
    reply = await _upload(api, form)
    await _refused(api, folder, redis, reply, 422, "the upload does not fit: file", [{"path": "file", "message": "is required"}])
    form = _form()
    form.add_field("file", PDF, filename="b.pdf")
    reply = await _upload(api, form)
    message = "there are two; upload one file a request"
    await _refused(api, folder, redis, reply, 422, "the upload does not fit: file", [{"path": "file", "message": message}])


async def test_a_file_without_a_name(api: Api, folder: Path, redis: Redis) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ncontent\r\n--x--\r\n'
    reply = await api.call("POST", "/api/documents", data=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    message = "has no filename in its Content-Disposition"
    await _refused(api, folder, redis, reply, 422, "the upload does not fit: file", [{"path": "file", "message": message}])


async def test_a_file_over_the_limit_whether_it_says_so_or_not(api: Api, folder: Path, redis: Redis) -> None:
    limit = 2 << 20
    assert (await _upload(api, _form(b"x" * limit, documentId="fits"))).status == 202
    await api.services.storage.delete("documents/fits")
    await redis.flushall()

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * (1 << 20)

    for content in (b"x" * (limit + 1), b"x" * (3 << 20), chunks()):
        reply = await _upload(api, _form(content))
        await _refused(api, folder, redis, reply, 413, f"the file has more than {limit} bytes")


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"--x--", 400),
        ("multipart/form-data; boundary=x", b"no boundary in here", 400),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncut off', 400),
    ],
)
async def test_a_body_that_is_not_multipart_or_is_cut_off(api: Api, folder: Path, redis: Redis, kind: str, body: bytes, status: int) -> None:
    reply = await api.call("POST", "/api/documents", data=body, headers={"Content-Type": kind})
    await _refused(api, folder, redis, reply, status, reply.json["detail"])


async def test_a_connection_that_breaks_leaves_nothing(api: Api, folder: Path, redis: Redis) -> None:
    sent = asyncio.Event()

    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        sent.set()
        raise RuntimeError("the line broke")

    with pytest.raises((RuntimeError, aiohttp.ClientError)):
        await _upload(api, _form(breaking()))
    assert sent.is_set()
    assert (await _upload(api, _form(documentId="next"))).status == 202
    assert _files(folder) == ["documents/next/report.pdf"]


async def test_a_user_uploads_for_itself(api: Api, folder: Path, redis: Redis) -> None:
    reply = await _upload(api, _form(userId="bob"))
    await _refused(api, folder, redis, reply, 403, "userId is not the token's `sub`")


async def test_without_the_workflow_nothing_is_taken_in(redis: Redis, folder: Path) -> None:
    async with serving(redis, folder) as api:
        reply = await _upload(api)
        await _refused(api, folder, redis, reply, 404, "uploads start the workflow 'document-upload', which is not declared")


async def test_a_workflow_that_refuses_the_input_leaves_no_document(redis: Redis, folder: Path) -> None:
    workflow = DOCUMENT_UPLOAD | {"input": {"type": "object", "properties": {"fileSize": {"maximum": 5}}}}
    async with serving(redis, folder, workflows={"document-upload": workflow}) as api:
        reply = await _upload(api)
        await _refused(api, folder, redis, reply, 422, "the input does not fit workflow 'document-upload'", reply.json["errors"])


# --- twice ------------------------------------------------------------------------------------------------------------


async def test_the_same_key_name_and_content_start_one_run(api: Api, folder: Path, redis: Redis) -> None:
    headers = {"Idempotency-Key": "k"}
    replies = await asyncio.gather(*(_upload(api, _form(), headers=headers) for _ in range(4)))
    again = await _upload(api, _form(), headers=headers)
    assert {reply.status for reply in (*replies, again)} == {202}
    assert len({reply.text for reply in (*replies, again)}) == 1
    assert again.headers["Idempotent-Replayed"] == "true"
    assert _files(folder) == [f"documents/{again.json['documentId']}/report.pdf"], "what the others stored was taken away again"
    assert len(await redis.keys("hookline:document:*")) == 1
    assert await redis.zcard("hookline:runs:all") == 1


async def test_the_same_key_and_document_id_keep_the_document_that_the_run_needs(api: Api, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, begun, second = api.services.runs.start, asyncio.Event(), asyncio.Event()

    async def first_comes_last(*args: Any, **more: Any) -> Any:
        if not begun.is_set():
            begun.set()
            await asyncio.wait_for(second.wait(), 10)
        return await start(*args, **more)

    monkeypatch.setattr(api.services.runs, "start", first_comes_last)
    headers = {"Idempotency-Key": "k"}
    first = asyncio.create_task(_upload(api, _form(documentId="d"), headers=headers))
    await asyncio.wait_for(begun.wait(), 10)
    again = await _upload(api, _form(documentId="d"), headers=headers)
    second.set()
    assert (again.status, (await first).text) == (202, again.text)
    assert _files(folder) == ["documents/d/report.pdf"]
    assert (await api.call("GET", "/api/runs")).json["items"][0]["runId"] == again.json["runId"]


# --- killed in the middle ---------------------------------------------------------------------------------------------


async def _killed(api: Api, redis: Redis, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """An upload of `d` as a process leaves it that is killed there, found three minutes later."""

    async def dies(*_: Any, **__: Any) -> Any:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(Upload, "abandon", dies)
        patch.setattr(*{"write": (api.services.storage, "write"), "start": (api.services.runs, "start"), "finish": (Upload, "finish")}[where], dies)
        with pytest.raises(aiohttp.ClientError):
            await _upload(api, _form(documentId="d"))
    [(name, at)] = await redis.zrange("hookline:uploads", 0, -1, withscores=True)
    await redis.zadd("hookline:uploads", {name: at - 180_000})


@pytest.mark.parametrize("where", ["write", "start"])
async def test_one_whose_process_is_killed_leaves_nothing(api: Api, folder: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    await _killed(api, redis, monkeypatch, where)
    assert await redis.keys("hookline:document:*") == ["hookline:document:d"]
    assert await uploads.sweep(api.services) == 1
    assert _files(folder) == []
    assert await redis.keys("hookline:document:*") == await redis.keys("hookline:uploads") == []
    assert (await _upload(api, _form(b"another file", documentId="d"))).status == 202


async def test_one_whose_run_was_started_keeps_its_document(api: Api, folder: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    await _killed(api, redis, monkeypatch, "finish")
    assert await uploads.sweep(api.services) == 1
    assert _files(folder) == ["documents/d/report.pdf"]
    assert set(json.loads(await redis.get("hookline:document:d"))) == {"userId", "filename", "sha256"}
    assert await redis.keys("hookline:uploads") == []


async def test_one_that_is_sent_again_after_a_kill_keeps_its_document(api: Api, folder: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    await _killed(api, redis, monkeypatch, "start")
    assert (await _upload(api, _form(documentId="d"))).status == 202
    assert await uploads.sweep(api.services) == 1
    assert _files(folder) == ["documents/d/report.pdf"]
    assert await redis.keys("hookline:uploads") == []


async def test_a_sweep_leaves_alone_what_is_being_sent_again(api: Api, folder: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    await _killed(api, redis, monkeypatch, "start")
    again = Upload(api.services, "d")
    await again.tell()
    await uploads.sweep(api.services)
    assert _files(folder) == ["documents/d/report.pdf"]
    assert "erasing" not in json.loads(await redis.get("hookline:document:d"))
    await again.abandon()
    assert await uploads.sweep(api.services) == 1
    assert _files(folder) == []


@pytest.mark.parametrize("form", [lambda: _form(PDF + b"!"), lambda: _form(filename="other.pdf")], ids=["content", "name"])
async def test_the_same_key_with_another_file_is_a_conflict(api: Api, folder: Path, form: Any) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await _upload(api, _form(), headers=headers)
    reply = await _upload(api, form(), headers=headers)
    assert (reply.status, reply.json["detail"]) == (409, "this Idempotency-Key was used for a request with another body")
    assert _files(folder) == [f"documents/{first.json['documentId']}/report.pdf"]


async def test_a_document_that_is_there_is_not_overwritten(api: Api, folder: Path) -> None:
    assert (await _upload(api, _form(documentId="d"))).status == 202
    assert (await _upload(api, _form(documentId="d"))).status == 202, "the same again is another run of it"
    for form, as_ in ((_form(b"other", documentId="d"), "user"), (_form(documentId="d"), "bob"), (_form(documentId="d", filename="x.pdf"), "user")):
        reply = await _upload(api, form, as_=as_)
        assert (reply.status, reply.json["detail"]) == (409, "there is a document 'd' already")
    assert (folder / "documents/d/report.pdf").read_bytes() == PDF
    assert _files(folder) == ["documents/d/report.pdf"]


async def test_a_document_that_another_service_stored_is_not_overwritten(api: Api, folder: Path, redis: Redis) -> None:
    (folder / "documents/theirs").mkdir(parents=True)
    (folder / "documents/theirs/report.pdf").write_bytes(b"theirs")
    reply = await _upload(api, _form(documentId="theirs"))
    assert (reply.status, reply.json["detail"]) == (409, "there is a document 'theirs' already")
    assert (folder / "documents/theirs/report.pdf").read_bytes() == b"theirs"
    assert await redis.keys("hookline:document:*") == []
