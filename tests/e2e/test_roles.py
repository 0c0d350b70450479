"""One service in parts: each role alone does its part and no other, and what the environment says holds for all of them."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.client import Client
from pipeline.store import connection
from pipeline.store.embedded import EmbeddedStore
from tests.support.chains import STEPS, chain, deliver_to
from tests.support.runs import ended, submit
from tests.support.service import Service, token
from tests.support.subscriber import Subscriber

ENVIRONMENT = {"BULLMQ_PREFIX": "shop", "BULLMQ_DEFAULT_JOB_OPTIONS": '{"removeOnComplete": 2}'}


@pytest.mark.timeout(120)
async def test_four_roles_make_one_service(tmp_path: Path) -> None:
    accepted: dict[str, str] = {}
    async with Subscriber() as subscriber, contextlib.AsyncExitStack() as stack:
        config = {**chain(), "webhooks": deliver_to(subscriber.endpoint())}

        def part(role: str) -> Service:
            return Service(tmp_path, config, role=role, environment=ENVIRONMENT)

        api = await stack.enter_async_context(part("api"))
        client = await stack.enter_async_context(Client(api.url, token()))
        await submit(api, range(5), accepted, ms=1)
        assert len(accepted) == 5
        assert await queues(client) == {"a": 5, "b": 0, "c": 0}, "the API adds jobs and does none"

        await stack.enter_async_context(part("worker"))
        jobs_done = (await until(client, "job.completed", 5))["data"]
        assert jobs_done["step"] == "one"
        assert await queues(client) == {"a": 0, "b": 0, "c": 0}, "no engine, no next step"

        await stack.enter_async_context(part("engine"))
        assert await ended(client, 5) == set(accepted.values())
        assert subscriber.events == {}, "nobody delivers"
        due = {event["id"] for run_id in accepted.values() for event in [found async for found in client.timeline(run_id)]}
        assert len(due) == 5 * (2 + 2 * len(STEPS))

        await stack.enter_async_context(part("webhooks"))
        await subscriber.until(due)
        assert "job.progress" not in {event["type"] for event in subscriber.events.values()}, "nobody asked for it"
        assert (await client.ready())["ok"]
        await environment_holds(tmp_path)
    assert subscriber.refused == 0


async def queues(client: Client) -> dict[str, int]:
    counts = (await client.stats())["queues"]
    return {name: counts[name]["waiting"] for name in ("a", "b", "c")}


async def until(client: Client, type: str, number: int) -> dict[str, Any]:
    """The last of so many events of a type, once it happened."""
    seen = 0
    async for event in client.follow(after="0-0", types=(type,)):
        seen += 1
        if seen == number:
            return event
    raise AssertionError("the event stream ended")


async def environment_holds(folder: Path) -> None:
    store = EmbeddedStore(folder / "data")
    redis = connection.connect(store.attach())
    try:
        assert [key async for key in redis.scan_iter("bull:*")] == []
        for queue in ("a", "b", "c"):
            assert await redis.zcard(f"shop:{queue}:completed") == 2
    finally:
        await redis.aclose()
        store.detach()


@pytest.mark.timeout(120)
async def test_an_endpoint_taken_out_of_the_file_is_paused_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    accepted: dict[str, str] = {}
    async with Subscriber() as subscriber:
        declared = deliver_to(subscriber.endpoint("workflow.completed", id="analysis"))
        async with Service(tmp_path, {**chain(), "webhooks": declared}) as service, Client(service.url, token()) as client:
            (shown,) = [endpoint async for endpoint in client.endpoints()]
            assert (shown["id"], shown["source"], shown["status"]) == ("analysis", "config", "enabled")
        async with Service(tmp_path, chain()) as service, Client(service.url, token()) as client:
            (shown,) = [endpoint async for endpoint in client.endpoints()]
            assert (shown["status"], shown["reason"]) == ("paused", "it was removed from config.yaml")
            await submit(service, range(1), accepted, ms=1)
            await ended(client, 1)
        assert subscriber.events == {}
        async with Service(tmp_path, {**chain(), "webhooks": declared}) as service, Client(service.url, token()) as client:
            event = await until(client, "workflow.completed", 1)
            await subscriber.until({event["id"]})
            (shown,) = [endpoint async for endpoint in client.endpoints()]
            assert (shown["status"], shown["reason"]) == ("enabled", None)
