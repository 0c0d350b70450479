"""The Go toolchain, which builds an example: missing it fails in CI, where a skipped test would be taken for a passed one."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest


def toolchain(environ: Mapping[str, str] = os.environ) -> str:
    """The path of `go`. Where it is missing, the test is skipped; in CI it fails."""
    found = shutil.which("go", path=environ.get("PATH"))
    if found:
        return found
    reason = "Go is not installed (https://go.dev/dl, or: apt-get install golang-go)"
    if any(environ.get(name, "").lower() not in ("", "0", "false") for name in ("CI", "GITHUB_ACTIONS")):
        pytest.fail(f"{reason}; in CI this test must run")
    pytest.skip(reason)


async def go(folder: Path, *arguments: str) -> str:
    """Run `go …` in `folder`, from what is on this machine alone; returns what it said. Fails the test if it fails."""
    # An empty module proxy and the local toolchain: nothing is fetched.
    environment = os.environ | {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    process = await asyncio.create_subprocess_exec(
        toolchain(), *arguments, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode()
    if process.returncode:
        pytest.fail(f"go {' '.join(arguments)}:\n{said[-4000:]}")
    return said
