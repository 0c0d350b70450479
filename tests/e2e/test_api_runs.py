"""Workflows are listed and started, runs shown, listed, cancelled and retried; a user sees its own only."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline.workflows.model import JobEnded
from tests.support.api import DOCUMENT, DOCUMENT_UPLOAD, Api, serving

UPLOAD = {name: value for name, value in DOCUMENT.items() if name != "userId"}
FREE = {"steps": {"only": {"queue": "notifications", "job": "send-notification", "with": {"n": "${{ input.n }}"}}}}


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(redis, tmp_path, workflows={"document-upload": DOCUMENT_UPLOAD, "free": FREE}) as api:
        yield api


async def _start(api: Api, n: Any = 1, **more: Any) -> str:
    reply = await api.call("POST", "/api/workflows/free/runs", body={"input": {"n": n}}, **more)
    assert reply.status == 202
    return str(reply.json["runId"])


async def _fail(api: Api, run_id: str) -> None:
    transitions = api.services.runs._transitions
    assert await transitions.apply(run_id, JobEnded(step="only", n=1, error="boom", finished_at=1))


async def test_the_originals_upload_starts_a_run_of_the_tokens_subject(api: Api) -> None:
    reply = await api.call("POST", "/api/auth/workflow/document-upload", body=UPLOAD | {"userId": "somebody"})
    assert reply.status == 202
    run = reply.json["runId"]
    assert reply.json == {"runId": run, "workflow": "document-upload", "status": "running"}
    assert reply.headers["Location"] == f"/api/runs/{run}"
    shown = (await api.call("GET", reply.headers["Location"])).json
    assert (shown["userId"], shown["input"]) == ("alice", UPLOAD)
    assert shown["steps"]["process"]["jobId"] == f"{run}_process_1"


async def test_an_api_key_has_no_subject_to_upload_for(api: Api) -> None:
    reply = await api.call("POST", "/api/auth/workflow/document-upload", as_="service", body=UPLOAD)
    assert (reply.status, reply.json["type"]) == (403, "urn:hookline:problem:forbidden")


async def test_a_run_is_shown_with_all_its_members(api: Api) -> None:
    run = await _start(api)
    shown = (await api.call("GET", f"/api/runs/{run}")).json
    created = shown["createdAt"]
    assert len(created) == 24
    assert created.endswith("Z")
    seen = shown["steps"]["only"]
    step = {
        "status": "pending", "jobId": f"{run}_only_1", "attempts": 0, "progress": seen["progress"], "result": None,
        "error": None, "reason": None, "startedAt": seen["startedAt"], "finishedAt": None,
    }  # fmt: skip
    assert shown == {
        "runId": run, "workflow": "free", "version": 1, "status": "running", "userId": "alice", "input": {"n": 1}, "steps": {"only": step},
        "output": None, "error": None, "createdAt": created, "finishedAt": None,
    }  # fmt: skip


async def test_the_same_key_starts_one_run(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await api.call("POST", "/api/workflows/free/runs", body={"input": {"n": 1}}, headers=headers)
    again = await api.call("POST", "/api/workflows/free/runs", body={"input": {"n": 1}}, headers=headers)
    assert (again.status, again.text, again.headers["Location"]) == (202, first.text, first.headers["Location"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await api.call("POST", "/api/workflows/free/runs", body={"input": {"n": 2}}, headers=headers)).status == 409
    other = await api.call("POST", "/api/auth/workflow/document-upload", body=UPLOAD, headers=headers)
    assert other.status == 202, "another route"


async def test_whose_run_it_is(api: Api) -> None:
    own = await _start(api)
    for_bob = (await api.call("POST", "/api/workflows/free/runs", as_="service", body={"input": {"n": 1}, "userId": "bob"})).json["runId"]
    assert (await api.call("GET", f"/api/runs/{for_bob}", as_="bob")).json["userId"] == "bob"
    assert (await api.call("GET", f"/api/runs/{own}", as_="bob")).status == 404
    for as_ in ("admin", "service"):
        assert (await api.call("GET", f"/api/runs/{own}", as_=as_)).status == 200
    job = f"/api/jobs/status/notifications/{own}_only_1"
    assert (await api.call("GET", job)).status == 200, "its data names no user, but its run does"
    assert (await api.call("GET", job, as_="bob")).status == 404


# --- lists ------------------------------------------------------------------------------------------------------------


async def test_lists_are_paged_newest_first_and_filtered(api: Api) -> None:
    mine = [await _start(api, n) for n in range(5)]
    bobs = await _start(api, as_="bob")
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await api.call("GET", f"/api/runs?limit=2{cursor}")).json
        found += page["items"]
        if page["nextCursor"] is None:
            break
        assert len(page["items"]) == 2
        cursor = f"&cursor={page['nextCursor']}"
    # Within one millisecond the order is that of the ids.
    order = [(run["createdAt"], run["runId"]) for run in found]
    assert order == sorted(order, reverse=True)
    assert sorted(run["runId"] for run in found) == sorted(mine)
    everybodys = (await api.call("GET", "/api/runs", as_="admin")).json["items"]
    assert {run["runId"] for run in everybodys} == {bobs, *mine}
    assert [run["runId"] for run in (await api.call("GET", "/api/runs?userId=bob", as_="service")).json["items"]] == [bobs]
    assert (await api.call("GET", "/api/runs?userId=bob")).json == {"items": [], "nextCursor": None}
    assert (await api.call("GET", "/api/runs?workflow=document-upload")).json["items"] == []
    await _fail(api, mine[0])
    assert [run["runId"] for run in (await api.call("GET", "/api/runs?status=failed&workflow=free")).json["items"]] == [mine[0]]
    assert (await api.call("GET", "/api/runs?cursor=rubbish")).status == 422


async def test_a_timeline_is_the_runs_events_oldest_first(api: Api) -> None:
    run = await _start(api)
    await _fail(api, run)
    page = (await api.call("GET", f"/api/runs/{run}/events")).json
    types = [event["type"] for event in page["items"]]
    assert types[0] == "workflow.started"
    assert types[-1] == "workflow.failed"
    assert set(page["items"][0]) == {"id", "type", "timestamp", "data"}
    first = (await api.call("GET", f"/api/runs/{run}/events?limit=1")).json
    assert [event["type"] for event in first["items"]] == types[:1]
    rest = (await api.call("GET", f"/api/runs/{run}/events?cursor={first['nextCursor']}")).json
    assert [event["type"] for event in rest["items"]] == types[1:]


# --- cancel, retry ----------------------------------------------------------------------------------------------------


async def test_a_run_is_cancelled_once(api: Api) -> None:
    run = await _start(api)
    reply = await api.call("POST", f"/api/runs/{run}/cancel")
    assert (reply.status, reply.json["runId"], reply.json["status"]) == (200, run, "cancelled")
    assert (await api.call("POST", f"/api/runs/{run}/cancel")).status == 200, "cancelling twice is no error"
    done = await _start(api)
    await _fail(api, done)
    reply = await api.call("POST", f"/api/runs/{done}/cancel")
    assert (reply.status, reply.json["detail"]) == (409, f"run {done} is failed and cannot be cancelled")


async def test_a_failed_run_is_retried_from_the_failed_step_once_per_key(api: Api) -> None:
    run = await _start(api)
    await _fail(api, run)
    headers = {"Idempotency-Key": "again"}
    first = await api.call("POST", f"/api/runs/{run}/retry", headers=headers)
    assert (first.status, first.json["status"], first.headers["Location"]) == (202, "running", f"/api/runs/{run}")
    again = await api.call("POST", f"/api/runs/{run}/retry", headers=headers)
    assert (again.status, again.text) == (202, first.text)
    assert (await api.call("POST", f"/api/runs/{run}/retry")).status == 409
    assert (await api.call("GET", f"/api/runs/{run}")).json["steps"]["only"]["jobId"] == f"{run}_only_2"


# --- workflows --------------------------------------------------------------------------------------------------------


async def test_workflows_are_listed_and_shown_with_their_graph(api: Api) -> None:
    listed = (await api.call("GET", "/api/workflows")).json
    assert listed["nextCursor"] is None
    assert listed["items"][0] == {"name": "document-upload", "version": 1, "triggers": [], "steps": ["process", "notify"]}
    shown = (await api.call("GET", "/api/workflows/document-upload")).json
    assert shown["graph"] == {
        "steps": [
            {"id": "process", "queue": "document-processing", "job": "process-document", "needs": []},
            {"id": "notify", "queue": "notifications", "job": "send-notification", "needs": ["process"]},
        ],
        "edges": [{"from": "process", "to": "notify"}],
    }
    assert shown["input"] == DOCUMENT_UPLOAD["input"]


# --- whose document ---------------------------------------------------------------------------------------------------


async def test_a_user_cannot_have_another_users_upload_processed(api: Api, redis: Redis) -> None:
    await redis.set("hookline:document:doc-123", json.dumps({"userId": "alice", "filename": "a.pdf", "sha256": "x"}))
    compliance = {"documentId": "other", "userId": "bob", "documentPath": "/documents/./doc-123/a.pdf", "mimeType": "", "complianceFrameworks": []}
    attempts = [
        ("/api/jobs/document-processing", DOCUMENT | {"userId": "bob"}),
        ("/api/jobs/compliance-analysis", compliance),
        ("/api/auth/workflow/document-upload", UPLOAD),
        ("/api/workflows/free/runs", {"input": {"n": 1, "documentId": "doc-123"}}),
    ]
    for path, body in attempts:
        reply = await api.call("POST", path, as_="bob", body=body)
        assert (reply.status, reply.json["detail"]) == (404, "there is no document 'doc-123'"), path
    assert (await api.call("POST", "/api/auth/workflow/document-upload", body=UPLOAD)).status == 202
    assert (await api.call("POST", "/api/jobs/document-processing", as_="service", body=DOCUMENT | {"userId": "bob"})).status == 201
