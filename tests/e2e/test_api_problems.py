"""Every error is a problem document; each test asserts the whole of it."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as StoreConnectionError

from tests.support.api import DOCUMENT, DOCUMENT_UPLOAD, NOTIFICATION, SECRET, Api, Reply, serving

DOCUMENTS = "/api/jobs/document-processing"


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    workflow = DOCUMENT_UPLOAD | {"triggers": [{"queue": "document-processing"}]}
    async with serving(redis, tmp_path, workflows={"document-upload": workflow}, server={"body_limit": "2KiB"}) as api:
        yield api


def assert_problem(reply: Reply, status: int, code: str, title: str, detail: str, **members: Any) -> None:
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.headers["X-Request-Id"] == "req-1"
    expected = {"type": f"urn:hookline:problem:{code}", "title": title, "status": status, "detail": detail, "instance": "urn:hookline:request:req-1"}
    assert reply.json == expected | members
    assert reply.status == status


# --- who --------------------------------------------------------------------------------------------------------------

BEARER_HINT = "send the header Authorization: Bearer <token>"


async def test_no_token(api: Api) -> None:
    reply = await api.call("GET", "/api/runs", as_=None)
    assert_problem(reply, 401, "unauthenticated", "Sign in first", "a token is needed", hint=BEARER_HINT)
    assert reply.headers["WWW-Authenticate"] == "Bearer"


async def test_another_scheme(api: Api) -> None:
    reply = await api.call("GET", "/api/runs", as_=None, headers={"Authorization": "Basic YTpi"})
    assert_problem(reply, 401, "unauthenticated", "Sign in first", "the Authorization header is not a bearer token", hint=BEARER_HINT)
    assert reply.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def _none() -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part({'sub': 'root', 'role': 'admin', 'exp': 4102444800})}."


@pytest.mark.parametrize(
    ("token", "detail"),
    [
        (jwt.encode({"sub": "alice", "exp": time.time() - 1}, SECRET), "the token has expired"),
        (jwt.encode({"sub": "alice"}, SECRET), "the token has no `exp`"),
        (jwt.encode({"sub": "alice", "exp": 4102444800}, "x" * 32), "the token's signature is wrong"),
        (jwt.encode({"sub": "alice", "exp": 4102444800}, SECRET * 2, algorithm="HS512"), "the token's algorithm is not allowed; allowed: HS256"),
        (_none(), "the token's algorithm is not allowed; allowed: HS256"),
        ("rubbish", "the token is not a valid JWT"),
        ("hk_unknown", "this API key is not known"),
    ],
    ids=["expired", "no expiry", "signature", "algorithm", "none", "rubbish", "key"],
)
async def test_a_token_that_is_not_accepted(api: Api, token: str, detail: str) -> None:
    reply = await api.call("GET", "/api/runs", as_=token)
    assert_problem(reply, 401, "unauthenticated", "Sign in first", detail)
    assert reply.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


async def test_not_the_role(api: Api) -> None:
    for as_, role in (("user", "user"), ("service", "service")):
        reply = await api.call("GET", "/api/jobs/stats", as_=as_)
        assert_problem(reply, 403, "forbidden", "Not allowed", f"this takes the role admin; the token's is {role}")
    reply = await api.call("POST", "/api/events", body={"type": "a.b", "data": {}})
    assert_problem(reply, 403, "forbidden", "Not allowed", "this takes the role service or admin; the token's is user")


async def test_work_for_somebody_else(api: Api) -> None:
    hint = "a user starts work for itself; acting for others takes the role service or admin"
    reply = await api.call("POST", DOCUMENTS, as_="bob", body=DOCUMENT)
    assert_problem(reply, 403, "forbidden", "Not allowed", "userId is not the token's `sub`", hint=hint)
    reply = await api.call("POST", "/api/workflows/document-upload/runs", as_="bob", body={"input": {}, "userId": "alice"})
    assert_problem(reply, 403, "forbidden", "Not allowed", "userId is not the token's `sub`", hint=hint)


async def test_another_users_job_and_run_are_not_there(api: Api) -> None:
    posted = (await api.call("POST", DOCUMENTS, body=DOCUMENT)).json
    job, run = posted["jobId"], posted["runId"]
    reply = await api.call("GET", f"/api/jobs/status/document-processing/{job}", as_="bob")
    assert_problem(reply, 404, "not-found", "Not found", f"there is no job '{job}' in queue 'document-processing'")
    missing = await api.call("GET", "/api/jobs/status/document-processing/999")
    assert_problem(missing, 404, "not-found", "Not found", "there is no job '999' in queue 'document-processing'")
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")):
        reply = await api.call(method, f"/api/runs/{run}{path}", as_="bob")
        assert_problem(reply, 404, "not-found", "Not found", f"there is no run '{run}'")


# --- what -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"{oops", b"NaN", b'{"a": "\xff"}', b'{"a": 1} x'], ids=["syntax", "NaN", "not UTF-8", "more"])
async def test_wrong_json(api: Api, body: bytes) -> None:
    reply = await api.call("POST", DOCUMENTS, data=body)
    detail = reply.json["detail"]
    assert detail.startswith("the body is not JSON: ")
    assert "line 1 column" in detail
    assert_problem(reply, 400, "invalid-json", "The body is not JSON", detail)


async def test_no_body(api: Api) -> None:
    reply = await api.call("POST", DOCUMENTS)
    assert_problem(reply, 400, "invalid-json", "The body is not JSON", "the body is empty; this route takes a JSON object")


@pytest.mark.parametrize("body", [[], "text", 1, None])
async def test_json_that_is_no_object(api: Api, body: Any) -> None:
    reply = await api.call("POST", DOCUMENTS, data=json.dumps(body).encode())
    assert_problem(reply, 422, "invalid-input", "The request does not fit", "the body must be a JSON object")


async def test_a_missing_field_is_named(api: Api) -> None:
    body = {name: value for name, value in DOCUMENT.items() if name not in ("filename", "fileSize")}
    reply = await api.call("POST", DOCUMENTS, body=body)
    errors = [{"path": "filename", "message": "is required"}, {"path": "fileSize", "message": "is required"}]
    assert_problem(reply, 422, "invalid-input", "The request does not fit", "the body does not fit: filename, fileSize", errors=errors)


ID_RULE = "must be 1 to 128 of A-Z a-z 0-9 . _ - and not . or .."
NAME_RULE = "must be a file's name without / \\ or control characters, and not . or .. or .hookline"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("fileSize", "12", "must be a valid integer"),
        ("fileSize", 1.5, "must be a valid integer"),
        ("fileSize", True, "must be a valid integer"),
        ("fileSize", -1, "must be greater than or equal to 0"),
        ("fileSize", 2**60, "must be less than or equal to 9007199254740991"),
        ("documentId", 7, "must be a valid string"),
        ("documentId", "", ID_RULE),
        ("documentId", "..", ID_RULE),
        ("documentId", "a/b", ID_RULE),
        ("documentId", "a" * 129, ID_RULE),
        ("documentId", "a\n", ID_RULE),
        ("filename", "../a.pdf", NAME_RULE),
        ("filename", "a\\b.pdf", NAME_RULE),
        ("filename", "a\x00.pdf", NAME_RULE),
        ("filename", ".hookline", NAME_RULE),
        ("filename", "é" * 128, "must have at most 255 bytes in UTF-8"),
        ("mimeType", "pdf", "must be a media type such as application/pdf, or empty if it is not known"),
        ("mimeType", None, "must be a valid string"),
    ],
)
async def test_a_value_that_does_not_fit_is_named(api: Api, field: str, value: Any, message: str) -> None:
    reply = await api.call("POST", DOCUMENTS, body=DOCUMENT | {field: value})
    errors = [{"path": field, "message": message}]
    assert_problem(reply, 422, "invalid-input", "The request does not fit", f"the body does not fit: {field}", errors=errors)


async def test_a_channel_that_does_not_exist(api: Api) -> None:
    reply = await api.call("POST", "/api/jobs/notifications", body=NOTIFICATION | {"type": "fax"})
    errors = [{"path": "type", "message": "must be 'email', 'slack', 'sms' or 'push'"}]
    assert_problem(reply, 422, "invalid-input", "The request does not fit", "the body does not fit: type", errors=errors)


async def test_a_path_that_leaves_the_storage(api: Api) -> None:
    body = {"documentId": "d", "userId": "alice", "documentPath": "documents/../../etc/passwd", "mimeType": "", "complianceFrameworks": ["GDPR", 1]}
    reply = await api.call("POST", "/api/jobs/compliance-analysis", body=body)
    errors = [
        {"path": "documentPath", "message": "must be a path below the storage root, without .. \\ or control characters"},
        {"path": "complianceFrameworks.1", "message": "must be a valid string"},
    ]
    detail = "the body does not fit: documentPath, complianceFrameworks.1"
    assert_problem(reply, 422, "invalid-input", "The request does not fit", detail, errors=errors)


async def test_input_that_does_not_fit_the_workflow(api: Api) -> None:
    reply = await api.call("POST", "/api/workflows/document-upload/runs", body={"input": {"documentId": "d"}})
    assert reply.json["errors"], "each missing field is named"
    assert {"filename", "mimeType", "fileSize"} <= set(json.dumps(reply.json["errors"]).replace("'", " ").replace('"', " ").split())
    detail = "the input does not fit workflow 'document-upload'"
    assert_problem(reply, 422, "invalid-input", "The request does not fit", detail, errors=reply.json["errors"])


async def test_a_body_nested_too_deeply(api: Api) -> None:
    for depth, refused in ((100, False), (101, True)):
        raw = b'{"input":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        reply = await api.call("POST", "/api/workflows/none/runs", data=raw)
        if refused:
            assert_problem(reply, 422, "invalid-input", "The request does not fit", "the body is nested more than 100 levels deep")
        else:
            assert reply.status == 404


async def test_a_query_that_does_not_fit(api: Api) -> None:
    reply = await api.call("GET", "/api/runs?statsu=failed&limit=0&status=odd")
    errors = [
        {"path": "status", "message": "must be 'pending', 'running', 'waiting', 'completed', 'failed' or 'cancelled'"},
        {"path": "limit", "message": "must be greater than or equal to 1"},
        {"path": "statsu", "message": "is not a parameter of this route"},
    ]
    detail = "the query does not fit: status, limit, statsu"
    assert_problem(reply, 422, "invalid-input", "The request does not fit", detail, errors=errors)


async def test_a_body_too_large_whether_it_says_so_or_not(api: Api) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 1024

    for data in (b" " * 2049, chunks()):
        reply = await api.call("POST", DOCUMENTS, data=data)
        assert_problem(reply, 413, "too-large", "The body is too large", "the body has more than 2048 bytes")
    assert (await api.call("POST", DOCUMENTS, data=json.dumps(DOCUMENT).encode().ljust(2048))).status == 201


async def test_a_body_too_large_that_comes_with_its_headers(api: Api) -> None:
    """All of it is there before anybody counts."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {DOCUMENTS} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {api.token()}\r\nTransfer-Encoding: chunked"
    writer.write(f"{head}\r\n\r\n801\r\n{' ' * 2049}\r\n0\r\n\r\n".encode())
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 413 ")
    writer.close()


