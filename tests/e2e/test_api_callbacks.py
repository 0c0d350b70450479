"""The callback's route as an attacker finds it: each request that is not the one genuine answer gets a clear 4xx, and uses up nothing."""

import asyncio
import io
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from pipeline.jobs.attempt import read_job
from pipeline.jobs.callbacks import Callbacks, Links, callback_id
from pipeline.jobs.calls import now_ms
from pipeline.jobs.model import Job
from tests.support.api import Api, Reply, serving
from tests.support.jobs import take

QUEUE = "document-processing"


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(redis, tmp_path) as api:
        yield api


class Asked:
    """A job that was pushed and whose callback is awaited."""

    def __init__(self, api: Api, job: Job) -> None:
        self.api = api
        self.id = callback_id(job)
        self.path = self.path_of(api.services.links)
        self.signature = self.path.partition("signature=")[2]

    def path_of(self, links: Links) -> str:
        url = urlsplit(links.url(self.id))
        return f"{url.path}?{url.query}"

    async def answer(self, body: Any = None, *, path: str | None = None, **more: Any) -> Reply:
        return await self.api.call("POST", path or self.path, as_=None, body=body, **more)

    async def still_good(self) -> None:
        assert (await self.answer({"result": "good"})).status == 200


async def asked(redis: Redis, api: Api, *, seconds: int = 60) -> Asked:
    await api.services.queues.add(QUEUE, "process-document", {})
    keys = api.services.queues.keys(QUEUE)
    taken = await take(redis, keys)
    assert taken
    job = read_job(QUEUE, taken)
    await Callbacks(redis, prefix="hookline", bull_prefix="bull").open(job, now_ms() + seconds * 1000)
    return Asked(api, job)


