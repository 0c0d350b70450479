"""What the original system's neighbours and operators rely on, with the shipped config.yaml: keys, ids, counts, the Go client's call."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from pipeline.client import Client
from pipeline.store import connection
from pipeline.store.embedded import EmbeddedStore
from tests.support.service import ROOT, Service, token

CALL = {"documentId": "demo-doc-123", "userId": "user-1", "filename": "sample.pdf", "mimeType": "application/pdf", "fileSize": 1024000}
SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.mark.timeout(60)
async def test_the_redis_cli_facts_hold_and_a_role_runs_alone(tmp_path: Path) -> None:
    async with Service(tmp_path, SHIPPED, role="api") as service, Client(service.url, token(role="service")) as client:
        posted = [await client.add_job("document-processing", CALL | {"documentId": f"doc-{n}"}) for n in range(3)]
        assert [job["jobId"] for job in posted] == ["1", "2", "3"]
        assert all(job["state"] == "waiting" and job["runId"] for job in posted)
        notified = await client.add_job("notifications", {"userId": "user-1", "type": "email", "subject": "s", "message": "m"})
        assert (notified["jobId"], notified["name"], notified.get("runId")) == ("1", "send-notification", None)
        store = EmbeddedStore(tmp_path / "data")
        redis = connection.connect(store.attach())
        try:
            assert await redis.type("bull:document-processing:wait") == "list"
            assert await redis.lrange("bull:document-processing:wait", 0, -1) == ["3", "2", "1"]
            assert await redis.llen("bull:document-processing:wait") == 3
            assert await redis.type("bull:document-processing:1") == "hash"
            job = await redis.hgetall("bull:document-processing:1")
            assert (job["name"], json.loads(job["data"])["documentId"]) == ("process-document", "doc-0")
            opts = json.loads(job["opts"])
            assert (opts["attempts"], opts["backoff"]) == (3, {"type": "exponential", "delay": 2000})
            assert (opts["removeOnComplete"], opts["removeOnFail"]) == ({"count": 100}, {"count": 50})
            assert await redis.zcard("bull:document-processing:completed") == 0
        finally:
            await redis.aclose()
            store.detach()
        stats = await client.stats("document-processing")
        assert stats == {
            "queueName": "document-processing", "waiting": 3, "active": 0, "completed": 0, "failed": 0, "delayed": 0, "prioritized": 0, "paused": 0,
        }  # fmt: skip


@pytest.mark.timeout(60)
async def test_the_unchanged_clients_call_without_a_token_where_the_network_is_trusted(tmp_path: Path) -> None:
    async with Service(tmp_path, SHIPPED | {"auth": {"anonymous_jobs": True}}, role="api") as service, aiohttp.ClientSession() as session:
        async with session.post(f"{service.url}/api/jobs/document-processing", json=CALL) as response:
            assert response.status == 201
            job = await response.json()
        async with session.get(f"{service.url}/api/jobs/status/document-processing/{job['jobId']}") as response:
            status = await response.json()
        assert (status["state"], status["data"]["documentId"]) == ("waiting", "demo-doc-123")
        async with session.get(f"{service.url}/api/jobs/stats/document-processing") as response:
            assert (await response.json())["waiting"] == 1
        async with session.get(f"{service.url}/api/jobs/stats") as response:
            assert response.status == 401
