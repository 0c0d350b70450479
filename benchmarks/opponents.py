"""Node's side of the benchmarks: its packages, installed as they are locked, and its programs in processes of their own."""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil

FOLDER = Path(__file__).parent
BULLMQ, NEST = FOLDER / "node", FOLDER / "nest"
START_SECONDS = 30.0


class NodeMissing(Exception):
    """There is no `node` or no `npm` on the path."""


async def install(project: Path) -> None:
    """`npm ci`, and `npm run build` where the project is TypeScript; once, as long as its files and Node stay the same. Raises NodeMissing."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise NodeMissing("the benchmarks measure against Node: install Node 18 or newer and npm (Debian: apt-get install nodejs npm)")
    mark, done = _mark(project, await version()), project / "node_modules" / ".installed"
    with (project / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists() and done.read_text() == mark:
            return
        # What the packages' own scripts would build comes with them already built.
        await _said("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=project)
        if (project / "tsconfig.json").exists():
            shutil.rmtree(project / "dist", ignore_errors=True)
            await _said("npm", "run", "build", cwd=project)
        done.write_text(mark)


def _mark(project: Path, node: str) -> str:
    sources = sorted([*project.glob("*.json"), *project.glob("src/**/*")])
    return hashlib.sha256("".join([node, *(path.read_text() for path in sources)]).encode()).hexdigest()


async def version() -> str:
    return (await _said("node", "--version")).strip().removeprefix("v")


def package(project: Path, name: str) -> str:
    """The version of an installed package."""
    return str(json.loads((project / "node_modules" / name / "package.json").read_text())["version"])


@contextlib.asynccontextmanager
async def running(project: Path, script: str, settings: dict[str, Any]) -> AsyncIterator[tuple[psutil.Process, str]]:
    """A program that is up, and what it said after `ready`; it ends when this is left, or when we die."""
    process = await asyncio.create_subprocess_exec(
        "node", script, json.dumps(settings), cwd=project, env=_environment(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    try:
        said = (await asyncio.wait_for(process.stdout.readline(), START_SECONDS)).decode().strip()
        if not said.startswith("ready"):
            raise RuntimeError(f"{script} did not start; it said {said!r}")
        yield psutil.Process(process.pid), said.removeprefix("ready").strip()
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def answer(project: Path, script: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What a program that ends by itself printed as JSON."""
    found: dict[str, Any] = json.loads(await _said("node", script, json.dumps(settings), cwd=project))
    return found


def _environment() -> dict[str, str]:
    return os.environ | {"NODE_ENV": "production"}


async def _said(*command: str, cwd: Path | None = None) -> str:
    # npm leaves out what builds the project when NODE_ENV is `production`.
    environment = _environment() if command[0] == "node" else dict(os.environ)
    process = await asyncio.create_subprocess_exec(*command, cwd=cwd, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} in {cwd}:\n{(out + errors).decode()[-4000:]}")
    return out.decode()
