"""Every command of docs/monitoring.md, run against a real service that is in the state which the page tells of."""

import asyncio
import base64
import os
import shutil
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis.asyncio import Redis

from pipeline.client import Client
from tests.support import redis_cli
from tests.support.compose import FILE
from tests.support.page import Shell, Step, fits, sections, unfollowed
from tests.support.receiver import Answer, Receiver, receiving
from tests.support.runs import ended
from tests.support.service import JWT_SECRET, ROOT, Service, token
from tests.support.valkey import Valkey

PAGE = ROOT / "docs" / "monitoring.md"
ORDER = ("", "Queues", "Scaling", "Health", "Finished and failed jobs", "Logs", "Why did X not get Y?", "At 3 a.m.")
"""Jobs wait until the workers of *Scaling* are there; the other sections look at what became of them."""
NOTES = (ROOT / "examples" / "documents" / "meeting-notes.txt").read_bytes()
SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())


@dataclass(kw_only=True)
class Reader:
    """Somebody who follows the page, and the services which that takes."""

    folder: Path
    config: dict[str, Any]
    shell: Shell
    stack: AsyncExitStack
    receiver: Receiver
    services: list[Service] = field(default_factory=list)

    async def start(self, *, workers: int = 1, role: str = "all") -> Service:
        service = Service(self.folder / f"service-{len(self.services)}", self.config, workers=workers, role=role)
        self.services.append(service)
        await self.stack.enter_async_context(service)
        return service

    async def follow(self, step: Step) -> None:
        match step.words:
            case ["docker-compose", "up", "-d", "--scale", scale]:
                await self.scale(*scale.split("="))
            case ["hookline", "serve", *options]:
                given = dict(zip(options[::2], options[1::2], strict=True))
                service = await self.start(workers=int(given.pop("--workers", "1")), role=given.pop("--role", "all"))
                assert not given
                # Commands that stay: that they come up beside the others and leave in order is what there is to see.
                assert await service.stop() == 0, service.log
            case ["export", address] if address.startswith("HOOKLINE_URL="):
                self.shell.export("HOOKLINE_URL", self.services[0].url)
            case _:
                code, said = await self.shell.run(step.command)
                assert fits(step.shown, said), f"$ {step.command}\n{said}\nThe page shows:\n" + "\n".join(step.shown)
                assert code == 0, f"$ {step.command}\n{said}"

    async def scale(self, name: str, count: str) -> None:
        """What Compose would do with this service: so many of it over the one store."""
        declared = yaml.safe_load(FILE.read_text())["services"][name]
        assert not declared.keys() & {"ports", "container_name"}, "it could not be scaled"
        replicas = await asyncio.gather(*(self.start() for _ in range(int(count))))
        # The proxy's part: the address is that of any of them.
        self.shell.export("HOOKLINE_URL", replicas[-1].url)

    def log(self) -> str:
        return "".join(service.log for service in self.services)


def commands(folder: Path, python: str = sys.executable) -> Path:
    """A folder of `redis-cli` and `docker-compose` as the page needs them."""
    folder.mkdir()
    redis = f'exec {python} {ROOT}/tests/support/redis_cli.py "$@"'
    # `logs -f` would never end; here it ends with what there is.
    compose = (
        'case "$1 $2" in\n'
        '"logs -f") shift 2 ;; "logs "*) shift ;; *) echo "not played here: $*" >&2; exit 2 ;;\nesac\n'
        '[ "$1" = auth-service ] || exit 2\nsed "s/^/auth-service-1  | /" "$SERVICES"/service-*/service.log'
    )
    for name, script in (("redis-cli", redis), ("docker-compose", compose)):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


async def post(client: Client, folder: Path, number: int, mime_type: str) -> None:
    place = folder / "storage" / "documents" / f"doc-{number}"
    place.mkdir(parents=True)
    (place / "notes.txt").write_bytes(NOTES)
    body = {"documentId": f"doc-{number}", "userId": "user-1", "filename": "notes.txt", "mimeType": mime_type, "fileSize": len(NOTES)}
    await client.add_job("document-processing", body)


async def exhausted(client: Client, runs: set[str]) -> None:
    """Until every delivery of these runs' events has had its one attempt, in vain."""
    due = {event["id"] for run in runs for event in [found async for found in client.timeline(run)] if event["type"].startswith("workflow.")}
    async with asyncio.timeout(30):
        async for event in client.follow(after="0-0", types=("delivery.exhausted",)):
            due.discard(event["data"]["eventId"])
            if not due:
                return


async def sent_again(receiver: Receiver, event: str) -> None:
    """Until the event has arrived a second time, under the same id."""
    times = 0
    while times < 2:
        times += (await receiver.next()).id == event


def test_every_section_with_commands_is_followed() -> None:
    assert sorted(sections(PAGE)) == sorted(ORDER)