@pytest.mark.parametrize("kind", ["text/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_another_media_type(api: Api, kind: str) -> None:
    reply = await api.call("POST", DOCUMENTS, data=b"<a/>", headers={"Content-Type": kind})
    detail = f"the body's type is {kind.partition(';')[0]}; this route takes application/json"
    hint = "send Content-Type: application/json"
    assert_problem(reply, 415, "unsupported-media-type", "The media type is not supported", detail, hint=hint)


# --- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/jobs/status/nope/1", "/api/jobs/stats/nope"])
async def test_an_unknown_queue(api: Api, path: str) -> None:
    reply = await api.call("GET", path)
    hint = "known queues: document-processing, compliance-analysis, notifications"
    assert_problem(reply, 404, "unknown-queue", "There is no such queue", "there is no queue 'nope'", hint=hint)


async def test_a_post_to_an_unknown_queue(api: Api) -> None:
    reply = await api.call("POST", "/api/jobs/nope", body=DOCUMENT)
    hint = "known queues: document-processing, compliance-analysis, notifications"
    assert_problem(reply, 404, "unknown-queue", "There is no such queue", "there is no queue 'nope'", hint=hint)


@pytest.mark.parametrize("path", ["/", "/api", "/api/nope", "/api/runs/a/b", "/api/jobs/status/document-processing"])
async def test_an_unknown_route_whoever_asks(api: Api, path: str) -> None:
    for as_ in ("user", None):
        reply = await api.call("GET", path, as_=as_)
        assert_problem(reply, 404, "not-found", "Not found", "there is no such route; /openapi.json lists them all")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", DOCUMENTS, "POST"),
        ("DELETE", "/api/jobs/status/notifications/1", "GET, HEAD"),
        ("POST", "/api/jobs/stats", "GET, HEAD"),
        ("PUT", "/api/events", "GET, HEAD, POST"),
    ],
)
async def test_the_wrong_method(api: Api, method: str, path: str, allowed: str) -> None:
    reply = await api.call(method, path)
    assert_problem(reply, 405, "method-not-allowed", "Method not allowed", f"{method} is not allowed here; allowed: {allowed}")
    assert reply.headers["Allow"] == allowed


