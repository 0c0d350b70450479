"""The receiver for tests: verifies what arrives, fails as it is told, says what was received."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from webhooks.errors import MissingHeader, NoMatchingSignature
from webhooks.guard import Guard
from webhooks.scripted import ScriptedReceiver
from webhooks.sender import Outcome, Request, Sender
from webhooks.service import now_ms
from webhooks.signing import Key, generate_pair, generate_secret, key_of, signing_key

BODY = b'{"type":"a.b","data":{}}'


@pytest.fixture
def receiver() -> Iterator[ScriptedReceiver]:
    with ScriptedReceiver() as receiver:
        yield receiver


async def send(receiver: ScriptedReceiver, key: Key | None = None, *, timeout: float = 5.0) -> Outcome:
    """As Hookline does; signed with the receiver's secret unless another key is given."""
    keys = [key or key_of(str(receiver.secret))]
    async with Sender(Guard(["127.0.0.0/8"])) as sender:
        return await sender.send(Request(url=receiver.url, event="evt_1", body=BODY, keys=keys, headers={}, timeout=timeout, trace="t"), now_ms())


async def test_it_fails_in_order_as_it_was_told_and_then_succeeds(receiver: ScriptedReceiver) -> None:
    receiver.respond(503, retry_after=7, body="later").times(2).redirect("http://127.0.0.1:1/").respond(410).drop()
    outcomes = [await send(receiver) for _ in range(6)]
    assert [(one.status, one.retry_after, one.response) for one in outcomes[:2]] == [(503, "7", "later")] * 2
    assert [one.status for one in outcomes] == [503, 503, 302, 410, None, 204]
    assert outcomes[4].error == "the receiver closed the connection without an answer"
    received = await receiver.wait(6)
    assert [one.answered for one in received] == [503, 503, 302, 410, None, 204]
    assert {(one.id, one.body, one.event["type"]) for one in received} == {("evt_1", BODY, "a.b")}
    assert received[0].headers["user-agent"].startswith("Hookline")


async def test_it_hangs_as_long_as_it_was_told_and_no_longer_than_the_test() -> None:
    with ScriptedReceiver() as receiver:
        receiver.hang(0.01).hang()
        assert (await send(receiver)).status == 204
        assert (await send(receiver, timeout=0.2)).error == "no answer within 0.2 s"
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "hookline receiver"]


async def test_what_is_not_signed_with_its_secret_is_rejected_and_uses_up_no_script(receiver: ScriptedReceiver) -> None:
    receiver.respond(500)
    assert (await send(receiver, key_of(generate_secret()))).status == 401
    with pytest.raises(TimeoutError, match="0 of 1 webhooks came within 0 s, and 1 that were not valid: no signature"):
        await receiver.wait(1, seconds=0)
    assert (await send(receiver)).status == 500
    (rejected,) = receiver.rejected
    assert isinstance(rejected.error, NoMatchingSignature)
    assert rejected.body == BODY
    reader, writer = await asyncio.open_connection("127.0.0.1", int(receiver.url.split(":")[2].split("/")[0]))
    writer.write(b"POST / HTTP/1.0\r\ncontent-length: 0\r\n\r\n")
    assert b"401" in await reader.readline()
    writer.close()
    assert isinstance(receiver.rejected[-1].error, MissingHeader)


async def test_the_secret_may_be_another_also_a_public_key(receiver: ScriptedReceiver) -> None:
    secret, (private, public) = generate_secret(), generate_pair()
    receiver.secret = [secret, public]
    for key in (secret, private):
        assert (await send(receiver, signing_key(key))).status == 204
    assert (await send(receiver, signing_key(generate_pair()[0]))).status == 401


def test_a_test_without_asyncio_can_wait(receiver: ScriptedReceiver) -> None:
    sending = threading.Thread(target=lambda: asyncio.run(send(receiver)))
    sending.start()
    assert receiver.wait_blocking(1)[0].id == "evt_1"
    sending.join()


def test_times_needs_something_to_repeat(receiver: ScriptedReceiver) -> None:
    with pytest.raises(ValueError, match=r"for example respond\(503\)"):
        receiver.times(2)
    with pytest.raises(ValueError, match="times"):
        receiver.respond(500).times(0)
