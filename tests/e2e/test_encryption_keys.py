"""The encryption key of a running service is replaced: ready says when the former one can go, and without it everything still opens."""

import asyncio
import base64
from pathlib import Path

from pipeline.client import Client
from tests.support.chains import no_libraries
from tests.support.service import Service, token

OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
CONFIG = {"queues": no_libraries()}
ENDPOINT = {"url": "http://127.0.0.1:9/", "headers": {"x-key": "pass-word"}, "asymmetric": True}


def with_keys(folder: Path, keys: str) -> Service:
    return Service(folder, CONFIG, environment={"HOOKLINE_ENCRYPTION_KEYS": keys})


async def warnings(client: Client) -> list[str]:
    return list((await client.ready())["parts"]["secrets"]["warnings"])


async def create(client: Client) -> dict[str, str]:
    """An endpoint, with its secret: the same key shows it again."""
    return dict(await client.request("POST", "/api/webhooks/endpoints", body=ENDPOINT, idempotency_key="once"))


async def test_the_former_key_can_be_dropped_when_ready_says_so(tmp_path: Path) -> None:
    async with with_keys(tmp_path, OLD) as service, Client(service.url, token()) as client:
        made = await create(client)
        assert await warnings(client) == []
    async with with_keys(tmp_path, f"{NEW},{OLD}") as service, Client(service.url, token()) as client, asyncio.timeout(30):
        while found := await warnings(client):
            assert "keep it until they are encrypted again" in found[0]
    async with with_keys(tmp_path, NEW) as service, Client(service.url, token()) as client:
        assert await warnings(client) == []
        assert await create(client) == made, "its secret could be opened"
    async with with_keys(tmp_path, OLD) as service, Client(service.url, token()) as client:
        (found,) = await warnings(client)
        assert "which is not configured: nothing can be sent to them" in found
        assert (await client.ready())["ok"]
