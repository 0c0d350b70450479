"""The processes of one service: starts them, starts them again when they die, and ends them in order."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

import structlog

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.parts import Part
from pipeline.process import main
from pipeline.store.embedded import EmbeddedStore

RESTART_PAUSES = (0.2, 1.0, 3.0, 10.0)
"""Seconds before a process that died is started again, by how often it died without having been up for a minute."""
STEADY_SECONDS = 60.0
KILL_GRACE = 5.0
"""Seconds beyond the drain deadline before a process that does not end is killed."""
STORE_CHECK_SECONDS = 0.5
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Child:
    """One process and what it said of itself."""

    parts: tuple[Part, ...]
    name: str
    process: multiprocessing.process.BaseProcess | None = None
    pipe: Connection | None = None
    started: float = 0.0
    deaths: int = 0
    start_at: float = 0.0
    ready: dict[str, object] | None = None


@dataclass(slots=True)
class Supervisor:
    """`run` returns the exit code of the service."""

    config: Config
    parts: tuple[Part, ...]
    workers: int = 1
    on_ready: Callable[[dict[str, object]], None] | None = None
    """Called once, when every process is up, with what they reported (`port` of the API)."""
    _children: list[_Child] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> int:
        """Until SIGTERM or SIGINT. Raises ConfigError if the embedded store cannot be started."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_stop)
        store = EmbeddedStore(Path(self.config.data_dir).resolve()) if self.config.redis.url is None else None
        if store:
            store.attach()
        try:
            self._plan()
            return self._watch(wake_read, store)
        finally:
            self._end()
            if store and store.detach():
                log.info("embedded store shut down")
            signal.set_wakeup_fd(-1)
            os.close(wake_read)
            os.close(wake_write)

    def _told_to_stop(self, *_: object) -> None:
        self._stop.set()

    def _plan(self) -> None:
        rest = tuple(part for part in self.parts if part != "worker")
        if rest:
            self._children.append(_Child(parts=rest, name="+".join(rest)))
        if "worker" in self.parts:
            self._children += [_Child(parts=("worker",), name=f"worker-{number}") for number in range(1, self.workers + 1)]

    def _watch(self, wake: int, store: EmbeddedStore | None) -> int:
        announced = False
        store_checked = time.monotonic()
        while not self._stop.is_set():
            for child in self._children:
                if child.process is None and time.monotonic() >= child.start_at:
                    self._start(child)
            pipes = [child.pipe for child in self._children if child.pipe]
            sentinels = [child.process.sentinel for child in self._children if child.process]
            for ready in wait([*pipes, *sentinels, wake], timeout=STORE_CHECK_SECONDS):
                if isinstance(ready, Connection):
                    self._heard(ready)
                elif ready == wake:
                    os.read(wake, 64)
            if not announced and any(child.process and child.process.exitcode == 2 for child in self._children):
                # It said why. Once the service was up, the same reason passes: a store that was away, or not set as it should be.
                return 2
            self._bury()
            if not announced and all(child.ready is not None for child in self._children):
                announced = True
                if self.on_ready:
                    self.on_ready({key: value for child in self._children for key, value in (child.ready or {}).items()})
            if store and time.monotonic() - store_checked >= STORE_CHECK_SECONDS:
                store_checked = time.monotonic()
                # One that lives will answer, or die; to wait for it here would hold up everything else.
                if not store.answers() and not store.lives():
                    log.error("embedded store died; starting it again")
                    with contextlib.suppress(ConfigError):
                        store.attach()
        return 0

    def _start(self, child: _Child) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        child.process = context.Process(target=main, args=(self.config, child.parts, child.name, theirs), name=f"hookline {child.name}")
        child.process.start()
        theirs.close()
        child.pipe, child.started, child.ready = ours, time.monotonic(), None

    def _heard(self, pipe: Connection) -> None:
        child = next(child for child in self._children if child.pipe is pipe)
        try:
            child.ready = pipe.recv()
        except (EOFError, OSError):
            pipe.close()
            child.pipe = None

    def _bury(self) -> None:
        """Plan the restart of processes that died."""
        for child in self._children:
            if child.process is None or child.process.exitcode is None:
                continue
            code = child.process.exitcode
            steady = time.monotonic() - child.started > STEADY_SECONDS
            child.deaths = 0 if steady else child.deaths + 1
            pause = RESTART_PAUSES[min(child.deaths, len(RESTART_PAUSES) - 1)]
            log.error("process died; starting it again", process=child.name, exit_code=code, restart_in=pause)
            child.process.close()
            child.process, child.start_at = None, time.monotonic() + pause
            if child.pipe:
                child.pipe.close()
                child.pipe = None

    def _end(self) -> None:
        """SIGTERM to all, then wait for the drain deadline, then SIGKILL."""
        alive = [child for child in self._children if child.process and child.process.is_alive()]
        for child in alive:
            assert child.process
            child.process.terminate()
        deadline = time.monotonic() + self.config.server.drain / 1000 + KILL_GRACE
        for child in alive:
            assert child.process
            child.process.join(max(deadline - time.monotonic(), 0))
            if child.process.exitcode is None:
                log.error("process did not end in time; killed", process=child.name)
                child.process.kill()
                child.process.join()
