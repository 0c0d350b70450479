"""A child process as the worker sees it: started, given jobs, held to its limits, killed with all that it started."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from pipeline.config import Config
from pipeline.errors import AttemptFailed, HooklineError, PermanentFailure
from pipeline.jobs import frames
from pipeline.jobs.model import Context, Job
from pipeline.jobs.registry import Processor
from pipeline.units import format_duration, format_size

LOOK_EVERY = 0.1
"""Seconds between two looks at a child's memory and clock."""
START_LIMIT = 60.0
"""Seconds that a child may take to import its processor's libraries."""
GONE_LIMIT = 5.0
"""Seconds to wait for a killed process to be gone."""
JOBS_PER_CHILD = 200
"""A child is replaced after so many: what its libraries leak goes with it."""
STDERR_BYTES = 4096
PROC_READABLE = Path("/proc/self/statm").exists()
_PAGE = os.sysconf("SC_PAGESIZE")
_OUR_SECRETS = ("HOOKLINE_", "REDIS_")
"""Prefixes of the variables a child does not inherit: a hostile document that takes it over would find them there."""


class ChildTraceback(Exception):
    """The stack as it was in the child; shown as the cause of what is raised here."""

    def __init__(self, stack: str) -> None:
        super().__init__(stack)

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class ChildProcess:
    """One child, and the books about it."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._process: asyncio.subprocess.Process | None = None
        self._reaped: asyncio.Task[None] | None = None
        self._stderr: asyncio.Task[None] | None = None
        self._said = b""
        self._held = 0
        self.jobs = 0
        self.accepted = False
        """Whether it began with the job it was given last."""
        self._between_jobs = False
        self._began = self._looked = 0.0

    @property
    def usable(self) -> bool:
        """Whether it can take another job."""
        return self._alive and self._between_jobs and self.jobs < JOBS_PER_CHILD and self._memory() < self._processor.memory // 2

    @property
    def _alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, config: Config) -> None:
        """Raises AttemptFailed if the processor cannot be made ready in the child."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "pipeline.jobs.child",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True, env=_environment(),
        )  # fmt: skip
        self._stderr = asyncio.create_task(self._listen(self._process))
        self._reaped = asyncio.create_task(self._reap(self._process))
        first = {"path": self._processor.path, "config": revealed(config), "memory": self._processor.memory, "reports_memory": not PROC_READABLE}
        try:
            async with asyncio.timeout(START_LIMIT):
                await self._send(first)
                frame = await self._receive()
        except TimeoutError:
            raise AttemptFailed(f"a child process of {self._processor.name} was not ready after {START_LIMIT:.0f} s") from None
        if "failure" in frame:
            raise AttemptFailed(f"{self._processor.name} cannot start: {frame['failure']['reason']}") from ChildTraceback(frame["failure"]["stack"])
        self._between_jobs = True

    async def perform(self, job: Job, context: Context) -> Any:
        self._between_jobs = False
        self.accepted = False
        self.jobs += 1
        data = job.data.model_dump(mode="json", by_alias=True) if isinstance(job.data, BaseModel) else job.data
        self._began = self._looked = time.monotonic()
        await self._send({"job": replace(job, data=data, opts=dict(job.opts)), "idempotency_key": context.idempotency_key})
        while True:
            frame = await self._next(context)
            self.accepted |= "held" not in frame
            if "progress" in frame:
                await context.progress(frame["progress"])
            elif "log" in frame:
                _log(context, frame["log"])
            elif "held" in frame:
                self._held = frame["held"]
            elif "result" in frame:
                self._between_jobs = True
                return frame["result"]
            elif "failure" in frame:
                self._between_jobs = True
                self._raise(frame["failure"])

    async def _next(self, context: Context) -> dict[str, Any]:
        """The next frame; meanwhile, and also between the frames of a talkative child, it is held to its limits."""
        receiving = asyncio.ensure_future(self._receive())
        try:
            while True:
                await asyncio.wait({receiving}, timeout=LOOK_EVERY)
                now = time.monotonic()
                if now - self._looked >= LOOK_EVERY:
                    self._looked = now
                    if not self._finished(receiving):
                        self._check(context, now - self._began)
                if receiving.done():
                    return receiving.result()
        finally:
            if not receiving.done():
                receiving.cancel()
                await asyncio.wait({receiving})

    @staticmethod
    def _finished(receiving: "asyncio.Future[dict[str, Any]]") -> bool:
        """Whether the attempt is over: what came in time counts, even if it is looked at late."""
        return receiving.done() and (receiving.exception() is not None or not receiving.result().keys().isdisjoint(("result", "failure")))

    def _check(self, context: Context, seconds: float) -> None:
        """Raises what became of the job, having killed the child, if it oversteps a limit or should stop."""
        processor = self._processor
        reason = None
        if seconds * 1000 > processor.timeout:
            reason = f"{processor.name} exceeded its time limit of {format_duration(processor.timeout)} and was killed"
        elif (held := self._memory()) > processor.memory:
            reason = self._too_much(f"held {format_size(held)}") + " and was killed"
        elif not context.cancelled:
            return
        self.kill()
        if reason is None:
            raise asyncio.CancelledError("the job should stop")
        raise PermanentFailure(self._advised(reason))

    def _raise(self, failure: dict[str, Any]) -> None:
        if failure.get("out_of_memory"):
            raise PermanentFailure(self._advised(self._too_much("asked for more at once")))
        if failure["permanent"]:
            raise PermanentFailure(failure["reason"])
        raise AttemptFailed(failure["reason"]) from ChildTraceback(failure["stack"])

    def _too_much(self, how: str) -> str:
        return f"{self._processor.name} exceeded its memory limit of {format_size(self._processor.memory)} ({how})"

    def _advised(self, reason: str) -> str:
        return f"{reason}; {self._processor.advice}" if self._processor.advice else reason

    def _memory(self) -> int:
        """Bytes of resident memory; 0 for a child that is gone."""
        if not PROC_READABLE:
            return self._held
        assert self._process
        try:
            return int(Path(f"/proc/{self._process.pid}/statm").read_bytes().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0

    async def _send(self, frame: dict[str, Any]) -> None:
        assert self._process
        assert self._process.stdin
        with contextlib.suppress(ConnectionError):  # a child that died says why by how it died: _receive tells
            self._process.stdin.write(frames.pack(frame))
            await self._process.stdin.drain()

    async def _receive(self) -> dict[str, Any]:
        assert self._process
        assert self._process.stdout
        try:
            size = frames.body_size(await self._process.stdout.readexactly(frames.HEADER.size))
            return frames.unpack(await self._process.stdout.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            failed = await self._death()
            raise failed from failed.__cause__
        except frames.BadFrame as error:
            raise AttemptFailed(f"the child process of {self._processor.name} sent no sense: {error}") from error

    async def _death(self) -> HooklineError:
        """What to say of a child that died by itself."""
        assert self._process
        await self._gone()
        code = self._process.returncode
        if b"memory allocation of " in self._said:
            # How Rust (kreuzberg) ends when RLIMIT_DATA refuses: no exception, but SIGABRT.
            return PermanentFailure(self._advised(self._too_much("asked for more at once") + " and was killed"))
        if code is None:
            how = "closed its pipe"
        elif code < 0:
            how = f"was killed by {_signal(-code)}" + (" (perhaps by the system, for want of memory)" if -code == signal.SIGKILL else "")
        else:
            how = f"ended with exit code {code}"
        failed = AttemptFailed(f"the child process of {self._processor.name} {how} before it had a result")
        if self._said:
            failed.__cause__ = ChildTraceback(self._said.decode(errors="replace"))
        return failed

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Keep the end of what is printed: it tells why a child died, and a full pipe would stop it."""
        assert process.stderr
        while text := await process.stderr.read(STDERR_BYTES):
            self._said = (self._said + text)[-STDERR_BYTES:]

    async def _reap(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        # At once, as long as the number cannot mean another group: what the child had started must not outlive it.
        _kill_group(process.pid)

    async def _gone(self) -> None:
        """Wait for the end of a child that is killed or dying, and of its last words."""
        if self._process and self._reaped and self._stderr:
            assert self._process.stdout
            # What it still sent is read to the end: a full pipe that nobody reads is never closed.
            rest = asyncio.create_task(self._process.stdout.read())
            # A descendant in a session of its own may hold the pipes open for ever.
            await asyncio.wait({self._reaped, self._stderr, rest}, timeout=GONE_LIMIT)
            rest.cancel()

    def kill(self) -> None:
        """SIGKILL to the child and all that it started."""
        self._between_jobs = False
        if self._process and self._alive:
            _kill_group(self._process.pid)

    async def end(self) -> None:
        self.kill()
        await self._gone()
        for task in (self._reaped, self._stderr):
            if task:
                task.cancel()


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def revealed(config: Config) -> dict[str, Any]:
    """The configuration as JSON with its secrets readable: for the pipe to a child, and nowhere else."""

    def reveal(value: Any) -> Any:
        if isinstance(value, SecretStr):
            return value.get_secret_value()
        if isinstance(value, dict):
            return {key: reveal(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [reveal(item) for item in value]
        return value

    shown: dict[str, Any] = reveal(config.model_dump())
    return shown


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OUR_SECRETS)}
    # Modules are found where the worker finds them. One thread for numerics: there is a child for each core.
    kept["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"} | kept


def _log(context: Context, event: dict[str, Any]) -> None:
    level = event.pop("level", "info")
    write = getattr(context.log, level if level in ("debug", "info", "warning", "error", "critical") else "info")
    write(event.pop("event", ""), **{str(key): value for key, value in event.items()})


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