async def test_an_expectation_that_cannot_be_met(api: Api) -> None:
    reply = await api.call("POST", DOCUMENTS, body=DOCUMENT, headers={"Expect": "miracles"})
    assert_problem(reply, 417, "expectation-failed", "The expectation cannot be met", "only 100-continue can be expected")
    assert (await api.call("POST", DOCUMENTS, body=DOCUMENT, expect100=True)).status == 201


async def test_an_unknown_workflow_and_run(api: Api) -> None:
    reply = await api.call("POST", "/api/workflows/nope/runs", body={"input": {}})
    assert_problem(reply, 404, "not-found", "Not found", "there is no workflow 'nope'; known: document-upload")
    reply = await api.call("GET", "/api/workflows/nope")
    assert_problem(reply, 404, "not-found", "Not found", "there is no workflow 'nope'")
    reply = await api.call("GET", "/api/runs/run_nope", as_="admin")
    assert_problem(reply, 404, "not-found", "Not found", "there is no run 'run_nope'")


# --- when -------------------------------------------------------------------------------------------------------------


async def test_a_run_that_cannot_be_retried(api: Api) -> None:
    run = (await api.call("POST", DOCUMENTS, body=DOCUMENT)).json["runId"]
    reply = await api.call("POST", f"/api/runs/{run}/retry")
    assert_problem(reply, 409, "conflict", "The present state does not allow it", f"run {run} is running and cannot be retried")


