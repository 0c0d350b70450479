"""One process of the service: its signals, its tie to the supervisor, its exit code."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection

import structlog
import uvloop

from pipeline import logs
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.parts import Part

YOUNG = 10_000
"""Objects that are made before the collector looks for circles among them: the jobs and runs under way are no circles, and Python's 700
would have it look at them, and at all that the modules hold, again and again: a third of the engine's time."""
FILES = 65_536
log = structlog.get_logger(__name__)


def main(config: Config, parts: tuple[Part, ...], name: str, pipe: Connection) -> None:
    """The entry of a process that the supervisor started; ends on SIGTERM, or when the supervisor is gone."""
    logs.configure(config.log_format)
    allow_files()
    # Ctrl-C reaches every process of the terminal; only the supervisor acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        uvloop.run(_process(config, parts, name, pipe))
    except ConfigError as error:
        log.error("cannot start", reason=str(error))
        sys.exit(2)
    # A plain `def` processor that outlived the deadline sits in a thread that nobody can end.
    sys.stderr.flush()
    os._exit(0)


def allow_files() -> None:
    """Open as many files as the system lets us: a shell's 1,024 are for programs that use `select`, and each webhook under way is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    # A system may have a limit of its own beside what it says.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _process(config: Config, parts: tuple[Part, ...], name: str, pipe: Connection) -> None:
    # Here, because the supervisor, which imports this module, runs none of the parts.
    from pipeline.app import running

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def supervisor_gone() -> None:
        # The end of a pipe stays readable: watched on, it would keep the loop busy for the whole drain.
        loop.remove_reader(pipe.fileno())
        stop.set()

    loop.add_reader(pipe.fileno(), supervisor_gone)
    structlog.contextvars.bind_contextvars(process=name)
    async with running(config, parts, name) as service:
        # What is there by now stays.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG)
        pipe.send({"port": service.port} if service.port else {})
        told = asyncio.create_task(stop.wait())
        await asyncio.wait([told, *service.parts], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
    loop.remove_reader(pipe.fileno())
    for part in service.parts:
        # A part that ended by itself is a mistake of ours: better a fresh process than one that only looks alive.
        part.result()
