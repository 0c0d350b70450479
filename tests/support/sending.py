"""A process that sends and says what that cost: its memory is nobody else's, and limited.

python -m tests.support.sending reads lines of {"urls", "timeout"} and answers each with {"outcomes", "grown", "left"}.
"""

import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from tests.support.receiver import receiving
from webhooks.guard import Guard
from webhooks.sender import Request, Sender
from webhooks.signing import generate_secret, key_of

MIB = 1 << 20
ALLOWED = 64 * MIB
"""Of data beyond what the process begins with: a few threads' stacks, and far less than any of those receivers would send."""
CPU_SECONDS = 120
LINUX = sys.platform == "linux"
KEY = key_of(generate_secret())


class Peak:
    """How much more memory this process has had at once, since this was made, than it had then."""

    def __init__(self) -> None:
        # Not ru_maxrss, where there is a choice: a child begins with that of its parent, which would hide all growth below.
        if LINUX:
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status("VmRSS")
        else:
            self._before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def grown(self) -> int:
        """Bytes."""
        return _status("VmHWM") - self._before if LINUX else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._before


def _status(field: str) -> int:
    return 1024 * next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))


def limit() -> None:
    if LINUX:
        most = _status("VmData") + ALLOWED
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))


async def attempt(sender: Sender, url: str, timeout: float) -> dict[str, Any]:
    begun = time.monotonic()
    outcome = await sender.send(Request(url=url, event="evt_1", body=b"x" * 1024, keys=[KEY], headers={}, timeout=timeout, trace="t"), 0)
    return {"seconds": time.monotonic() - begun, "status": outcome.status, "verdict": outcome.verdict_status, "error": outcome.error}


async def settle(count: int) -> int:
    """How many more files are open than `count`, when those that are being closed have been."""
    for _ in range(100):
        if len(os.listdir("/dev/fd")) <= count:
            break
        await asyncio.sleep(0.01)
    return len(os.listdir("/dev/fd")) - count


async def main() -> None:
    loop = asyncio.get_running_loop()
    async with Sender(Guard(["127.0.0.0/8"])) as sender:
        async with receiving() as receiver:
            # Once in good weather, so that what every sender needs is not counted.
            await asyncio.gather(*(attempt(sender, receiver.url, 5.0) for _ in range(8)))
        limit()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = json.loads(line)
            sender._pool.close()
            await asyncio.sleep(0)
            peak, files = Peak(), len(os.listdir("/dev/fd"))
            outcomes = await asyncio.gather(*(attempt(sender, url, asked["timeout"]) for url in asked["urls"]))
            grown = peak.grown()
            sender._pool.close()
            print(json.dumps({"outcomes": outcomes, "grown": grown, "left": await settle(files)}), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
