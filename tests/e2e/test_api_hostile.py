"""What no honest client sends: each is answered with a problem that says so, none ends in a 500, and none keeps others waiting."""

import asyncio
import io
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tests.support.api import DOCUMENT, DOCUMENT_UPLOAD, NOTIFICATION, SECRET, Api, Reply, serving

NOTIFICATIONS = "/api/jobs/notifications"
RUNS = "/api/workflows/document-upload/runs"
ENDLESS = 256 << 20
"""Bytes; more than the buffers of any kernel, which is what is sent before a refusal is heard."""


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    workflow = DOCUMENT_UPLOAD | {"triggers": [{"queue": "document-processing"}]}
    async with serving(redis, tmp_path, workflows={"document-upload": workflow}, server={"upload_limit": "64KiB"}) as api:
        yield api


def _part(name: str, content: bytes = b"", *, boundary: str = "B", more: str = "") -> bytes:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


async def _upload(api: Api, data: Any, *, boundary: str = "B", **headers: str) -> Reply:
    return await api.call("POST", "/api/documents", data=data, headers={"Content-Type": f"multipart/form-data; boundary={boundary}", **headers})


# --- cursors and ids --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cursor", ["9" * 23, "9" * 4500, "٣", "-1"])
async def test_a_cursor_of_a_timeline_that_is_none(api: Api, cursor: str) -> None:
    run = (await api.call("POST", "/api/jobs/document-processing", body=DOCUMENT)).json["runId"]
    reply = await api.call("GET", f"/api/runs/{run}/events", params={"cursor": cursor})
    assert (reply.status, reply.json["detail"]) == (422, f"{cursor!r} is not a cursor of this list; use its nextCursor")


@pytest.mark.parametrize("cursor", ["٣.run_x", "9" * 400 + ".run_x", "1.", "."])
async def test_a_cursor_of_the_runs_that_is_none(api: Api, cursor: str) -> None:
    reply = await api.call("GET", "/api/runs", params={"cursor": cursor})
    assert (reply.status, reply.json["detail"]) == (422, f"{cursor!r} is not a cursor of this list; use its nextCursor")


@pytest.mark.parametrize("path", ["/api/events", "/api/events/stream"])
@pytest.mark.parametrize("cursor", ["1-99999999999999999999", "٣-٣", "1"])
async def test_a_cursor_of_the_log_that_is_none(api: Api, path: str, cursor: str) -> None:
    reply = await api.call("GET", path, params={"after": cursor})
    assert (reply.status, reply.json["detail"]) == (422, f"{cursor!r} is not a cursor of the log")


@pytest.mark.parametrize("cursor", ["٣.dlv_x", "9" * 4500 + ".dlv_x"])
async def test_a_cursor_of_the_deliveries_that_is_none(api: Api, cursor: str) -> None:
    reply = await api.call("GET", "/api/webhooks/deliveries", as_="admin", params={"cursor": cursor})
    assert (reply.status, reply.json["detail"]) == (422, "this is not a cursor of the deliveries; use the nextCursor of a page")


async def test_what_lies_beside_a_run_is_no_run(api: Api) -> None:
    beside = (await api.call("POST", "/api/jobs/document-processing", body=DOCUMENT)).json["runId"] + ":timeline"
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")):
        reply = await api.call(method, f"/api/runs/{beside}{path}")
        assert (reply.status, reply.json["detail"]) == (404, f"there is no run '{beside}'")


@pytest.mark.parametrize("named", [["future"], {"a": 1}, 5, None])
async def test_a_document_id_that_is_no_text(api: Api, named: Any) -> None:
    reply = await api.call("POST", RUNS, body={"input": {"documentId": named}})
    assert (reply.status, reply.json["detail"]) == (422, "the input does not fit workflow 'document-upload'")


@pytest.mark.parametrize("schedule", ["9" * 400 + "d", "9" * 400 + ".5ms"])
async def test_a_duration_beyond_all_numbers(api: Api, schedule: str) -> None:
    reply = await api.call("POST", "/api/webhooks/endpoints", as_="admin", body={"url": "http://127.0.0.1:9/", "schedule": [schedule]})
    assert (reply.status, reply.json["type"]) == (422, "urn:hookline:problem:invalid-input")


# --- others' documents ------------------------------------------------------------------------------------------------


