"""Node and its BullMQ at the tests' hand: commands and signals as JSON lines; missing Node fails in CI, where a skipped test would pass unseen."""

import asyncio
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "interop" / "node"
MAJORS = ("5", "6")
"""Of BullMQ: they lay out a paused queue differently."""


def node(environ: Mapping[str, str] = os.environ) -> str:
    """The path of `node`. Where it (or npm) is missing, the test is skipped; in CI it fails."""
    path = environ.get("PATH")
    found = shutil.which("node", path=path)
    if found and shutil.which("npm", path=path):
        return found
    reason = "Node is not installed (https://nodejs.org, or: apt-get install nodejs npm)"
    if any(environ.get(name, "").lower() not in ("", "0", "false") for name in ("CI", "GITHUB_ACTIONS")):
        pytest.fail(f"{reason}; in CI this test must run")
    pytest.skip(reason)


def installed() -> None:
    """The pinned packages in tests/interop/node/node_modules: installed once, and again when the lock file changes."""
    node()
    stamp = FOLDER / "node_modules" / ".installed"
    with (FOLDER / "package-lock.json").open("rb") as pinned:
        # The workers of one test session would otherwise install at the same time.
        fcntl.flock(pinned, fcntl.LOCK_EX)
        wanted = hashlib.sha256(pinned.read()).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            return
        done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=FOLDER, capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"npm ci in {FOLDER}:\n{done.stderr[-4000:]}")
        stamp.write_text(wanted)


class Hand:
    """One Node process with one major version of BullMQ."""

    def __init__(self, major: str, port: int) -> None:
        self.major = major
        self._port = port
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Condition()
        self.signals: list[dict[str, Any]] = []

    async def __aenter__(self) -> "Hand":
        self._process = await asyncio.create_subprocess_exec(
            node(), "hand.js", self.major, f"127.0.0.1:{self._port}", cwd=FOLDER,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1 << 24,
        )  # fmt: skip
        assert self._process.stderr
        self._errors = asyncio.create_task(self._process.stderr.read())
        self._reading = asyncio.create_task(self._read())
        await self.until(lambda signal: signal["signal"] == "ready")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            await self.kill()
        await self._reading
        said = (await self._errors).decode()
        assert "Error" not in said, said[-4000:]

    async def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            said = json.loads(line)
            if "signal" in said:
                async with self._news:
                    self.signals.append(said)
                    self._news.notify_all()
            elif "error" in said:
                self._answers.pop(said["re"]).set_exception(RuntimeError(said["error"]))
            else:
                self._answers.pop(said["re"]).set_result(said["value"])
        for waiting in self._answers.values():
            waiting.set_exception(RuntimeError("Node is gone"))

    async def __call__(self, command: str, **given: Any) -> Any:
        """What a command of hand.js answers."""
        assert self._process.stdin
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"re": number, "command": command, **given}).encode() + b"\n")
        return await asyncio.wait_for(self._answers[number], 30)

    async def until(self, matches: Callable[[dict[str, Any]], bool], number: int = 1, *, seconds: float = 30.0) -> list[dict[str, Any]]:
        """The signals that match, once there are so many. Raises TimeoutError with what there was."""
        try:
            async with asyncio.timeout(seconds), self._news:
                while len(found := [signal for signal in self.signals if matches(signal)]) < number:
                    await self._news.wait()
                return found
        except TimeoutError:
            raise TimeoutError(f"{len(found)} of {number}; the last signals: {self.signals[-5:]}") from None

    async def changed(self) -> None:
        """Until another signal has come."""
        async with self._news:
            await self._news.wait()

    def of(self, signal: str) -> list[str]:
        """The ids of the jobs that a signal told of, in order."""
        return [said["id"] for said in self.signals if said["signal"] == signal]


def told(signal: str, **fields: Any) -> Callable[[dict[str, Any]], bool]:
    return lambda said: said["signal"] == signal and all(said.get(name) == value for name, value in fields.items())
