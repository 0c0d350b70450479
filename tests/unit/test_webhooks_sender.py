"""The sender against real receivers, decent and hostile."""

import asyncio
import gzip
import socket
import time
import tracemalloc
import zlib

import orjson
import pytest
from aiohttp import web

from tests.support.receiver import Answer, raw_server, receiving
from webhooks import dialer
from webhooks.dialer import Dialer
from webhooks.guard import Guard
from webhooks.receiver import verify
from webhooks.resolver import AddrInfo
from webhooks.sender import KEPT, MAX_ANSWER, Outcome, Request, Sender, traceparent
from webhooks.signing import generate_secret, key_of
from webhooks.target import Target

LOOPBACK = Guard(["127.0.0.0/8"])
NOW = 1_700_000_000_123
SECRET = generate_secret()


def request(url: str, *, timeout: float = 5.0, headers: dict[str, str] | None = None, body: bytes = b'{"type":"a","data":{}}') -> Request:
    return Request(url=url, event="evt_1", body=body, keys=[key_of(SECRET)], headers=headers or {}, timeout=timeout, trace="run_1")


async def send(url: str, *, timeout: float = 5.0) -> Outcome:
    async with Sender(LOOPBACK) as sender:
        return await sender.send(request(url, timeout=timeout), NOW)


async def test_a_delivery_as_subscribers_see_it() -> None:
    async with receiving(Answer(body=b"thanks")) as receiver, Sender(LOOPBACK) as sender:
        outcome = await sender.send(request(receiver.url, headers={"authorization": "Bearer x"}), NOW)
        received = await receiver.next()
    assert (outcome.status, outcome.error, outcome.response, outcome.address) == (200, None, "thanks", "127.0.0.1")
    assert outcome.duration >= 0
    assert received.method == "POST"
    assert verify(SECRET, received.headers, received.body, NOW / 1000) == {"type": "a", "data": {}}
    assert received.headers["webhook-id"] == "evt_1"
    assert received.headers["webhook-timestamp"] == "1700000000"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["authorization"] == "Bearer x"
    assert received.headers["user-agent"].startswith("Hookline")
    assert received.headers["traceparent"].startswith(traceparent("run_1", 0)[:36])
    assert "cookie" not in received.headers


async def test_cookies_are_not_kept_and_connections_are() -> None:
    # By name: aiohttp's own jar takes no cookies from bare addresses.
    async with receiving(Answer(headers={"set-cookie": "a=1"})) as receiver, Sender(Guard(["127.0.0.0/8", "::1/128"])) as sender:
        for _ in range(2):
            outcome = await sender.send(request(receiver.url.replace("127.0.0.1", "localhost")), NOW)
            assert outcome.address == "127.0.0.1"
    first, second = receiver.received
    assert "cookie" not in second.headers
    assert first.headers["traceparent"] != second.headers["traceparent"]


@pytest.mark.parametrize("value", ["a\r\nx-injected: 1", "a\nx-injected: 1", "a\rb", "a\0b"])
async def test_a_header_does_not_become_two(value: str) -> None:
    async with receiving() as receiver, Sender(LOOPBACK) as sender:
        outcome = await sender.send(request(receiver.url, headers={"x-own": value}), NOW)
    assert (outcome.status, outcome.error) == (None, "a header of this request has a line break in it")
    assert receiver.received == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_failures_and_not_followed(status: int) -> None:
    async with receiving(Answer(status=status, headers={"location": "/elsewhere"})) as receiver:
        outcome = await send(receiver.url)
    assert outcome.status == status
    assert "redirects are not followed" in str(outcome.error)
    assert len(receiver.received) == 1


async def test_a_redirect_to_metadata_is_not_followed() -> None:
    async with receiving(Answer(status=302, headers={"location": "http://169.254.169.254/latest/meta-data/"})) as receiver:
        outcome = await send(receiver.url)
    assert (outcome.status, outcome.address) == (302, "127.0.0.1")


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
async def test_errors_are_told(status: int) -> None:
    async with receiving(Answer(status=status, headers={"retry-after": "7"}, body=b"no")) as receiver:
        outcome = await send(receiver.url)
    assert (outcome.status, outcome.error, outcome.response, outcome.retry_after) == (status, f"answered {status}", "no", "7")


async def test_the_first_4_kib_are_kept() -> None:
    async with receiving(Answer(body=b"\xff\0" + b"x" * 20_000)) as receiver:
        outcome = await send(receiver.url)
    assert outcome.response
    assert len(outcome.response) == KEPT
    assert outcome.response.startswith("\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}x")


