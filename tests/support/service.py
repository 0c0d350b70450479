"""The whole service as its operators run it: `hookline serve` in processes of its own, which tests start, stop and kill."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml
from pydantic import SecretStr

from pipeline.auth import issue
from pipeline.config import Auth

ROOT = Path(__file__).parents[2]
JWT_SECRET = "a secret of the tests, long enough for HS256"


def token(sub: str = "tester", role: Any = "admin", ttl: int = 3600) -> str:
    return issue(Auth(jwt_secret=SecretStr(JWT_SECRET)), sub, role, ttl * 1000, now=int(time.time() * 1000))


class Service:
    """One service on an embedded store in `folder`."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        workers: int = 1,
        role: str = "all",
        port: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._environment = environment or {}
        self.url = ""
        self._arguments = ["--workers", str(workers), "--role", role, "--port", str(port)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({"storage": {"url": "./storage"}, **config}, sort_keys=False))
        self._process: asyncio.subprocess.Process | None = None
        self._log = folder / "service.log"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    async def start(self) -> str:
        """Start it and wait until it says that it is ready; returns its URL."""
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("HOOKLINE_", "REDIS_", "BULLMQ_"))}
        environment = keep | {
            "HOOKLINE_JWT_SECRET": JWT_SECRET,
            "HOOKLINE_DATA_DIR": str(self.folder / "data"),
            "HOOKLINE_LOG_FORMAT": "json",
            "LEDGER": str(self.folder / "ledger"),
            "PYTHONPATH": str(ROOT),
            **self._environment,
        }
        with self._log.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pipeline.cli", "serve", "--dev", "--config", str(self.folder / "config.yaml"), *self._arguments,
                stdout=asyncio.subprocess.PIPE, stderr=errors, env=environment, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout
        line = (await asyncio.wait_for(self._process.stdout.readline(), 60)).decode()
        if "ready" not in line:
            await self._process.wait()
            raise RuntimeError(f"the service did not start:\n{self.log[-4000:]}")
        self.url = line.split()[-1]
        return self.url

    def processes(self) -> list[psutil.Process]:
        """Every process of the service, its store's included."""
        assert self._process
        main = psutil.Process(self._process.pid)
        socket = str(self.folder / "data" / "store")
        stores = [found for found in psutil.process_iter(["cmdline"]) if socket in " ".join(found.info["cmdline"] or [])]
        return [main, *main.children(recursive=True), *stores]

    async def kill(self) -> None:
        """kill -9 of all of it at once."""
        assert self._process
        doomed = self.processes()
        for process in doomed:
            process.suspend()  # so that none outlives another and acts on its death
        for process in doomed:
            process.kill()
        await self._process.wait()
        psutil.wait_procs(doomed, timeout=10)

    async def stop(self, seconds: float = 40.0) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process
        if self._process.returncode is None:
            self._process.terminate()
            await asyncio.wait_for(self._process.wait(), seconds)
        assert self._process.returncode is not None
        return self._process.returncode

    async def __aenter__(self) -> "Service":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process
        if self._process.returncode is None:
            await self.stop()
