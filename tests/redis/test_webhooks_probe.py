"""A test event to one endpoint: sent as any other, answered with what came of it, recorded nowhere."""

import json
import time

import pytest
from redis.asyncio import Redis

from tests.support.events import check_told
from tests.support.hooks import Hooks
from tests.support.receiver import Answer, receiving
from webhooks import NotFound, Webhooks
from webhooks.receiver import verify
from webhooks.service import now_ms


async def test_it_is_sent_signed_to_that_endpoint_alone_and_leaves_no_record(redis: Redis) -> None:
    hooks = Hooks(redis, now_ms)  # type: ignore[arg-type]
    async with receiving(Answer(body=b"thank you")) as receiver, receiving() as other:
        await hooks.endpoint(other.url)
        endpoint, secret = await hooks.webhooks.endpoints.create(
            {"url": receiver.url, "types": ["job.failed"], "headers": {"x-own": "1"}, "payload": "thin"}
        )
        before = set(await redis.keys())
        probed = (await hooks.webhooks.probe.send(endpoint.id)).document()
        received = await receiver.next()
    assert json.loads(received.body)["data"] == verify(secret, received.headers, received.body, time.time())["data"] == {"endpoint": endpoint.id}
    check_told("webhook.test", received.event["data"])
    assert (received.event["type"], received.id, received.headers["x-own"]) == ("webhook.test", probed["eventId"], "1")
    shown = {name: probed[name] for name in ("type", "delivered", "status", "error", "response", "address")}
    assert shown == {
        "type": "webhook.test", "delivered": True, "status": 200, "error": None, "response": "thank you", "address": "127.0.0.1",
    }  # fmt: skip
    assert "number" not in probed
    assert set(await redis.keys()) == before
    assert other.received == []


@pytest.mark.parametrize("status", ["paused", "disabled"])
async def test_a_paused_and_a_disabled_one_can_be_tried_and_stay_so(redis: Redis, status: str) -> None:
    hooks = Hooks(redis, now_ms)  # type: ignore[arg-type]
    async with receiving(Answer(status=410)) as receiver:
        endpoint = await hooks.endpoint(receiver.url)
        await redis.hset(hooks.keys.endpoint(endpoint), "status", status)
        probed = await hooks.webhooks.probe.send(endpoint)
    assert (probed.delivered, probed.attempt.status) == (False, 410)
    assert (await hooks.webhooks.endpoints.get(endpoint)).status == status


async def test_what_keeps_it_from_being_sent_is_said(redis: Redis) -> None:
    hooks = Hooks(redis, now_ms)  # type: ignore[arg-type]
    endpoint = await hooks.endpoint("http://127.0.0.1:9/")
    probed = await hooks.webhooks.probe.send(endpoint)
    assert (probed.delivered, probed.attempt.status) == (False, None)
    assert probed.attempt.error
    strict = Webhooks(redis=redis, prefix=hooks.keys.prefix, encryption_keys=[b"k" * 32])
    assert "127.0.0.1" in ((await strict.probe.send(endpoint)).attempt.error or "")
    other = Webhooks(redis=redis, prefix=hooks.keys.prefix, encryption_keys=[b"x" * 32], allow_networks=["127.0.0.0/8"])
    assert "key" in ((await other.probe.send(endpoint)).attempt.error or "")
    with pytest.raises(NotFound):
        await hooks.webhooks.probe.send("ep_nobody")
