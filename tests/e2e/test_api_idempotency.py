"""Every POST that creates takes an `Idempotency-Key`: sent again it answers as the first time and does nothing; with another body it is refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline.api.app import ROUTES
from pipeline.workflows.model import JobEnded
from tests.support.api import DOCUMENT, DOCUMENT_UPLOAD, NOTIFICATION, Api, serving

COMPLIANCE = {"documentId": "d", "userId": "alice", "documentPath": "documents/d/a.pdf", "mimeType": "", "complianceFrameworks": []}
UPLOAD = {name: value for name, value in DOCUMENT.items() if name != "userId"}
ENDPOINT = {"url": "http://127.0.0.1:9/hooks"}
BODIES: dict[str, tuple[Any, Any]] = {
    "/api/jobs/document-processing": (DOCUMENT, DOCUMENT | {"fileSize": 1}),
    "/api/jobs/notifications": (NOTIFICATION, NOTIFICATION | {"subject": "other"}),
    "/api/jobs/compliance-analysis": (COMPLIANCE, COMPLIANCE | {"mimeType": "text/plain"}),
    "/api/auth/workflow/document-upload": (UPLOAD, UPLOAD | {"fileSize": 1}),
    "/api/workflows/{name}/runs": ({"input": UPLOAD}, {"input": UPLOAD, "userId": "bob"}),
    "/api/events": ({"type": "a.b", "data": {}}, [{"type": "a.b", "data": {}}]),
    "/api/webhooks/endpoints": (ENDPOINT, ENDPOINT | {"types": ["a.b"]}),
}
"""Route → a body, and another that would do as well."""
OTHERS = {"/api/documents", "/api/runs/{runId}/cancel", "/api/runs/{runId}/retry"}
"""Without a JSON body: tested in test_api_documents and below."""
OTHERS |= {f"/api/webhooks/{path}" for path in ("endpoints/{endpointId}/rotate-secret", "deliveries/{deliveryId}/replay")}
OTHERS |= {f"/api/webhooks/endpoints/{{endpointId}}/{what}" for what in ("replay", "test")}


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(redis, tmp_path, workflows={"document-upload": DOCUMENT_UPLOAD}) as api:
        yield api


def test_all_that_create_are_tested() -> None:
    assert {route.path for route in ROUTES if route.idempotent} == BODIES.keys() | OTHERS
    creating = {route.path for route in ROUTES if route.method == "POST" and route.status in (201, 202)}
    assert creating <= BODIES.keys() | OTHERS


async def made(api: Api) -> dict[str, int]:
    """How much there is of all that requests can make."""
    redis = api.services.redis
    jobs = [await redis.llen(f"bull:{queue}:wait") for queue in api.services.queues.names]
    endpoints = (await api.call("GET", "/api/webhooks/endpoints", as_="admin")).json["items"]
    log = await redis.xlen(api.services.log.key)
    return {"jobs": sum(jobs), "runs": await redis.zcard(api.services.keys.runs()), "events": log, "endpoints": len(endpoints)}


@pytest.mark.parametrize("path", BODIES)
async def test_the_same_request_again_is_the_first_answer_and_another_body_is_refused(api: Api, path: str) -> None:
    body, other = BODIES[path]
    url, headers = path.replace("{name}", "document-upload"), {"Idempotency-Key": "k"}
    before = await made(api)
    first = await api.call("POST", url, as_="admin", body=body, headers=headers)
    once = await made(api)
    assert first.status in (201, 202), first.text
    assert once != before
    again = await api.call("POST", url, as_="admin", body=body, headers=headers)
    assert (again.status, again.json, again.headers.get("Location")) == (first.status, first.json, first.headers.get("Location"))
    assert (first.headers.get("Idempotent-Replayed"), again.headers.get("Idempotent-Replayed")) == (None, "true")
    refused = await api.call("POST", url, as_="admin", body=other, headers=headers)
    assert (refused.status, refused.json["type"]) == (409, "urn:hookline:problem:conflict")
    assert await made(api) == once
    assert (await api.call("POST", url, as_="admin", body=other, headers={"Idempotency-Key": "l"})).status == first.status


async def test_a_run_cancelled_and_retried_under_keys_is_so_once(api: Api) -> None:
    run = (await api.call("POST", "/api/workflows/document-upload/runs", body={"input": UPLOAD})).json["runId"]
    for what, status in (("cancel", 200), ("retry", 202)):
        headers = {"Idempotency-Key": what}
        first = await api.call("POST", f"/api/runs/{run}/{what}", headers=headers)
        # Moved on since: only the key lets the same request be answered as before.
        await api.services.runs._transitions.apply(run, JobEnded(step="process", n=2, error="boom"))
        again = await api.call("POST", f"/api/runs/{run}/{what}", headers=headers)
        assert (first.status, again.status, again.json) == (status, status, first.json)
    told = [event["type"] for event in (await api.call("GET", f"/api/runs/{run}/events")).json["items"]]
    assert (told.count("workflow.cancelled"), told.count("workflow.retried")) == (1, 1)


async def test_a_secret_is_rotated_once_a_key(api: Api) -> None:
    created = (await api.call("POST", "/api/webhooks/endpoints", as_="admin", body=ENDPOINT)).json
    path = f"/api/webhooks/endpoints/{created['id']}/rotate-secret"
    secrets = [(await api.call("POST", path, as_="admin", headers={"Idempotency-Key": key})).json["secret"] for key in ("k", "k", "l")]
    assert secrets[0] == secrets[1]
    assert len({created["secret"], *secrets}) == 3


async def test_many_are_sent_again_once_a_key_and_so_is_a_test_event(api: Api) -> None:
    created = (await api.call("POST", "/api/webhooks/endpoints", as_="admin", body=ENDPOINT)).json
    path, headers = f"/api/webhooks/endpoints/{created['id']}", {"Idempotency-Key": "k"}
    asked = {"since": "2026-01-01T00:00:00Z"}
    begun = [await api.call("POST", f"{path}/replay", as_="admin", body=asked, headers=headers) for _ in range(2)]
    assert [(reply.status, reply.json) for reply in begun] == [(202, begun[0].json)] * 2
    assert (await api.call("POST", f"{path}/replay", as_="admin", body=asked | {"missing": True}, headers=headers)).status == 409
    assert len((await api.call("GET", "/api/webhooks/replays", as_="admin")).json["items"]) == 1
    tried = [(await api.call("POST", f"{path}/test", as_="admin", headers={"Idempotency-Key": key})).json["eventId"] for key in ("k", "k", "l")]
    assert tried[0] == tried[1] != tried[2]
