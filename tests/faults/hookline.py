"""Hookline as one of the servers that the harness can drive."""

import asyncio
import base64
import os
import secrets
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

import aiohttp
import jwt
import psutil
import yaml
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from tests.faults.server import Delivery, Endpoint, Refused, Which

ROOT = Path(__file__).parents[2]
STATES: dict[str, Literal["pending", "delivered", "failed", "skipped"]] = {
    "pending": "pending",
    "delivered": "delivered",
    "exhausted": "failed",
    "skipped": "skipped",
}


class _Process:
    """One `hookline serve`."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self._folder = folder
        self._environment = environment
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> str:
        log = self._folder / "log"
        with log.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pipeline.cli", "serve", "--config", str(self._folder / "config.yaml"), *self._arguments,
                stdout=asyncio.subprocess.PIPE, stderr=errors, env=self._environment, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout
        line = (await asyncio.wait_for(self._process.stdout.readline(), 60)).decode()
        if "ready" not in line:
            raise RuntimeError(f"the service did not start:\n{log.read_text()[-4000:]}")
        return line.split()[-1]

    def processes(self) -> list[psutil.Process]:
        if self._process is None or self._process.returncode is not None:
            return []
        main = psutil.Process(self._process.pid)
        return [main, *main.children(recursive=True)]

    async def gone(self) -> None:
        if self._process:
            await self._process.wait()

    async def stop(self) -> None:
        if self._process and self._process.returncode is None:
            self._process.terminate()
        await self.gone()


class Hookline:
    """Two services on one embedded store: what sends, and the rest, so that one can die without the other."""

    name = "Hookline"

    def __init__(self, folder: Path, *, loopback: bool = True, events_kept: str = "7d") -> None:
        """`loopback`: whether receivers on this machine may be dialled."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        webhooks = {"allow_networks": ["127.0.0.0/8"]} if loopback else {}
        (folder / "config.yaml").write_text(
            yaml.safe_dump({"storage": {"url": "./storage"}, "webhooks": webhooks, "retention": {"events": events_kept}})
        )
        secret = secrets.token_hex(32)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HOOKLINE_", "REDIS_", "BULLMQ_"))} | {
            "HOOKLINE_JWT_SECRET": secret,
            "HOOKLINE_ENCRYPTION_KEYS": base64.b64encode(os.urandom(32)).decode(),
            "HOOKLINE_DATA_DIR": str(folder / "data"),
            "HOOKLINE_LOG_FORMAT": "json",
            "PYTHONPATH": str(ROOT),
        }
        self._rest = _Process(folder, environment, "--role", "api", "--port", "0")
        self._sender = _Process(folder, environment, "--role", "webhooks", "--port", "0")
        self._token = jwt.encode({"sub": "harness", "role": "admin", "exp": int(time.time()) + 24 * 3600}, secret, algorithm="HS256")
        self._session: aiohttp.ClientSession | None = None
        self._url = ""

    async def __aenter__(self) -> "Hookline":
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {self._token}"})
        if not self._rest.processes():
            self._url = await self._rest.start()
        if not self._sender.processes():
            await self._sender.start()
        await self._ready()

    @retry(retry=retry_if_result(lambda ready: not ready), wait=wait_fixed(0.02), stop=stop_after_delay(600))
    async def _ready(self) -> bool:
        """Whether the store answers: one that was killed reads its file first. What merely is behind may be so."""
        assert self._session
        async with self._session.get(f"{self._url}/health/ready") as response:
            return bool((await response.json())["parts"]["store"]["ok"])

    async def stop(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None
        await self._sender.stop()
        await self._rest.stop()

    async def kill(self, which: Which) -> None:
        doomed = self.processes(which)
        for process in doomed:
            process.suspend()  # so that none outlives another and acts on its death
        for process in doomed:
            process.kill()
        if which != "store":
            await self._sender.gone()
        if which == "all":
            await self._rest.gone()
        psutil.wait_procs(doomed, timeout=10)

    def processes(self, which: Which) -> list[psutil.Process]:
        if which == "sender":
            return self._sender.processes()
        socket = str(self._folder / "data" / "store")
        stores = [found for found in psutil.process_iter(["cmdline"]) if socket in " ".join(found.info["cmdline"] or [])]
        return stores if which == "store" else [*self._sender.processes(), *self._rest.processes(), *stores]

    async def create_endpoint(
        self,
        url: str,
        types: list[str],
        *,
        timeout: float = 15.0,
        concurrency: int = 10,
        schedule: tuple[float, ...] | None = None,
        rate: tuple[int, float] | None = None,
        ordering: str | None = None,
        filter: str | None = None,
        thin: bool = False,
    ) -> Endpoint:
        body = {
            "url": url,
            "types": types,
            "timeout": f"{timeout:g}s",
            "concurrency": concurrency,
            "schedule": schedule and [f"{seconds:g}s" for seconds in schedule],
            "rate": f"{rate[0]}/{rate[1]:g}s" if rate else None,
            "ordering": f"data.{ordering}" if ordering else None,
            "filter": filter,
            "payload": "thin" if thin else "full",
        }
        made = await self._call("POST", "/api/webhooks/endpoints", {name: value for name, value in body.items() if value is not None})
        return Endpoint(id=made["id"], secret=made["secret"])

    async def set_paused(self, endpoint: str, paused: bool) -> None:
        await self._call("POST", f"/api/webhooks/endpoints/{endpoint}/{'pause' if paused else 'enable'}")

    async def enable(self, endpoint: str) -> None:
        await self._call("POST", f"/api/webhooks/endpoints/{endpoint}/enable")

    async def status(self, endpoint: str) -> Literal["enabled", "paused", "disabled"]:
        found = (await self._call("GET", f"/api/webhooks/endpoints/{endpoint}"))["status"]
        return cast(Literal["enabled", "paused", "disabled"], found)

    async def rotate_secret(self, endpoint: str) -> str:
        return str((await self._call("POST", f"/api/webhooks/endpoints/{endpoint}/rotate-secret"))["secret"])

    async def publish(self, events: list[tuple[str, dict[str, Any]]], *, key: str | None = None) -> list[str]:
        body = [{"type": type, "data": data} for type, data in events]
        return list((await self._call("POST", "/api/events", body, {"Idempotency-Key": key} if key else None))["ids"])

    async def deliveries(self, endpoint: str) -> list[Delivery]:
        found: list[Delivery] = []
        cursor = ""
        while True:
            page = await self._call("GET", f"/api/webhooks/deliveries?endpoint={endpoint}&limit=200{cursor}")
            found += [
                Delivery(id=one["id"], event=one["eventId"], status=STATES[one["status"]], attempts=one["attemptCount"], reason=one["reason"])
                for one in page["items"]
            ]
            if page["nextCursor"] is None:
                return found
            cursor = f"&cursor={page['nextCursor']}"

    async def replay(self, delivery: str) -> None:
        await self._call("POST", f"/api/webhooks/deliveries/{delivery}/replay")

    async def explain(self, event: str, endpoint: str) -> str:
        return str((await self._call("GET", f"/api/webhooks/explain?event={event}&endpoint={endpoint}"))["items"][0]["reason"])

    async def _call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        assert self._session
        async with self._session.request(method, self._url + path, json=body, headers=headers) as response:
            answer = await response.json(content_type=None)
        if response.status >= 400:
            raise Refused(response.status, f"{answer.get('detail')} {answer.get('errors') or ''}")
        return answer
