"""Whom config.yaml names hears of endpoints that fail and are disabled, once."""

from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from pipeline.config import Config
from pipeline.jobs.queues import Queues
from pipeline.processors.notifications import SendNotification
from pipeline.publisher import Publisher
from pipeline.store.log import Log

ABOUT = {"endpoint": "ep_1", "delivery": "dlv_1", "eventId": "evt_1", "eventType": "job.completed", "runId": None, "status": 500, "attempts": 3}
SINCE = 1_767_225_600_000
DISABLED = {**ABOUT, "error": "answered 500", "reason": "failing", "failingSince": SINCE}


def publisher(redis: Redis, notify: dict[str, str] | None) -> Publisher:
    config = Config(webhooks={"notify": notify})
    return Publisher(Log(redis, "t:log"), Queues(redis, config), config.webhooks.notify)


async def jobs(redis: Redis) -> list[dict[str, Any]]:
    ids = await redis.lrange("bull:notifications:wait", 0, -1)
    return [orjson.loads(await redis.hget(f"bull:notifications:{job}", "data") or "") for job in ids]


@pytest.mark.parametrize(
    ("type", "data", "says"),
    [
        (
            "endpoint.failing",
            {**ABOUT, "error": "answered 500", "failingSince": SINCE, "disabledAt": SINCE + 86_400_000},
            "No delivery to ep_1 succeeded since 2026-01-01T00:00:00.000Z. If that goes on, it is disabled at 2026-01-02T00:00:00.000Z."
            " The last attempt, of delivery dlv_1: answered 500.",
        ),
        ("endpoint.disabled", DISABLED, "no delivery to it succeeded since 2026-01-01T00:00:00.000Z."),
        ("endpoint.disabled", {**DISABLED, "reason": "gone", "failingSince": None, "status": 410}, "its receiver answered 410 Gone."),
        ("endpoint.disabled", {**DISABLED, "reason": "asked", "error": None}, "its receiver answered with `webhook-delivery: disable`."),
    ],
)
async def test_an_operator_is_told_once_however_often_it_is_published(redis: Redis, type: str, data: dict[str, Any], says: str) -> None:
    publish = publisher(redis, {"type": "email", "to": "ops@example.com"})
    for _ in range(2):
        await publish(type, data, identity=["ep_1", "dlv_1", "1"])
    (job,) = await jobs(redis)
    told = SendNotification.model_validate(job)
    assert (told.type, told.to) == ("email", "ops@example.com")
    assert "ep_1" in told.subject
    assert says in told.message
    assert [event.type for event in await Log(redis, "t:log").after("", limit=10)] == [type, type], "whose id says that they are one"


async def test_nobody_is_told_of_anything_else_or_where_nobody_is_named(redis: Redis) -> None:
    await publisher(redis, {"type": "slack"})("delivery.exhausted", ABOUT, identity=[1])
    await publisher(redis, None)("endpoint.disabled", DISABLED, identity=[1])
    assert await jobs(redis) == []
