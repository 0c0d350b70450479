"""The client that commands and demo use says what the service says, also when that is no."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from redis.asyncio import Redis

from pipeline.client import Client, RequestFailed
from pipeline.errors import Unavailable
from pipeline.store.event import Event
from tests.support.api import DOCUMENT, DOCUMENT_UPLOAD, NOTIFICATION, Api, serving


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(redis, tmp_path / "storage", workflows={"document-upload": DOCUMENT_UPLOAD}, feed={"heartbeat": 0.05}) as api:
        yield api


@pytest.fixture
async def client(api: Api) -> AsyncIterator[Client]:
    async with Client(api.url + "/", api.token("root", "admin")) as client:
        yield client


async def test_jobs(client: Client) -> None:
    posted = await client.add_job("notifications", NOTIFICATION, idempotency_key="k")
    assert posted == await client.add_job("notifications", NOTIFICATION, idempotency_key="k")
    assert (await client.job("notifications", posted["jobId"]))["data"] == NOTIFICATION
    assert (await client.stats("notifications"))["waiting"] == 1
    assert (await client.stats())["queues"]["notifications"]["waiting"] == 1


async def test_runs(client: Client) -> None:
    started = [await client.start_run("document-upload", DOCUMENT, user_id="alice") for _ in range(3)]
    assert (await client.run(started[0]["runId"]))["userId"] == "alice"
    assert {run["runId"] async for run in client.runs(user_id="alice")} == {run["runId"] for run in started}
    assert len([run async for run in client.runs(limit=2)]) == 2
    assert (await client.cancel(started[0]["runId"]))["status"] == "cancelled"
    assert (await client.retry(started[0]["runId"]))["status"] == "running"
    assert (await anext(client.timeline(started[0]["runId"])))["type"] == "workflow.started"
    assert [workflow["name"] for workflow in await client.workflows()] == ["document-upload"]
    assert (await client.workflow("document-upload"))["graph"]["edges"] == [{"from": "process", "to": "notify"}]


async def test_an_upload(client: Client, api: Api, tmp_path: Path) -> None:
    file = tmp_path / 'Bericht "für" März.pdf'
    file.write_bytes(b"%PDF")
    accepted = await client.upload(file, mime_type="application/pdf", document_id="d", user_id="alice")
    run = await client.run(accepted["runId"])
    assert run["input"] == {"documentId": "d", "filename": file.name, "mimeType": "application/pdf", "fileSize": 4}
    assert (tmp_path / "storage/documents/d" / file.name).read_bytes() == b"%PDF"


async def test_events_are_followed_past_heartbeats_and_pulled(client: Client, api: Api) -> None:
    ids = await client.publish([{"type": "a.b", "data": {"text": "first\nsecond\u2028third"}}])
    page = await client.events(types=["a.*"])
    assert [event["id"] for event in page["items"]] == ids
    following = client.follow(after=page["nextCursor"], types=["a.b", "end"])
    waiting = asyncio.ensure_future(anext(following))
    await client.publish([{"type": "skipped", "data": {}}, {"type": "end", "data": {}}])
    item = await asyncio.wait_for(waiting, 5)
    assert (item["type"], item["cursor"]) == ("end", (await client.events())["nextCursor"])
    await following.aclose()


async def test_a_gap_is_told(client: Client, api: Api) -> None:
    for cursor in ("5-0", "7-0"):
        fields = Event(id=f"evt_{cursor}", type="a", timestamp=1, data={}).fields()
        await api.services.redis.xadd(api.services.log.key, dict(zip(fields[::2], fields[1::2], strict=True)), id=cursor)
    await api.services.log.trim(max_age_ms=0, max_bytes=1 << 40, now=7)
    following = client.follow(after="1-0")
    assert await anext(following) == {"type": "gap", "data": {"after": "1-0", "earliest": "7-0"}}
    assert (await anext(following))["id"] == "evt_7-0"
    await following.aclose()


async def test_readiness_is_told_also_when_it_is_bad(client: Client, api: Api) -> None:
    api.ready = {"ok": False, "parts": {"engine": {"ok": False, "behindMs": 90_000}}}
    assert await client.ready() == api.ready


async def test_a_problem_is_raised_with_all_it_says(client: Client) -> None:
    with pytest.raises(RequestFailed) as caught:
        await client.add_job("notifications", {"userId": "alice"})
    assert (caught.value.status, caught.value.code) == (422, "invalid-input")
    assert "  subject: is required" in str(caught.value)
    with pytest.raises(RequestFailed, match="no such route"):
        await client.request("GET", "/nope")


async def test_a_service_that_is_not_there_or_is_not_ours() -> None:
    async with Client(f"http://127.0.0.1:{unused_port()}") as client:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await client.stats()
        with pytest.raises(Unavailable, match="cannot be reached"):
            await anext(client.follow())

    async def other(request: web.Request) -> web.Response:
        return web.Response(status=int(request.query.get("limit", 502)), text="<html>")

    app = web.Application()
    app.router.add_get("/{path:.*}", other)
    async with TestServer(app) as server, Client(str(server.make_url("/"))) as client:
        with pytest.raises(RequestFailed, match="is this a Hookline service"):
            await client.stats()
        with pytest.raises(RequestFailed, match="is not a Hookline service: it answered GET /api/events without a JSON object"):
            await client.events(limit=200)


async def test_the_token_is_not_in_the_repr() -> None:
    assert "secret-token" not in repr(Client("http://127.0.0.1:1", "secret-token"))
