"""Processors that misbehave in one way each, for the tests of isolation."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, Field

from pipeline.config import Config
from pipeline.errors import PermanentFailure
from pipeline.jobs.model import Context, Job
from pipeline.jobs.registry import processor


class Amount(BaseModel):
    amount: int = Field(ge=1)


@processor(isolated=True, input=Amount)
def double(job: Job, context: Any) -> dict[str, Any]:
    context.progress(50)
    context.log.info("doubling", amount=job.data.amount)
    structlog.get_logger().warning("a module's own logger")
    print("a library prints to standard output")
    return {"doubled": job.data.amount * 2, "pid": os.getpid(), "attempt": job.attempt, "key": context.idempotency_key}


@processor(isolated=True)
async def in_coroutine(job: Job, context: Context) -> dict[str, Any]:
    await context.progress(10)
    await context.heartbeat()
    return {"run": job.origin.run if job.origin else None, "cancelled": context.cancelled}


@processor(isolated=True)
class WithConfig:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.prepared = False

    def prepare(self) -> None:
        self.prepared = True

    def process(self, job: Job, context: Any) -> dict[str, Any]:
        secret = self.config.auth.jwt_secret
        assert secret
        return {
            "prepared": self.prepared,
            "read_secret": secret.get_secret_value(),
            "argv": Path("/proc/self/cmdline").read_text() if Path("/proc/self/cmdline").exists() else " ".join(sys.orig_argv),
            "environment": sorted(os.environ),
        }


@processor(isolated=True, memory="200MiB", timeout="30s")
def eat(job: Job, context: Any) -> None:
    held = []
    while True:
        held.append(b"x" * (8 << 20))
        if job.data.get("chatty"):
            context.progress(1)
        time.sleep(0.005)  # or a worker that does not run for a moment finds it at the kernel's limit


@processor(isolated=True, memory="64MiB")
def gulp(job: Job, context: Any) -> int:
    return len(b"x" * (8 << 30))


@processor(isolated=True, timeout="400ms")
def never_ends(job: Job, context: Any) -> None:
    if job.data.get("hold_interpreter"):
        ctypes.PyDLL(None).sleep(30)
    while True:
        if job.data.get("chatty"):
            context.progress(1)


@processor(isolated=True, timeout="30s")
def waits(job: Job, context: Any) -> None:
    """Tells who it is, and who it started, then waits."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    context.log.info("waiting", pid=os.getpid(), started=other.pid)
    other.wait()


@processor(isolated=True)
def dies(job: Job, context: Any) -> None:
    if "exit" in job.data:
        print("last words", file=sys.stderr, flush=True)
        os._exit(job.data["exit"])
    os.kill(os.getpid(), getattr(signal, job.data["signal"]))


@processor(isolated=True)
def raises(job: Job, context: Any) -> None:
    kind = job.data["kind"]
    if kind == "permanent":
        raise PermanentFailure("never works")
    if kind == "exit":
        sys.exit(3)
    if kind == "surrogate":
        raise RuntimeError("broken \udcff name")
    raise RuntimeError("works perhaps next time")


@processor(isolated=True)
def returns(job: Job, context: Any) -> Any:
    return {"nan": float("nan"), "set": {1}, "large": "x" * 70_000, "none": None}[job.data]


@processor(isolated=True)
class CannotStart:
    def prepare(self) -> None:
        raise RuntimeError("its library is missing")

    def process(self, job: Job, context: Any) -> None:
        """Never called."""


@processor(isolated=True)
class StartsForEver:
    def __init__(self, config: Config) -> None:
        self.folder = Path(config.folder)

    def prepare(self) -> None:
        (self.folder / "started").write_text("")
        signal.pause()

    def process(self, job: Job, context: Any) -> None: ...