async def test_an_endless_body_is_cut_off_and_counts_by_its_status() -> None:
    left = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Then it stalls: how much of an endless flow is sent before it is cut off is the kernel's to say, whose buffers differ.
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_ANSWER + 1))
        try:
            await reader.read()
        finally:
            left.set()

    async with raw_server(endless) as url:
        outcome = await send(url)
        await asyncio.wait_for(left.wait(), 5)
    assert (outcome.status, outcome.error) == (200, None)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_is_not_unpacked(encoding: str) -> None:
    bomb = gzip.compress(bytes(200_000_000), 9) if encoding == "gzip" else zlib.compress(bytes(200_000_000), 9)
    async with receiving(Answer(headers={"content-encoding": encoding}, body=bomb)) as receiver:
        tracemalloc.start()
        try:
            outcome = await send(receiver.url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert outcome.status == 200
    assert peak < 5_000_000


async def test_compressed_answers_are_read() -> None:
    async with receiving(Answer(headers={"content-encoding": "gzip"}, body=gzip.compress(b"thanks"))) as receiver:
        assert (await send(receiver.url)).response == "thanks"
        receiver.answer(Answer(headers={"content-encoding": "gzip"}, body=b"not gzip"))
        assert (await send(receiver.url)).response == "not gzip"


async def test_who_does_not_answer_is_left_in_time() -> None:
    async with receiving() as receiver:
        receiver.answer(receiver.hang)
        outcome = await send(receiver.url, timeout=0.5)
    assert (outcome.status, outcome.error) == (None, "no answer within 0.5 s")
    assert outcome.address == "127.0.0.1"


async def test_a_dripping_answer_is_left_in_time_and_is_no_success() -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.01)

    async with receiving(drip) as receiver:
        started = time.monotonic()
        outcome = await send(receiver.url, timeout=1.0)
    assert time.monotonic() - started < 10, "by itself it would not end"
    assert outcome.status == 200
    assert outcome.verdict_status is None
    assert "did not end" in str(outcome.error)
    assert set(outcome.response or "") == {"x"}


async def _raw(answer: bytes, *, timeout: float = 5.0, hold: bool = False) -> Outcome:
    async def write(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        if hold:
            await reader.read()

    async with raw_server(write) as url:
        return await send(url, timeout=timeout)


async def test_hostile_answers_are_outcomes() -> None:
    assert "without an answer" in str((await _raw(b"")).error)
    assert "not HTTP" in str((await _raw(b"\x16\x03\x01\x00nonsense\r\n\r\n")).error)
    assert "not HTTP" in str((await _raw(b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(5000)) + b"\r\n", hold=True)).error)
    assert "not HTTP" in str((await _raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", hold=True)).error)
    assert "not HTTP" in str((await _raw(b"HTTP/1.1 200 " + b"y" * 20_000 + b"\r\n\r\n", hold=True)).error)
    no_text = await _raw(b"HTTP/1.1 \xff\xfe \xff\r\n\r\n", hold=True)
    assert "not HTTP" in str(no_text.error)
    assert orjson.dumps([no_text.error, no_text.response])
    broken = await _raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort")
    assert broken.verdict_status is None
    assert "broke off" in str(broken.error)
    assert "no answer" in str((await _raw(b"HTTP/1.1 200 OK\r\nx: ", timeout=0.1, hold=True)).error)
    endless_line = await _raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 5_000_000, hold=True)
    assert "not HTTP" in str(endless_line.error)


async def test_nobody_there() -> None:
    async with receiving() as receiver:
        url = receiver.url
    outcome = await send(url)
    assert outcome.status is None
    assert "cannot connect to 127.0.0.1:" in str(outcome.error)


async def test_tls_that_is_none() -> None:
    async with receiving() as receiver:
        outcome = await send(receiver.url.replace("http:", "https:") + "?token=s3cret")
    assert str(outcome.error).startswith("TLS failed with 127.0.0.1")
    assert "s3cret" not in str(outcome)


class SilentNames:
    """A resolver that never answers."""

    async def resolve(self, host: str, port: int) -> list[AddrInfo]:
        await asyncio.Event().wait()
        raise AssertionError

    def close(self) -> None: ...


@pytest.mark.parametrize(("timeout", "connect", "said"), [(5.0, 0.05, "no connection within 0.05 s"), (0.05, 5.0, "no answer within 0.05 s")])
async def test_connecting_has_a_time_of_its_own_within_the_attempts(
    monkeypatch: pytest.MonkeyPatch, timeout: float, connect: float, said: str
) -> None:
    monkeypatch.setattr(dialer, "CONNECT_SECONDS", connect)
    async with Sender(LOOPBACK, dialer=Dialer(LOOPBACK, resolver=SilentNames())) as sender:
        outcome = await sender.send(request("http://silent.test/", timeout=timeout), NOW)
    assert outcome.error == said
    assert outcome.phases
    assert outcome.phases.dns
    assert outcome.phases.connect is None


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert (await send("http://nobody.invalid/?token=s3cret")).error == "nobody.invalid does not resolve"


def test_what_may_be_a_password_is_in_no_repr() -> None:
    asked = request("http://127.0.0.1:9/hooks?key=in-the-query", headers={"authorization": "Bearer in-a-header"})
    shown = repr(asked) + repr(Target.of(LOOPBACK.parse_url(asked.url)))
    assert "evt_1" in shown
    for secret in ("in-the-query", "in-a-header", SECRET.removeprefix("whsec_"), repr(key_of(SECRET))):
        assert secret not in shown