def problem(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json["type"].removeprefix("urn:hookline:problem:")


# --- the link ---------------------------------------------------------------------------------------------------------


async def test_a_forged_or_swapped_link_is_refused(redis: Redis, api: Api) -> None:
    one, two = await asked(redis, api), await asked(redis, api)
    base = one.path.partition("?")[0]
    for query in (
        "", "?signature=", f"?signature={two.signature}", f"?signature={one.signature[:-1]}", f"?signature={one.signature}%00",
        f"?signature={one.signature}&signature={one.signature}", f"?signature={one.signature.swapcase()}", "?signature=" + "A" * 5000,
        "?signature=%ff", "?signature=%ED%A0%80", "?signature=%E2%98%83",
    ):  # fmt: skip
        assert problem(await one.answer({"result": 1}, path=base + query)) == (403, "forbidden"), query
    assert problem(await one.answer({"result": 1}, path=one.path.replace(one.id, two.id))) == (403, "forbidden")
    assert problem(await one.answer({"result": 1}, path=one.path.replace(one.id, one.id.upper()))) == (403, "forbidden")
    assert problem(await one.answer({"result": 1}, path=one.path + "&more=1"))[0] == 422
    # A genuine signature for what was never asked.
    nobody = urlsplit(api.services.links.url("0" * 32))
    assert problem(await one.answer({"result": 1}, path=f"{nobody.path}?{nobody.query}")) == (404, "not-found")
    await one.still_good()
    await two.still_good()


@pytest.mark.parametrize("target", [b"/api/callbacks/%ff?signature=%ff", b"/api/callbacks/a\xff?signature=x", b"/api/callbacks/a?signature=\xff\xfe"])
async def test_bytes_that_are_no_text_are_no_link(api: Api, target: bytes) -> None:
    address = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    body = b'{"result": 1}'
    writer.write(b"POST " + target + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    status = (await reader.readline()).split()[1]
    writer.close()
    assert status in (b"400", b"403"), status


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods_use_up_nothing(redis: Redis, api: Api, method: str) -> None:
    one = await asked(redis, api)
    assert (await api.call(method, one.path, as_=None)).status == 405
    await one.still_good()


async def test_links_of_before_a_rotation_hold_while_their_key_is_there(redis: Redis, api: Api) -> None:
    one = await asked(redis, api)
    old, new = b"o" * 32, b"n" * 32
    genuine = Links("http://h", [new, old])
    for made, good in ((Links("http://h", [old]), True), (genuine, True), (Links("http://h", [b"x" * 32]), False)):
        signature = one.path_of(made).partition("signature=")[2]
        assert genuine.genuine(one.id, signature) is good


# --- the body ---------------------------------------------------------------------------------------------------------


NO_ANSWERS = [
    (400, [
        b"", b"   ", b"{", b"no", b'{"result": NaN}', b'{"result": Infinity}', b'{"result": 1e999}', b'{"result": -1e999}',
        b'{"result": ' + b"9" * 400 + b"}", b'{"result": "\\ud800"}', b'{"error": "\xff"}', b'{"result": ' + b"[" * 400_000,
        b'{"result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ]),
    (422, [
        b"[]", b"null", b'"x"', b"{}", b'{"retry": true}', b'{"result": 1, "error": "x"}', b'{"error": null}', b'{"error": ""}', b'{"error": 1}',
        b'{"error": "x", "retry": "yes"}', b'{"error": "' + b"x" * 2001 + b'"}', b'{"result": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"result": "' + b"x" * 65_535 + b'"}',
    ]),
    (413, [b'{"result": "' + b"x" * (1 << 20) + b'"}']),
]  # fmt: skip
ANSWERS = [
    b'{"result": ' + b"[" * 99 + b"]" * 99 + b"}", b'{"result": "' + b"x" * 65_534 + b'"}', b'{"result": 18446744073709551615}', b'{"result": null}',
    b'{"result": false, "result": null}', b'{"result": 1, "retry": true, "unknown": []}', b'{"error": "no"}',
]  # fmt: skip


async def test_what_is_no_answer_is_refused_and_leaves_the_link_good(redis: Redis, api: Api) -> None:
    one = await asked(redis, api)
    for status, bodies in NO_ANSWERS:
        for body in bodies:
            reply = await one.answer(data=io.BytesIO(body), headers={"Content-Type": "application/json"})
            assert reply.status == status, (body[:100], reply.text[:300])
            assert len(reply.text) < 2000
    await one.still_good()


async def test_the_first_answer_is_taken_and_any_other_a_conflict(redis: Redis, api: Api) -> None:
    for body in ANSWERS:
        one = await asked(redis, api)
        reply = await one.answer(data=body, headers={"Content-Type": "application/json"})
        assert reply.status == 200, (body[:100], reply.text[:300])
        for again in (body, b'{"result": "another"}'):
            assert problem(await one.answer(data=again, headers={"Content-Type": "application/json"})) == (409, "conflict")


async def test_of_a_key_written_twice_the_last_counts(redis: Redis, api: Api) -> None:
    one = await asked(redis, api)
    assert (await one.answer(data=b'{"error": "x", "error": "y"}')).status == 200
    assert json.loads(await redis.hget(f"hookline:callback:{one.id}", "answer")) == {"error": "y", "retry": False}


@pytest.mark.parametrize("headers", [{"Content-Encoding": "deflate"}, {"Content-Encoding": "gzip"}, {"Content-Type": "text/plain"}])
async def test_a_body_in_another_form_is_refused(redis: Redis, api: Api, headers: dict[str, str]) -> None:
    one = await asked(redis, api)
    packed = zlib.compress(b'{"result": "' + b"x" * (64 << 20) + b'"}')
    assert problem(await one.answer(data=io.BytesIO(packed), headers={"Content-Type": "application/json", **headers})) == (
        415,
        "unsupported-media-type",
    )
    await one.still_good()


async def test_who_has_no_link_is_answered_before_the_body_is_read(api: Api) -> None:
    address = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"POST /api/callbacks/x?signature=y HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n{")
    assert b"403" in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


async def test_a_body_that_drips_is_given_up(redis: Redis, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.api.requests.BODY_SECONDS", 0.2)
    one = await asked(redis, api)
    address = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"POST {one.path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{{".encode())
    assert b"408" in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    await one.still_good()


# --- the moment -------------------------------------------------------------------------------------------------------


async def test_of_many_answers_at_once_one_is_taken(redis: Redis, api: Api) -> None:
    one = await asked(redis, api)
    replies = await asyncio.gather(*(one.answer({"result": n}) for n in range(20)))
    assert sorted(reply.status for reply in replies) == [200] + [409] * 19
    taken = next(n for n, reply in enumerate(replies) if reply.status == 200)
    assert json.loads(await redis.hget(f"hookline:callback:{one.id}", "answer")) == {"result": taken}


async def test_late_and_unneeded_answers_are_gone(redis: Redis, api: Api) -> None:
    late = await asked(redis, api, seconds=-1)
    assert problem(await late.answer({"result": 1})) == (410, "gone")
    forgotten = await asked(redis, api)
    await redis.delete(f"hookline:callback:{forgotten.id}")  # its time to live is over
    assert problem(await forgotten.answer({"result": 1})) == (404, "not-found")
    removed = await asked(redis, api)
    await redis.delete(*[key async for key in redis.scan_iter("bull:document-processing:*")])
    assert problem(await removed.answer({"result": 1})) == (410, "gone")


async def test_no_log_line_has_a_signature(redis: Redis, api: Api) -> None:
    one = await asked(redis, api)
    with capture_logs() as lines:
        for body in ({"neither": 1}, {"result": 1}, {"result": 2}):
            await one.answer(body)
        await one.answer({"result": 1}, path=one.path[:-1])
    assert len([line for line in lines if line["event"] == "request"]) == 4
    assert one.signature[:20] not in str(lines)
