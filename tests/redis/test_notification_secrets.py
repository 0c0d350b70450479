"""That nothing of a channel's URL is left anywhere when a notification fails: in the store, in the events, or in the log."""

import asyncio
import io
import logging
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from pipeline.config import Config
from pipeline.jobs.registry import resolve
from pipeline.jobs.runner import Runner
from pipeline.jobs.worker import Worker
from tests.support.bench import LOG, Bench
from tests.support.events import count, events_until
from tests.support.receiver import Answer, raw_server, receiving
from tests.support.valkey import Valkey

PATH = "pipeline.processors.notifications:NotificationProcessor"
SECRETS = ("hunter2pass", "t0kenT0ken", "headerK3y", "aG9va2xpbmU6aHVudGVyMnBhc3M=")
"""The last is what Basic authentication makes of the login."""
# Apprise imports it where Python still has it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@pytest.mark.parametrize(
    "url",
    [
        "json://hookline:hunter2pass@127.0.0.1:{port}/t0kenT0ken?+X-Key=headerK3y",
        "json://hookline:hunter2pass@127.0.0.1:1/t0kenT0ken?+X-Key=headerK3y",
        "mailto://hookline:hunter2pass@127.0.0.1:1/?to=t0kenT0ken@example.com&mode=insecure",
        "t0kenT0ken://hunter2pass@headerK3y",
        "slack://t0kenT0ken/hunter2pass",
    ],
    ids=["refused with 401", "nobody listens", "no SMTP server", "no such service", "not a token of that service"],
)
async def test_no_secret_is_left_anywhere(valkey: Valkey, redis: Redis, url: str) -> None:
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    try:
        async with receiving(Answer(status=401, body=" ".join(SECRETS).encode())) as provider:
            settings = Config.model_validate({
                "notifications": {"push": url.replace("{port}", str(provider.port))},
                "queues": {"notifications": {"attempts": 2, "backoff": {"type": "fixed", "delay": "10ms"}}},
            })  # fmt: skip
            with capture_logs() as logged:
                events, status = await failed(valkey, settings)
    finally:
        logging.getLogger().removeHandler(handler)
    assert events[-1].data["error"] == status.failed_reason
    everything = "\n".join([repr(events), repr(status), repr(logged), said.getvalue(), await written(redis)])
    assert "notification" in status.failed_reason
    assert not [secret for secret in SECRETS if secret.lower() in everything.lower()]


async def test_nor_where_an_answer_is_not_http(valkey: Valkey, redis: Redis) -> None:
    """urllib3 warns of headers that it cannot read, with the URL that gave them."""

    async def unreadable(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nno colon here\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    try:
        async with raw_server(unreadable) as url:
            settings = Config.model_validate({"notifications": {"push": url.replace("http://", "json://hookline:hunter2pass@") + "/t0kenT0ken"}})
            events, status = await failed(valkey, settings)
    finally:
        logging.getLogger().removeHandler(handler)
    assert "error=400" in status.failed_reason
    everything = "\n".join([repr(events), repr(status), said.getvalue(), await written(redis)])
    assert not [secret for secret in SECRETS if secret.lower() in everything.lower()]


async def failed(valkey: Valkey, settings: Config) -> tuple[list[Any], Any]:
    """A notification job run to its failure by a real worker: its events and its status."""
    bench = Bench(valkey.socket_url, settings)
    runner = Runner({"send-notification": resolve(PATH, settings)}, {}, concurrency=1)
    keys = bench.queues.keys("notifications")
    worker = Worker(bench.redis, keys, settings.queues["notifications"], runner, log_key=LOG, name="w", lock_ms=10_000)
    data = {"userId": "u", "type": "push", "subject": "s", "message": "m"}
    job_id = (await bench.queues.add("notifications", "send-notification", data)).job_id
    task = asyncio.create_task(worker.run())
    try:
        events = await events_until(bench.log, count("job.failed", 1))
        return events, await bench.queues.job("notifications", job_id)
    finally:
        await worker.stop(5)
        await task
        await bench.blocking.aclose()
        await bench.redis.aclose()


async def written(redis: Redis) -> str:
    """All that the store holds, as text."""
    parts: list[Any] = []
    for key in await redis.keys("*"):
        kind = await redis.type(key)
        parts.append(key)
        if kind == "hash":
            parts.append(await redis.hgetall(key))
        elif kind == "stream":
            parts.append(await redis.xrange(key))
        elif kind == "list":
            parts.append(await redis.lrange(key, 0, -1))
        elif kind == "zset":
            parts.append(await redis.zrange(key, 0, -1))
        elif kind == "string":
            parts.append(await redis.get(key))
    assert any(isinstance(part, dict) and "failedReason" in part for part in parts)
    return repr(parts)
