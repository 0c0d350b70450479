"""The original system's routes, exactly: three ways in, status, statistics; as its Go client calls them, with and without tokens."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline.store.idempotency import SECONDS
from tests.support.api import DOCUMENT, DOCUMENT_UPLOAD, NOTIFICATION, Api, serving

COMPLIANCE = {
    "documentId": "doc-123",
    "userId": "alice",
    "documentPath": "/documents/doc-123/a.pdf",
    "mimeType": "application/pdf",
    "complianceFrameworks": ["GDPR", "SOX"],
}
CASES = [
    ("document-processing", "process-document", DOCUMENT),
    ("notifications", "send-notification", NOTIFICATION),
    ("compliance-analysis", "analyze-compliance", COMPLIANCE),
]


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(redis, tmp_path) as api:
        yield api


@pytest.fixture
async def chained(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    """With the workflow that document-processing triggers."""
    async with serving(redis, tmp_path, workflows={"document-upload": DOCUMENT_UPLOAD | {"triggers": [{"queue": "document-processing"}]}}) as api:
        yield api


@pytest.fixture
async def open_api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(redis, tmp_path, auth={"anonymous_jobs": True}) as api:
        yield api


@pytest.mark.parametrize(("queue", "name", "body"), CASES)
async def test_a_posted_job_is_in_its_queue_as_bullmq_has_it(api: Api, redis: Redis, queue: str, name: str, body: dict[str, Any]) -> None:
    reply = await api.call("POST", f"/api/jobs/{queue}", body=body)
    assert reply.status == 201
    assert reply.json == {"jobId": "1", "queueName": queue, "name": name, "state": "waiting"}
    assert reply.headers["Location"] == f"/api/jobs/status/{queue}/1"
    assert await redis.lrange(f"bull:{queue}:wait", 0, -1) == ["1"]
    stored = await redis.hgetall(f"bull:{queue}:1")
    assert stored["name"] == name
    assert json.loads(stored["data"]) == body
    shown = (await api.call("GET", reply.headers["Location"])).json
    assert shown == {
        "jobId": "1", "queueName": queue, "name": name, "state": "waiting", "progress": 0, "attemptsMade": 0, "data": body, "result": None,
        "failedReason": None, "timestamp": int(stored["timestamp"]), "processedOn": None, "finishedOn": None,
    }  # fmt: skip


async def test_a_finished_job_shows_what_became_of_it(api: Api, redis: Redis) -> None:
    await api.call("POST", "/api/jobs/notifications", body=NOTIFICATION)
    await redis.lrem("bull:notifications:wait", 1, "1")
    await redis.zadd("bull:notifications:completed", {"1": 1700000000002})
    fields = {"atm": 2, "progress": "100", "returnvalue": '{"channel":"email"}', "processedOn": 1700000000001, "finishedOn": 1700000000002}
    await redis.hset("bull:notifications:1", mapping=fields)
    shown = (await api.call("GET", "/api/jobs/status/notifications/1")).json
    assert shown["state"] == "completed"
    assert (shown["attemptsMade"], shown["progress"], shown["result"]) == (2, 100, {"channel": "email"})
    assert (shown["processedOn"], shown["finishedOn"]) == (1700000000001, 1700000000002)


async def test_fields_we_do_not_know_are_left_aside_and_null_is_not_given(api: Api) -> None:
    await api.call("POST", "/api/jobs/notifications", body=NOTIFICATION | {"to": None, "traceId": "x", "priority": {"a": 1}})
    assert (await api.call("GET", "/api/jobs/status/notifications/1")).json["data"] == NOTIFICATION


@pytest.mark.parametrize("mime_type", ["", "application/octet-stream", "text/html; charset=utf-8"])
async def test_an_undeclared_or_parameterised_media_type_is_kept_as_sent(api: Api, mime_type: str) -> None:
    assert (await api.call("POST", "/api/jobs/document-processing", body=DOCUMENT | {"mimeType": mime_type, "fileSize": 0})).status == 201
    assert (await api.call("GET", "/api/jobs/status/document-processing/1")).json["data"]["mimeType"] == mime_type


@pytest.mark.parametrize(
    "kind", [None, "", "application/octet-stream", "application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"]
)
async def test_json_is_taken_for_json_whatever_go_called_it(api: Api, kind: str | None) -> None:
    more: dict[str, Any] = {"skip_auto_headers": ["Content-Type"]} if kind is None else {"headers": {"Content-Type": kind}}
    reply = await api.call("POST", "/api/jobs/document-processing", data=json.dumps(DOCUMENT).encode(), **more)
    assert reply.status == 201


async def test_keys_beside_the_jobs_are_no_jobs(api: Api) -> None:
    await api.call("POST", "/api/jobs/notifications", body=NOTIFICATION)
    for key in ("wait", "meta", "id", "events", "marker", "1:logs", "..%2Fnotifications%3A1"):
        assert (await api.call("GET", f"/api/jobs/status/notifications/{key}", as_="admin")).status == 404, key


# --- statistics -------------------------------------------------------------------------------------------------------


async def test_statistics_are_numbers_by_state(api: Api, redis: Redis) -> None:
    for _ in range(3):
        await api.call("POST", "/api/jobs/notifications", body=NOTIFICATION)
    await redis.lmove("bull:notifications:wait", "bull:notifications:active", "RIGHT", "LEFT")
    await redis.zadd("bull:notifications:failed", {"x": 1})
    counts = {"waiting": 2, "active": 1, "completed": 0, "failed": 1, "delayed": 0, "prioritized": 0, "paused": 0}
    assert (await api.call("GET", "/api/jobs/stats/notifications")).json == {"queueName": "notifications", **counts}
    everything = (await api.call("GET", "/api/jobs/stats", as_="admin")).json
    nothing = dict.fromkeys(counts, 0)
    assert everything == {"queues": {"document-processing": nothing, "compliance-analysis": nothing, "notifications": counts}}


async def test_jobs_held_by_a_pause_count_as_paused(api: Api, redis: Redis) -> None:
    await api.call("POST", "/api/jobs/notifications", body=NOTIFICATION)
    await redis.hset("bull:notifications:meta", "paused", 1)
    stats = (await api.call("GET", "/api/jobs/stats/notifications")).json
    assert (stats["waiting"], stats["paused"]) == (0, 1)


async def test_head_answers_as_get_without_a_body(api: Api) -> None:
    reply = await api.call("HEAD", "/api/jobs/stats/notifications")
    assert (reply.status, reply.text) == (200, "")
    assert (await api.call("HEAD", "/api/jobs/stats")).status == 403


# --- a queue that triggers a workflow ---------------------------------------------------------------------------------


async def test_the_unchanged_client_gets_the_chain(chained: Api, redis: Redis) -> None:
    reply = await chained.call("POST", "/api/jobs/document-processing", body=DOCUMENT)
    assert reply.status == 201
    run = reply.json["runId"]
    assert reply.json == {"jobId": "1", "queueName": "document-processing", "name": "process-document", "state": "waiting", "runId": run}
    assert reply.headers["Location"] == "/api/jobs/status/document-processing/1"
    shown = (await chained.call("GET", f"/api/runs/{run}")).json
    assert (shown["workflow"], shown["userId"], shown["input"]) == ("document-upload", "alice", DOCUMENT)
    assert shown["steps"]["process"]["jobId"] == "1"
    job = (await chained.call("GET", "/api/jobs/status/document-processing/1")).json
    assert job["data"] == {"documentId": "doc-123", "userId": "alice", "filename": "a.pdf"}


async def test_a_service_posts_for_anybody_and_the_run_is_theirs(chained: Api) -> None:
    reply = await chained.call("POST", "/api/jobs/document-processing", as_="service", body=DOCUMENT | {"userId": "bob"})
    run = reply.json["runId"]
    assert (await chained.call("GET", f"/api/runs/{run}", as_="bob")).status == 200
    assert (await chained.call("GET", f"/api/runs/{run}")).status == 404


# --- idempotency ------------------------------------------------------------------------------------------------------


async def _same_key_and_body(api: Api, redis: Redis) -> None:
    headers = {"Idempotency-Key": "same key/: %"}
    reordered = dict(reversed(DOCUMENT.items()))
    bodies = (DOCUMENT, reordered, DOCUMENT, DOCUMENT)
    replies = await asyncio.gather(*(api.call("POST", "/api/jobs/document-processing", body=body, headers=headers) for body in bodies))
    assert {reply.status for reply in replies} == {201}
    assert len({reply.text for reply in replies}) == 1
    assert {reply.headers["Location"] for reply in replies} == {"/api/jobs/status/document-processing/1"}
    assert sorted(reply.headers.get("Idempotent-Replayed", "") for reply in replies) == ["", "true", "true", "true"]
    assert await redis.llen("bull:document-processing:wait") == 1
    (key,) = [key async for key in redis.scan_iter("hookline:idempotency:*")]
    assert SECONDS - 10 < await redis.ttl(key) <= SECONDS


async def test_the_same_key_and_body_get_the_first_answer_and_one_job(api: Api, redis: Redis) -> None:
    await _same_key_and_body(api, redis)


async def test_the_same_key_and_body_get_the_first_answer_and_one_run(chained: Api, redis: Redis) -> None:
    await _same_key_and_body(chained, redis)
    assert await redis.zcard("hookline:runs:all") == 1


async def test_a_key_counts_per_principal_and_route(api: Api, redis: Redis) -> None:
    headers = {"Idempotency-Key": "k"}
    bobs = DOCUMENT | {"userId": "bob"}
    await api.call("POST", "/api/jobs/document-processing", body=DOCUMENT, headers=headers)
    await api.call("POST", "/api/jobs/document-processing", as_="bob", body=bobs, headers=headers)
    await api.call("POST", "/api/jobs/document-processing", as_="service", body=bobs, headers=headers)
    await api.call("POST", "/api/jobs/notifications", body=NOTIFICATION, headers=headers)
    assert await redis.llen("bull:document-processing:wait") == 3
    assert await redis.llen("bull:notifications:wait") == 1


async def test_a_refused_request_does_not_use_up_its_key(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    assert (await api.call("POST", "/api/jobs/notifications", body={}, headers=headers)).status == 422
    assert (await api.call("POST", "/api/jobs/notifications", body=NOTIFICATION, headers=headers)).status == 201


# --- without a token --------------------------------------------------------------------------------------------------


async def test_anonymous_jobs_open_five_routes_and_nothing_else(open_api: Api) -> None:
    for queue, _, body in CASES:
        assert (await open_api.call("POST", f"/api/jobs/{queue}", as_=None, body=body)).status == 201
        assert (await open_api.call("GET", f"/api/jobs/status/{queue}/1", as_=None)).status == 200
        assert (await open_api.call("GET", f"/api/jobs/stats/{queue}", as_=None)).status == 200
    closed = [
        ("GET", "/api/jobs/stats"), ("GET", "/api/runs"), ("GET", "/api/events"), ("GET", "/api/workflows"), ("POST", "/api/events"),
        ("POST", "/api/auth/workflow/document-upload"), ("POST", "/api/documents"), ("GET", "/api/webhooks/endpoints"), ("GET", "/api/events/stream"),
    ]  # fmt: skip
    for method, path in closed:
        assert (await open_api.call(method, path, as_=None)).status == 401, path


async def test_a_wrong_token_is_not_an_absent_one(open_api: Api) -> None:
    assert (await open_api.call("POST", "/api/jobs/notifications", as_="wrong", body=NOTIFICATION)).status == 401
    assert (await open_api.call("POST", "/api/jobs/notifications", as_="bob", body=NOTIFICATION)).status == 403


async def test_by_default_nothing_is_open(api: Api) -> None:
    for queue, _, body in CASES:
        assert (await api.call("POST", f"/api/jobs/{queue}", as_=None, body=body)).status == 401
        assert (await api.call("GET", f"/api/jobs/status/{queue}/1", as_=None)).status == 401
        assert (await api.call("GET", f"/api/jobs/stats/{queue}", as_=None)).status == 401


# --- health -----------------------------------------------------------------------------------------------------------


async def test_health_needs_no_token_and_says_which_part_is_behind(api: Api) -> None:
    assert (await api.call("GET", "/health/live", as_=None)).json == {"status": "live"}
    api.ready = {"ok": True, "parts": {"engine": {"ok": True, "behindMs": 3}}}
    reply = await api.call("GET", "/health/ready", as_=None)
    assert (reply.status, reply.json) == (200, api.ready)
    api.ready = {"ok": False, "parts": {"engine": {"ok": False, "behindMs": 90_000}}}
    reply = await api.call("GET", "/health/ready", as_=None)
    assert (reply.status, reply.json) == (503, api.ready)
