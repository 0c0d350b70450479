"""What `retention:` in config.yaml says is what the service keeps: of the log, of runs and of deliveries."""

import asyncio
from pathlib import Path

import pytest

from pipeline.client import Client, RequestFailed
from tests.support.chains import chain, deliver_to
from tests.support.runs import ended, submit
from tests.support.service import Service, token
from tests.support.subscriber import Subscriber


async def gone(client: Client, run_id: str) -> bool:
    """Whether nothing is left of a run: itself, its events, its deliveries."""
    try:
        await client.run(run_id)
        return False
    except RequestFailed as failed:
        if failed.status != 404:
            raise
    deliveries = [delivery async for delivery in client.deliveries()]
    return not deliveries and not (await client.events())["items"]


@pytest.mark.timeout(120)
async def test_what_is_past_its_time_is_forgotten(tmp_path: Path) -> None:
    accepted: dict[str, str] = {}
    async with Subscriber() as subscriber:
        config = {**chain(), "webhooks": deliver_to(subscriber.endpoint("workflow.*"))}
        async with Service(tmp_path, config) as service, Client(service.url, token()) as client:
            await submit(service, range(1), accepted, ms=1)
            (run_id,) = await ended(client, 1)
            await subscriber.until({event["id"] async for event in client.timeline(run_id) if event["type"].startswith("workflow.")})
            assert not await gone(client, run_id)
        short = {"retention": {"events": "1ms", "runs": "1ms", "deliveries": "1ms"}}
        async with Service(tmp_path, config | short) as service, Client(service.url, token()) as client, asyncio.timeout(30):
            while not await gone(client, run_id):  # noqa: ASYNC110 -- what is forgotten tells nobody
                await asyncio.sleep(0.05)
            assert [run async for run in client.runs()] == []
            assert len([endpoint async for endpoint in client.endpoints()]) == 1
