"""What the demo runs in: a mail server, a subscriber and the service itself, each on a free port, and each ending with it."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import HooklineError

ROOT = Path(__file__).parents[2]
SUBSCRIBED = ("job.completed", "job.failed", "workflow.*")


@contextlib.asynccontextmanager
async def mail_server(mailed: Callable[[], None]) -> AsyncIterator[int]:
    """Its port; `mailed` is called for each e-mail."""
    from aiosmtpd.smtp import SMTP

    class Inbox:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            mailed()
            return "250 OK"

    server = await asyncio.get_running_loop().create_server(lambda: SMTP(Inbox(), enable_SMTPUTF8=True), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def subscriber(secret: str, told: Callable[[dict[str, Any]], None]) -> AsyncIterator[str]:
    """The URL of the example analysis service, a process of its own; `told` gets what it says of each webhook. Raises HooklineError."""
    app = ROOT / "examples" / "analysis-service" / "app.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(app), "--port", "0", stdout=asyncio.subprocess.PIPE, start_new_session=True,
        env=os.environ | {"ANALYSIS_WEBHOOK_SECRET": secret},
    )  # fmt: skip
    lines = process.stdout
    assert lines

    async def listen() -> None:
        while line := await lines.readline():
            told(json.loads(line))

    try:
        first = await asyncio.wait_for(lines.readline(), 20)
        if not first:
            raise HooklineError(f"the subscriber did not start ({app}); what it said is above", hint="make demo installs all that it needs")
        async with background(listen()):
            yield json.loads(first)["listening"]
    finally:
        await _end(process)


@contextlib.asynccontextmanager
async def service(folder: Path, *, smtp: int, hooks: str, secret: str, jwt: str) -> AsyncIterator[tuple[str, str]]:
    """`hookline serve` on the shipped config.yaml, with a data folder, a port and endpoints of its own: its URL, and the line in which it says so.

    Raises HooklineError with the end of its log.
    """
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["storage"] = {"url": str(folder / "storage")}
    config["notifications"] = {"email": f"mailto://127.0.0.1:{smtp}/?from=hookline@example.com&to=compliance@example.com&mode=insecure"}
    config["webhooks"] = {
        "allow_networks": ["127.0.0.0/8"],
        # A subscriber that refuses should show within the demo's own time.
        # Once: a receiver that fails is left in peace for longer than anybody watches a demo.
        "schedule": ["0s"],
        "endpoints": [{"id": "analysis", "url": hooks, "types": list(SUBSCRIBED), "secret": secret}],
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HOOKLINE_", "REDIS_", "BULLMQ_"))}
    environment |= {"HOOKLINE_JWT_SECRET": jwt, "HOOKLINE_DATA_DIR": str(folder / "data"), "HOOKLINE_LOG_FORMAT": "json"}
    log = folder / "service.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pipeline.cli", "serve", "--dev", "--config", str(path), "--port", "0",
            stdout=asyncio.subprocess.PIPE, stderr=errors, env=environment, start_new_session=True,
        )  # fmt: skip
    assert process.stdout
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        if "ready" not in line:
            raise HooklineError("the service did not start; the end of its log:\n" + log.read_text()[-3000:])
        yield line.split()[-1], line.strip()
    finally:
        await _end(process)


@contextlib.asynccontextmanager
async def background(coroutine: Any) -> AsyncIterator["asyncio.Task[None]"]:
    """A task that ends with the block."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()
