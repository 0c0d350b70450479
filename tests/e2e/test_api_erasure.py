"""Erasing a document takes its file, text and findings, says so where it is looked for, and leaves nothing half-way."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from pipeline.api import erasure
from pipeline.errors import Unavailable
from pipeline.workflows.model import JobEnded
from tests.support.api import DOCUMENT_UPLOAD, Api, Reply, serving
from tests.support.events import check_told

INPUT = {"documentId": "d", "filename": "a.pdf", "mimeType": "", "fileSize": 0}
FINDING = {"rule": "r", "excerpt": "of ▪", "page": 1}
RESULT = {
    "path": "documents/d/a.pdf",
    "score": 70,
    "metadata": {"authors": ["Alice"]},
    "findings": [FINDING],
    "frameworks": {"GDPR": {"findings": 1}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
async def api(redis: Redis, folder: Path) -> AsyncIterator[Api]:
    async with serving(redis, folder, workflows={"document-upload": DOCUMENT_UPLOAD}) as api:
        yield api


async def _uploaded(api: Api, document_id: str = "d", *, as_: str = "user", over: bool = True) -> str:
    """The run of an uploaded document, with what its processors would have written beside it."""
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("documentId", document_id)
    form.add_field("file", b"%PDF-1.7 not much of one", filename="a.pdf", content_type="application/pdf")
    run = str((await api.call("POST", "/api/documents", data=form, as_=as_)).json["runId"])
    api.services.storage.write_text(f"documents/{document_id}/.hookline/0.txt", "text")
    api.services.storage.write_text(f"documents/{document_id}/.hookline/findings-1.json", "[]")
    if over:
        await _end(api, run)
    return run


async def _end(api: Api, run: str) -> None:
    for step in ("process", "notify"):
        result = RESULT if step == "process" else {"channel": "log"}
        ended = JobEnded(step=step, n=1, result=result, error=None, attempts=1, started_at=1, finished_at=2)
        assert await api.services.runs._transitions.apply(run, ended)


async def _erase(api: Api, document_id: str = "d", as_: str = "user") -> Reply:
    return await api.call("DELETE", f"/api/documents/{document_id}", as_=as_)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def _told(api: Api) -> list[Any]:
    page = await api.call("GET", "/api/events?types=document.erased", as_="user")
    return [event["data"] for event in page.json["items"]]


async def test_it_takes_file_text_and_findings_and_says_so(api: Api, folder: Path, redis: Redis) -> None:
    run, other = await _uploaded(api), await _uploaded(api, "other")
    assert (await _erase(api)).status == 204
    assert _files(folder) == ["documents/other/.hookline/0.txt", "documents/other/.hookline/findings-1.json", "documents/other/a.pdf"]
    shown = (await api.call("GET", f"/api/runs/{run}")).json
    assert shown["status"] == "completed"
    assert shown["steps"]["process"]["result"] == {"path": "documents/d/a.pdf", "score": 70, "frameworks": {"GDPR": {"findings": 1}}}
    timeline = (await api.call("GET", f"/api/runs/{run}/events")).json["items"]
    assert (timeline[-1]["type"], timeline[-1]["data"]) == ("document.erased", {"documentId": "d", "by": "alice", "runs": 1, "userId": "alice"})
    check_told("document.erased", timeline[-1]["data"])
    assert await _told(api) == [timeline[-1]["data"]]
    untouched = (await api.call("GET", f"/api/runs/{other}")).json
    assert untouched["steps"]["process"]["result"] == RESULT
    assert await redis.keys("hookline:document:d") == []


async def test_a_second_call_finds_nothing_and_tells_nothing(api: Api) -> None:
    run = await _uploaded(api)
    assert (await _erase(api)).status == 204
    reply = await _erase(api)
    assert (reply.status, reply.json["detail"]) == (404, "there is no document 'd'")
    assert len(await _told(api)) == 1
    types = [event["type"] for event in (await api.call("GET", f"/api/runs/{run}/events")).json["items"]]
    assert types.count("document.erased") == 1


async def test_the_id_can_be_used_again(api: Api, folder: Path) -> None:
    await _uploaded(api)
    await _erase(api)
    await _uploaded(api)
    assert "documents/d/a.pdf" in _files(folder)
    assert (await _erase(api)).status == 204
    assert len(await _told(api)) == 2


@pytest.mark.parametrize("as_", ["admin", "service"])
async def test_admins_and_services_may_erase_any(api: Api, folder: Path, as_: str) -> None:
    await _uploaded(api)
    (folder / "documents/theirs").mkdir()
    (folder / "documents/theirs/a.pdf").write_bytes(b"stored by another service")
    assert (await _erase(api, "theirs", "user")).status == 404
    assert [(await _erase(api, document, as_)).status for document in ("d", "theirs", "theirs", "never")] == [204, 204, 404, 404]
    assert _files(folder) == []


async def test_another_users_document_is_not_there(api: Api, folder: Path) -> None:
    await _uploaded(api)
    before = _files(folder)
    for document, as_ in (("d", "bob"), ("..", "admin"), ("%2e%2e", "admin"), ("a%2fb", "admin"), (".hookline", "admin")):
        assert (await _erase(api, document, as_)).status == 404
    assert (await api.call("DELETE", "/api/documents/d", as_=None)).status == 401
    assert _files(folder) == before


async def test_a_run_under_way_keeps_its_document(api: Api, folder: Path) -> None:
    run = await _uploaded(api, over=False)
    before = _files(folder)
    reply = await _erase(api)
    assert (reply.status, reply.json["detail"]) == (409, f"run {run} of document 'd' is still under way")
    assert _files(folder) == before
    assert await _uploaded(api) != run, "it is as it was: the same file may be uploaded again"
    await _end(api, run)
    assert (await _erase(api)).status == 204


async def test_a_cancelled_run_keeps_it_until_its_worker_has_let_go(api: Api, redis: Redis) -> None:
    run = await _uploaded(api, over=False)
    job = (await api.call("GET", f"/api/runs/{run}")).json["steps"]["process"]["jobId"]
    assert (await api.call("POST", f"/api/runs/{run}/cancel")).status == 200
    lock = f"bull:document-processing:{job}:lock"
    await redis.set(lock, "a worker's")
    assert (await _erase(api)).status == 409
    await redis.delete(lock)
    assert (await _erase(api)).status == 204


async def test_nothing_of_it_stays_in_ended_jobs(api: Api, redis: Redis) -> None:
    run, other = await _uploaded(api), await _uploaded(api, "other")
    analysis = {"documentId": "d", "userId": "alice", "documentPath": "documents/d/a.pdf", "mimeType": "", "complianceFrameworks": []}
    for body in (
        analysis,
        analysis | {"documentId": "e", "documentPath": "/documents/d/a.pdf"},
        analysis | {"documentId": "other", "documentPath": "x"},
    ):
        assert (await api.call("POST", "/api/jobs/compliance-analysis", body=body, as_="service")).status == 201
    result = json.dumps(RESULT)
    for key in sorted(await redis.keys("bull:*:wait")):
        # As its worker would leave it.
        queue = key.removesuffix(":wait")
        while job := await redis.rpop(key):
            await redis.zadd(f"{queue}:completed", {job: 1})
            await redis.hset(f"{queue}:{job}", mapping={"returnvalue": result, "finishedOn": 1})
    assert (await _erase(api)).status == 204
    left = {job for key in await redis.keys("bull:*:completed") for job in await redis.zrange(key, 0, -1)}
    assert left == {"3", f"{other}_process_1", f"{other}_notify_1"}
    assert (await api.call("GET", "/api/jobs/status/compliance-analysis/1", as_="service")).status == 404
    assert (await api.call("GET", f"/api/runs/{run}")).json["status"] == "completed"


async def test_one_that_is_being_uploaded_is_not_erased(api: Api, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await _uploaded(api)
    write, begun, go_on = api.services.storage.write, asyncio.Event(), asyncio.Event()

    async def waits(*args: Any) -> Any:
        begun.set()
        await asyncio.wait_for(go_on.wait(), 10)
        return await write(*args)

    monkeypatch.setattr(api.services.storage, "write", waits)
    again = asyncio.create_task(_uploaded(api))
    await asyncio.wait_for(begun.wait(), 10)
    reply = await _erase(api)
    assert (reply.status, reply.json["detail"]) == (409, "document 'd' is being uploaded")
    go_on.set()
    await again
    assert "documents/d/a.pdf" in _files(folder)
    assert (await _erase(api)).status == 204
    assert _files(folder) == []


async def test_uploads_and_erasures_at_once_leave_a_document_with_its_record_or_neither(api: Api, folder: Path, redis: Redis) -> None:
    async def upload() -> int:
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("documentId", "d")
        form.add_field("file", b"%PDF-1.7 not much of one", filename="a.pdf", content_type="application/pdf")
        reply = await api.call("POST", "/api/documents", data=form)
        if reply.status == 202:
            await _end(api, reply.json["runId"])
        return reply.status

    async def erase() -> int:
        while (reply := await _erase(api)).status == 409:
            pass
        return reply.status

    seen: set[int] = set()
    for _ in range(15):
        seen |= set(await asyncio.gather(upload(), erase(), upload(), erase()))
        record = json.loads(await redis.get("hookline:document:d") or "null")
        assert _files(folder) == ([] if record is None else ["documents/d/a.pdf"])
        assert record is None or set(record) == {"userId", "filename", "sha256"}
        assert await redis.keys("hookline:uploads") == []
    assert seen >= {202, 204}
    assert seen <= {202, 204, 404, 409, 503}


def _places(api: Api) -> dict[str, tuple[object, str]]:
    return {"file": (api.services.storage, "delete"), "jobs": (erasure, "remove_ended"), "runs": (api.services.runs, "erased"),
            "log": (api.services.log, "append"), "record": (erasure.ownership, "release")}  # fmt: skip


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("where", ["file", "jobs", "runs", "log", "record"])
async def test_one_that_was_cut_off_is_finished_by_the_next(
    api: Api, folder: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch, where: str, late: bool
) -> None:
    runs = [await _uploaded(api), await _uploaded(api)]
    with monkeypatch.context() as patch:
        holder, name = _places(api)[where]
        real = getattr(holder, name)

        async def fails(*args: Any) -> None:
            if late:
                await real(*args)
            raise Unavailable("the process was killed here")

        patch.setattr(holder, name, fails)
        assert (await _erase(api)).status == 503
    if (where, late) == ("record", True):
        assert (await _erase(api)).status == 404
    else:
        started = await api.call("POST", "/api/workflows/document-upload/runs", body={"input": INPUT}, as_="service")
        assert (started.status, started.json["detail"]) == (404, "there is no document 'd'")
        assert (await _erase(api)).status == 204
    assert _files(folder) == []
    assert await redis.keys("hookline:document:d") == []
    page = await api.call("GET", "/api/events?types=document.erased", as_="user")
    assert len({event["id"] for event in page.json["items"]}) == 1, "told again, it is the same event"
    for run in runs:
        types = [event["type"] for event in (await api.call("GET", f"/api/runs/{run}/events")).json["items"]]
        assert types.count("document.erased") == 1
        assert "findings" not in (await api.call("GET", f"/api/runs/{run}")).json["steps"]["process"]["result"]
