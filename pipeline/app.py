"""The composition root: what one process of the service is made of, and in which order it starts and ends."""

import asyncio
import contextlib
import os
import socket as sockets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from pipeline.config import Config
from pipeline.declared import allowed_networks, declared
from pipeline.errors import ConfigError
from pipeline.filters import compile_filter
from pipeline.history import History
from pipeline.house import House, cancel
from pipeline.jobs.bridge import Bridge
from pipeline.jobs.calls import now_ms
from pipeline.parts import Part
from pipeline.publisher import Publisher
from pipeline.store import connection
from pipeline.store.embedded import EmbeddedStore
from pipeline.store.group import Group
from pipeline.workflows.definition import compile_all
from pipeline.workflows.definitions import Definitions
from pipeline.workflows.engine import GROUP as ENGINE_GROUP
from pipeline.workflows.engine import TYPES, Engine
from pipeline.workflows.recovery import Recovery
from pipeline.workflows.timers import Timers
from pipeline.workflows.transitions import Transitions
from webhooks import WebhookError, Webhooks

BEHIND_MS = 60_000
"""A consumer group whose oldest unacknowledged event is older than this makes the service not ready."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A process that is up."""

    port: int | None
    """Of the API, where this process serves it."""
    parts: tuple[asyncio.Task[None], ...]
    """What runs until it is told to stop; one that ends before has failed."""


@contextlib.asynccontextmanager
async def running(config: Config, parts: tuple[Part, ...], name: str) -> AsyncIterator[Running]:
    """Everything that `parts` need, started in order and ended in reverse; leaving it drains.

    Raises ConfigError for whatever an operator must mend first.
    """
    async with contextlib.AsyncExitStack() as stack:
        url = _store_url(config, stack)
        redis = connection.connect(url)
        stack.push_async_callback(redis.aclose)
        await connection.wait_until_up(redis)
        for warning in await connection.check(redis, owner=config.redis.prefix, bull_prefix=config.bullmq.prefix):
            log.warning("durability", reason=warning)
        house = House(config, redis, f"{sockets.gethostname()}:{os.getpid()}:{name}")
        if "worker" in parts:
            # Here, as the API below: who runs another part is up sooner without it.
            from pipeline.workers import start_workers

            await start_workers(house, stack)
        port = None
        if set(parts) & {"api", "engine", "webhooks"}:
            port = await _start_rest(house, parts, stack)
        yield Running(port=port, parts=tuple(house.parts))
        log.info("stopping", drain_seconds=config.server.drain / 1000)


def _store_url(config: Config, stack: contextlib.AsyncExitStack) -> str:
    if config.redis.url is not None:
        return config.redis.url.get_secret_value()
    store = EmbeddedStore(Path(config.data_dir).resolve())
    url = store.attach()
    stack.callback(store.detach)
    return url


async def _start_rest(house: House, parts: tuple[Part, ...], stack: contextlib.AsyncExitStack) -> int | None:
    definitions = Definitions(house.redis, house.keys, compile_all(house.config))
    transitions = Transitions(house.redis, house.keys, house.queues, definitions)
    bridge = Bridge(house.redis, house.keys, house.queues)
    await bridge.open()
    recovery = Recovery(house.redis, house.keys, house.log, house.queues, bridge, definitions, transitions, house.config.retention)
    webhooks = _webhooks(house)
    stop = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    if "webhooks" in parts:
        await _declare(house, webhooks)
        tasks += [asyncio.create_task(webhooks.run_fanout(stop)), asyncio.create_task(webhooks.run_dispatcher(stop))]
    if "engine" in parts:
        engine = Engine(Group(house.redis, house.keys.log, ENGINE_GROUP, house.consumer, types=TYPES), transitions)
        tasks.append(asyncio.create_task(engine.run(stop)))
        upkeep = [asyncio.create_task(part) for part in (Timers(house.redis, house.keys, transitions).run(), recovery.run())]
        stack.push_async_callback(cancel, upkeep)
        if house.queues.external:
            upkeep += [asyncio.create_task(part) for part in (bridge.follow(), bridge.run())]
            log.info("following foreign workers", queues=list(house.queues.external))

    async def drain() -> None:
        stop.set()
        if tasks:
            await asyncio.wait(tasks, timeout=house.config.server.drain / 1000)

    house.parts += tasks
    stack.push_async_callback(drain)
    if "api" not in parts:
        return None
    from pipeline.serving import serve

    return await serve(house, definitions, transitions, webhooks, lambda: _ready(house, recovery, webhooks), stack)


def _webhooks(house: House) -> Webhooks:
    settings = house.config.webhooks
    try:
        return Webhooks(
            redis=house.redis,
            prefix=house.keys.webhooks,
            log=Group(house.redis, house.keys.log, "webhooks", house.consumer),
            publish=Publisher(house.log, house.queues, settings.notify, prefix=house.config.redis.prefix),
            history=History(house.redis, house.keys, house.log, "webhooks"),
            filters=compile_filter,
            encryption_keys=house.encryption_keys(),
            allow_networks=allowed_networks(house.config),
            schedule=settings.schedule,
            retention=house.config.retention.deliveries,
            drain=house.config.server.drain,
            disable_after=settings.disable_after or 0,
        )
    except WebhookError as error:
        raise ConfigError(str(error)) from error


async def _declare(house: House, webhooks: Webhooks) -> None:
    """Make the endpoints of config.yaml what it says now."""
    try:
        await webhooks.declare(declared(house.config))
    except WebhookError as error:
        raise ConfigError(f"webhooks.endpoints: {error}") from error


async def _ready(house: House, recovery: Recovery, webhooks: Webhooks) -> dict[str, Any]:
    """Which part is behind and by how long (ms)."""
    behind = await house.log.behind(now_ms())
    parts: dict[str, Any] = {group: {"behindMs": age, "ok": age < BEHIND_MS} for group, age in behind.items()}
    warnings = await connection.check(house.redis, owner=house.config.redis.prefix, bull_prefix=house.config.bullmq.prefix)
    parts["store"] = {"ok": True, "warnings": warnings}
    health = await webhooks.health()
    parts["deliveries"] = {"behindMs": health["lagMs"], "ok": health["lagMs"] < BEHIND_MS}
    parts["secrets"] = {"ok": True, "warnings": await webhooks.seals.warnings()}
    if recovery.held_by:
        parts["log"] = {"ok": True, "heldBy": recovery.held_by}
    return {"ok": all(part["ok"] for part in parts.values()), "parts": parts}