async def test_an_idempotency_key_used_for_another_body(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    assert (await api.call("POST", DOCUMENTS, body=DOCUMENT, headers=headers)).status == 201
    reply = await api.call("POST", DOCUMENTS, body=DOCUMENT | {"fileSize": 1}, headers=headers)
    detail, hint = "this Idempotency-Key was used for a request with another body", "use a fresh key for a new request"
    assert_problem(reply, 409, "conflict", "The present state does not allow it", detail, hint=hint)


async def test_an_idempotency_key_that_cannot_be_one(api: Api) -> None:
    detail, hint = "Idempotency-Key must be 1 to 255 printable ASCII characters", "send a fresh UUID with each new request"
    for key in ("", "x" * 256, "é"):
        reply = await api.call("POST", DOCUMENTS, body=DOCUMENT, headers={"Idempotency-Key": key})
        assert_problem(reply, 400, "invalid-header", "A header cannot be used", detail, hint=hint)


async def test_the_store_is_away(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise StoreConnectionError("redis://secret@host refused")

    monkeypatch.setattr(type(api.services.queues), "counts", away)
    reply = await api.call("GET", "/api/jobs/stats/notifications")
    assert_problem(reply, 503, "unavailable", "Try again later", "the store does not answer")
    assert reply.headers["Retry-After"] == "1"


async def test_an_unexpected_error_tells_nothing_but_where_to_look(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(type(api.services.queues), "counts", broken)
    reply = await api.call("GET", "/api/jobs/stats/notifications")
    detail = "an unexpected error; the log has it under this instance's id"
    assert_problem(reply, 500, "internal", "Something went wrong on our side", detail)
    logged = capsys.readouterr().out
    assert "swordfish" in logged
    assert "req-1" in logged