async def test_a_run_is_not_retried_over_a_document_that_became_somebody_elses(api: Api) -> None:
    wanted = {"documentId": "future", "filename": "a.txt", "mimeType": "", "fileSize": 0}
    run = (await api.call("POST", RUNS, as_="bob", body={"input": wanted})).json["runId"]
    assert (await api.call("POST", f"/api/runs/{run}/cancel", as_="bob")).status == 200
    assert (await _upload(api, _part("documentId", b"future") + _part("file", b"alice's", more='; filename="a.txt"') + b"--B--\r\n")).status == 202
    reply = await api.call("POST", f"/api/runs/{run}/retry", as_="bob")
    assert (reply.status, reply.json["detail"]) == (404, "there is no document 'future'")
    assert (await api.call("GET", f"/api/runs/{run}", as_="bob")).json["status"] == "cancelled"


# --- bodies -----------------------------------------------------------------------------------------------------------


async def _raw(api: Api, head: str, body: bytes = b"") -> bytes:
    """One request as bytes, for what a client library would not send."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        lines = [head, f"Authorization: Bearer {api.token()}", "Host: test", "Connection: close", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


@pytest.mark.parametrize("path", [NOTIFICATIONS, "/api/documents"])
async def test_a_media_type_that_is_no_text(api: Api, path: str) -> None:
    answer = await _raw(api, f"POST {path} HTTP/1.1\r\nContent-Type: \udcff/x", b"{}")
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert b'"type":"urn:hookline:problem:unsupported-media-type"' in answer


@pytest.mark.parametrize("path", [NOTIFICATIONS, "/api/documents"])
@pytest.mark.parametrize("coding", ["gzip", "br", "odd"])
async def test_a_compressed_body_is_refused(api: Api, path: str, coding: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=B" if "doc" in path else "application/json", "Content-Encoding": coding}
    reply = await api.call("POST", path, data=b"x", headers=headers)
    assert (reply.status, reply.json["type"]) == (415, "urn:hookline:problem:unsupported-media-type")
    assert reply.json["detail"] == f"the body is compressed ({coding}), which this service does not take"
    assert (await api.call("POST", NOTIFICATIONS, body=NOTIFICATION, headers={"Content-Encoding": "identity"})).status == 201


async def test_a_compressed_body_is_not_even_unpacked(api: Api) -> None:
    # 1 MB that would be 1 GB: unpacking it, if only to throw it away, takes seconds in which nobody else is served.
    packer = zlib.compressobj()
    first, further = (packer.compress(b"\0" * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    bomb = first + further * 999
    began = time.process_time()
    for path in (NOTIFICATIONS, "/api/documents", "/health/live", "/nowhere"):
        reply = await api.call(
            "POST", path, as_=None, data=io.BytesIO(bomb), headers={"Content-Encoding": "deflate", "Content-Type": "application/json"}
        )
        assert reply.status in (401, 404, 405)
    assert time.process_time() - began < 1


async def test_a_form_of_very_many_parts(api: Api) -> None:
    data = b"".join(_part(f"f{n}") for n in range(1_000)) + _part("file", b"x", more='; filename="a.txt"') + b"--B--\r\n"
    reply = await _upload(api, data)
    assert (reply.status, reply.json["type"]) == (400, "urn:hookline:problem:invalid-multipart")
    assert reply.json["detail"] == "the body has more than 100 parts"


@pytest.mark.parametrize("unit", [b"\r\n" * 512, b"x" * 1024], ids=["before the first part", "in a part"])
async def test_a_form_without_end(api: Api, unit: bytes) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        if unit[:1] == b"x":
            yield _part("note")
        while sent < ENDLESS:
            yield unit
            sent += len(unit)

    reply = await _upload(api, chunks())
    assert (reply.status, reply.json["detail"]) == (413, "the file has more than 65536 bytes")
    assert sent < ENDLESS


async def test_a_form_that_names_its_charset(api: Api) -> None:
    boundary = "-" * 40 + "B"
    data = _part("_charset_", b"utf-8", boundary=boundary) + _part("file", b"x", boundary=boundary, more='; filename="a.txt"')
    reply = await _upload(api, data + f"--{boundary}--\r\n".encode(), boundary=boundary)
    assert (reply.status, reply.json["type"]) == (400, "urn:hookline:problem:invalid-multipart")


async def test_a_token_that_never_ends_streams_like_any_other(api: Api) -> None:
    token = jwt.encode({"sub": "alice", "exp": 10**400}, SECRET)
    with capture_logs() as logged:
        async with api.session.get(f"{api.url}/api/events/stream", headers={"Authorization": f"Bearer {token}"}) as response:
            assert await response.content.readline() == b"retry: 3000\n"
            assert await response.content.readline() == b"\n"
            posted = (await api.call("POST", "/api/jobs/document-processing", body=DOCUMENT)).json["runId"]
            while not (line := await response.content.readline()).startswith(b"data:"):
                assert line, "the stream ended"
            assert posted.encode() in line
    assert not [line for line in logged if line["log_level"] == "error"]
