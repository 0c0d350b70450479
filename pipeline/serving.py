"""The API of one process: what its handlers need, and the port on which it listens."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from pipeline.api import uploads
from pipeline.api.app import RUNNER, create_app
from pipeline.api.services import Services
from pipeline.auth import Authenticator
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.eventtypes import EventTypes
from pipeline.house import House, cancel
from pipeline.storage import Storage
from pipeline.store.memory import Memory
from pipeline.workflows.definitions import Definitions
from pipeline.workflows.runs import Runs
from pipeline.workflows.transitions import Transitions
from webhooks import Webhooks

log = structlog.get_logger(__name__)


async def serve(
    house: House,
    definitions: Definitions,
    transitions: Transitions,
    webhooks: Webhooks,
    ready: Callable[[], Awaitable[dict[str, Any]]],
    stack: contextlib.AsyncExitStack,
) -> int:
    """Returns the port. Raises ConfigError for one that cannot be had, and for a storage that cannot be used."""
    services = Services(
        config=house.config,
        redis=house.redis,
        keys=house.keys,
        queues=house.queues,
        runs=Runs(house.redis, house.keys, house.queues, definitions, transitions),
        log=house.log,
        memory=Memory(house.redis),
        storage=Storage(house.config.storage.url, base=Path(house.config.folder)),
        callbacks=house.callbacks(),
        links=house.links(),
        event_types=EventTypes(house.redis, house.keys, strict=house.config.events.strict),
        webhooks=webhooks,
        authenticator=Authenticator(house.config.auth),
        matches=webhooks.matches,
        ready=ready,
    )
    stack.push_async_callback(cancel, [asyncio.create_task(uploads.keep_sweeping(services))])
    return await _listen(create_app(services), house.config, stack)


async def _listen(app: web.Application, config: Config, stack: contextlib.AsyncExitStack) -> int:
    runner = web.AppRunner(app, **RUNNER, handle_signals=False, shutdown_timeout=config.server.drain / 1000)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, config.server.host, config.server.port)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"server.port: cannot listen on {config.server.host}:{config.server.port}: {error.strerror}; choose another with --host and --port"
        ) from error
    port = int(runner.addresses[0][1])
    log.info("listening", url=f"http://{config.server.host}:{port}")
    return port