def test_commands_outside_of_the_blocks_are_forms_of_those_that_are_followed() -> None:
    assert unfollowed(PAGE, ("redis-cli", "hookline", "curl", "docker-compose", "LLEN", "INFO", "CONFIG")) == {
        # How to reach the store and the service from elsewhere, and what a following section does.
        "redis-cli", "redis-cli -u $REDIS_URL", "redis-cli -s .hookline/store/valkey.sock", "docker-compose exec valkey valkey-cli",
        "docker-compose exec auth-service hookline token …", "hookline serve", "redis-cli PING", "LLEN", "LLEN …:wait", "LLEN …:active",
        "INFO memory", "hookline runs list --status failed", "hookline runs retry <run>", "hookline runs show", "hookline runs cancel",
        "hookline deliveries undelivered", "hookline replays start <endpoint> --since 1d --dry-run", "hookline endpoints show <endpoint>",
        "hookline endpoints enable <endpoint>",
    }  # fmt: skip


@pytest.mark.timeout(300)
async def test_the_page_is_true(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(Valkey(tmp_path / "store", appendfsync="always"))
        receiver = await stack.enter_async_context(receiving(Answer(status=404, body=b"out of order")))
        endpoint = {"id": "analysis", "url": receiver.url, "types": ["workflow.*"], "secret": "whsec_" + base64.b64encode(b"s" * 32).decode()}
        config = SHIPPED | {
            "redis": {"url": valkey.url},
            "storage": {"url": str(tmp_path / "storage")},
            "encryption_keys": [base64.b64encode(b"k" * 32).decode()],
            "webhooks": {"allow_networks": ["127.0.0.0/8"], "schedule": ["0s"], "endpoints": [endpoint]},
        }
        path = f"{commands(tmp_path / 'bin')}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environ = {"PATH": path, "REDIS_URL": valkey.url, "SERVICES": str(tmp_path), "HOOKLINE_JWT_SECRET": JWT_SECRET}
        reader = Reader(folder=tmp_path, config=config, shell=Shell(tmp_path, environ), stack=stack, receiver=receiver)
        first = await reader.start(role="api")
        client = await stack.enter_async_context(Client(first.url, token()))
        for number, mime_type in enumerate(("text/plain", "", "application/pdf"), 1):
            await post(client, tmp_path, number, mime_type)
        page = sections(PAGE)
        for heading in ORDER:
            for step in page[heading]:
                if "/replay" in step.command:
                    receiver.default = Answer(status=204)
                await reader.follow(step)
            if heading == "Scaling":
                await exhausted(client, await ended(client, 3))
            if heading == "Why did X not get Y?":
                await sent_again(receiver, (await reader.shell.run("echo $event"))[1].strip())
        assert '"exception"' not in reader.log()


@pytest.mark.parametrize(
    ("shown", "said", "right"),
    [
        (("a…c",), "abc\n", True),
        (("a…c",), "ab\n", False),
        (("…", "b"), "x\ny\nb\n", True),
        (("…", "b"), "b\nc\n", False),
        (("(integer) 3",), "(integer) 3", True),
        (("(integer) 3",), "(integer) 30", False),
        ((), "anything", True),
    ],
)
def test_what_the_page_shows_must_fit(shown: tuple[str, ...], said: str, right: bool) -> None:
    assert fits(shown, said) is right


async def test_our_redis_cli_speaks_as_the_real_one(valkey: Valkey, redis: Redis) -> None:
    real = shutil.which("redis-cli")
    if real is None:
        assert "CI" not in os.environ, "CI has redis-cli"
        pytest.skip("redis-cli is not installed (apt-get install redis-tools)")
    await redis.rpush("list", *[f"job {n}" for n in range(11)])
    await redis.hset("hash", mapping={"data": '{"name":"Grö\n\\x"}', "empty": ""})
    await redis.zadd("set", {"a": 1.5, "b": 2})
    await redis.set("text", "x")
    for command in (
        "LLEN list", "LRANGE list 0 -1", "LRANGE nothing 0 -1", "HGETALL hash", "HGET hash data", "HGET hash nothing", "ZCARD set",
        "ZRANGE set 0 -1 WITHSCORES", "LLEN text", "PING", "CONFIG SET maxmemory 4gb", "CONFIG GET maxmemory",
        "CONFIG SET maxmemory 0",
    ):  # fmt: skip
        theirs = await asyncio.to_thread(
            subprocess.run, [real, "-u", valkey.url, "--no-raw", *command.split()], capture_output=True, text=True, check=True
        )
        connection = redis_cli.redis.Redis.from_url(valkey.url, protocol=2).connection_pool.get_connection()
        assert redis_cli.answer(connection, *command.split()) == theirs.stdout.rstrip("\n"), command
        connection.disconnect()
