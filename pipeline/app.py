"""The composition root: what one process of the service is made of, and in which order it starts and ends."""

import asyncio
import base64
import contextlib
import os
import socket as sockets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from pipeline.api import uploads
from pipeline.api.app import RUNNER, create_app
from pipeline.api.services import Services
from pipeline.auth import Authenticator
from pipeline.config import Config
from pipeline.declared import allowed_networks, declared
from pipeline.errors import AttemptFailed, ConfigError
from pipeline.eventtypes import EventTypes
from pipeline.filters import compile_filter
from pipeline.history import History
from pipeline.jobs.bridge import Bridge
from pipeline.jobs.callbacks import Callbacks, Links
from pipeline.jobs.calls import now_ms
from pipeline.jobs.isolation import IsolatedPool
from pipeline.jobs.queues import Queues
from pipeline.jobs.registry import Processor, resolve_all
from pipeline.jobs.runner import Elsewhere, Runner
from pipeline.jobs.watchdog import Watchdog
from pipeline.jobs.worker import Worker
from pipeline.parts import Part
from pipeline.processors.push import PushProcessor
from pipeline.publisher import Publisher
from pipeline.storage import Storage
from pipeline.store import connection
from pipeline.store.connection import Store
from pipeline.store.embedded import EmbeddedStore
from pipeline.store.group import Group
from pipeline.store.keys import Keys
from pipeline.store.log import Log
from pipeline.store.memory import Memory
from pipeline.workflows.definition import compile_all
from pipeline.workflows.definitions import Definitions
from pipeline.workflows.engine import GROUP as ENGINE_GROUP
from pipeline.workflows.engine import TYPES, Engine
from pipeline.workflows.recovery import Recovery
from pipeline.workflows.runs import Runs
from pipeline.workflows.timers import Timers
from pipeline.workflows.transitions import Transitions
from webhooks import Guard, WebhookError, Webhooks
from webhooks.sender import Sender
from webhooks.signing import key_of

HAND_BACK_SECONDS = 3.0
"""For jobs that outlived the drain deadline: to be handed back to their queues."""
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
        house = _House(config, redis, url, f"{sockets.gethostname()}:{os.getpid()}:{name}")
        if "worker" in parts:
            await house.start_workers(stack)
        port = None
        if set(parts) & {"api", "engine", "webhooks"}:
            port = await house.start_rest(parts, stack)
        yield Running(port=port, parts=tuple(house.parts))
        log.info("stopping", drain_seconds=config.server.drain / 1000)


def _store_url(config: Config, stack: contextlib.AsyncExitStack) -> str:
    if config.redis.url is not None:
        return config.redis.url.get_secret_value()
    store = EmbeddedStore(Path(config.data_dir).resolve())
    url = store.attach()
    stack.callback(store.detach)
    return url


class _House:
    """The parts of one process over one client of the store."""

    def __init__(self, config: Config, redis: Store, url: str, consumer: str) -> None:
        self._config = config
        self._redis = redis
        self._url = url
        self._consumer = consumer
        self._keys = Keys(config.redis.prefix)
        self._log = Log(redis, self._keys.log)
        self._queues = Queues(redis, config)
        self.parts: list[asyncio.Task[None]] = []

    # --- workers ----------------------------------------------------------------------------------------------------

    async def start_workers(self, stack: contextlib.AsyncExitStack) -> None:
        stack.enter_context(Watchdog())
        queues = {queue: processors for queue, processors in resolve_all(self._config).items() if processors}
        elsewhere: dict[str, Elsewhere] = {}
        workers: list[Worker] = []
        warming: list[asyncio.Task[None]] = []
        stack.push_async_callback(_cancel, warming)
        for queue, processors in queues.items():
            settings = self._config.queues[queue]
            for processor in processors.values():
                if processor.path in elsewhere:
                    continue
                if processor.kind == "isolated":
                    # More children than cores would only share them.
                    pool = IsolatedPool(processor, self._config, min(settings.concurrency, os.cpu_count() or 1))
                    elsewhere[processor.path] = pool
                    stack.push_async_callback(pool.close)
                    warming.append(asyncio.create_task(_warm(pool, processor.name)))
                elif processor.kind == "push":
                    elsewhere[processor.path] = await self._pushed(processor, stack)
            runner = Runner(processors, elsewhere, concurrency=settings.concurrency)
            stack.callback(runner.close)
            workers.append(Worker(self._redis, self._queues.keys(queue), settings, runner, log_key=self._keys.log, name=self._consumer))
        tasks = [asyncio.create_task(worker.run(), name=f"worker {queue}") for queue, worker in zip(queues, workers, strict=True)]
        self.parts += tasks

        async def drain() -> None:
            ends = await asyncio.gather(*(worker.stop(self._config.server.drain / 1000) for worker in workers), return_exceptions=True)
            for error in ends:
                if isinstance(error, Exception):
                    # One queue's mistake must not cut short the drain of the others.
                    log.error("drain failed", error=repr(error))
            if tasks:
                await asyncio.wait(tasks, timeout=HAND_BACK_SECONDS)

        stack.push_async_callback(drain)
        log.info("working", queues=list(queues))

    async def _pushed(self, processor: Processor, stack: contextlib.AsyncExitStack) -> PushProcessor:
        assert self._config.push.secret, "the registry has asked for it"
        try:
            key = key_of(self._config.push.secret.get_secret_value())
        except ValueError as error:
            raise ConfigError(f"push.secret: {error}") from error
        return PushProcessor(
            processor.path,
            await stack.enter_async_context(Sender(Guard(allowed_networks(self._config)))),
            self._callbacks(),
            self._links(),
            key=key,
            timeout=self._config.push.timeout,
            callback_timeout=self._config.push.callback_timeout,
        )

    def _callbacks(self) -> Callbacks:
        return Callbacks(self._redis, prefix=self._config.redis.prefix, bull_prefix=self._config.bullmq.prefix)

    def _links(self) -> Links:
        server = self._config.server
        return Links(server.public_url or f"http://{server.host}:{server.port}", self._encryption_keys())

    def _encryption_keys(self) -> list[bytes]:
        return [base64.b64decode(key.get_secret_value()) for key in self._config.encryption_keys]

    # --- API, engine, webhooks --------------------------------------------------------------------------------------

    async def start_rest(self, parts: tuple[Part, ...], stack: contextlib.AsyncExitStack) -> int | None:
        definitions = Definitions(self._redis, self._keys, compile_all(self._config))
        transitions = Transitions(self._redis, self._keys, self._queues, definitions)
        bridge = Bridge(self._redis, self._keys, self._queues)
        await bridge.open()
        recovery = Recovery(self._redis, self._keys, self._log, self._queues, bridge, definitions, transitions, self._config.retention)
        webhooks = self._webhooks()
        stop = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []
        if "webhooks" in parts:
            await self._declare(webhooks)
            tasks += [asyncio.create_task(webhooks.run_fanout(stop)), asyncio.create_task(webhooks.run_dispatcher(stop))]
        if "engine" in parts:
            engine = Engine(Group(self._redis, self._keys.log, ENGINE_GROUP, self._consumer, types=TYPES), transitions)
            tasks.append(asyncio.create_task(engine.run(stop)))
            upkeep = [asyncio.create_task(part) for part in (Timers(self._redis, self._keys, transitions).run(), recovery.run())]
            stack.push_async_callback(_cancel, upkeep)
            if self._queues.external:
                upkeep += [asyncio.create_task(part) for part in (bridge.follow(), bridge.run())]
                log.info("following foreign workers", queues=list(self._queues.external))

        async def drain() -> None:
            stop.set()
            if tasks:
                await asyncio.wait(tasks, timeout=self._config.server.drain / 1000)

        self.parts += tasks
        stack.push_async_callback(drain)
        if "api" not in parts:
            return None
        runs = Runs(self._redis, self._keys, self._queues, definitions, transitions)
        storage = Storage(self._config.storage.url, base=Path(self._config.folder))
        services = Services(
            config=self._config,
            redis=self._redis,
            keys=self._keys,
            queues=self._queues,
            runs=runs,
            log=self._log,
            memory=Memory(self._redis),
            storage=storage,
            callbacks=self._callbacks(),
            links=self._links(),
            event_types=EventTypes(self._redis, self._keys, strict=self._config.events.strict),
            webhooks=webhooks,
            authenticator=Authenticator(self._config.auth),
            matches=webhooks.matches,
            ready=lambda: self._ready(recovery, webhooks),
        )
        stack.push_async_callback(_cancel, [asyncio.create_task(uploads.keep_sweeping(services))])
        return await _serve(create_app(services), self._config, stack)

    def _webhooks(self) -> Webhooks:
        settings = self._config.webhooks
        try:
            return Webhooks(
                redis=self._redis,
                prefix=self._keys.webhooks,
                log=self._group("webhooks"),
                publish=Publisher(self._log, self._queues, settings.notify, prefix=self._config.redis.prefix),
                history=History(self._redis, self._keys, self._log, "webhooks"),
                filters=compile_filter,
                encryption_keys=self._encryption_keys(),
                allow_networks=allowed_networks(self._config),
                schedule=settings.schedule,
                retention=self._config.retention.deliveries,
                drain=self._config.server.drain,
                disable_after=settings.disable_after or 0,
            )
        except WebhookError as error:
            raise ConfigError(str(error)) from error

    async def _declare(self, webhooks: Webhooks) -> None:
        """Make the endpoints of config.yaml what it says now."""
        try:
            await webhooks.declare(declared(self._config))
        except WebhookError as error:
            raise ConfigError(f"webhooks.endpoints: {error}") from error

    def _group(self, group: str) -> Group:
        return Group(self._redis, self._keys.log, group, self._consumer)

    async def _ready(self, recovery: Recovery, webhooks: Webhooks) -> dict[str, Any]:
        """Which part is behind and by how long (ms)."""
        behind = await self._log.behind(now_ms())
        parts: dict[str, Any] = {group: {"behindMs": age, "ok": age < BEHIND_MS} for group, age in behind.items()}
        warnings = await connection.check(self._redis, owner=self._config.redis.prefix, bull_prefix=self._config.bullmq.prefix)
        parts["store"] = {"ok": True, "warnings": warnings}
        health = await webhooks.health()
        parts["deliveries"] = {"behindMs": health["lagMs"], "ok": health["lagMs"] < BEHIND_MS}
        parts["secrets"] = {"ok": True, "warnings": await webhooks.seals.warnings()}
        if recovery.held_by:
            parts["log"] = {"ok": True, "heldBy": recovery.held_by}
        return {"ok": all(part["ok"] for part in parts.values()), "parts": parts}


async def _serve(app: web.Application, config: Config, stack: contextlib.AsyncExitStack) -> int:
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


async def _warm(pool: IsolatedPool, name: str) -> None:
    """Start a child before its first job asks for one; what is missing in it is said now rather than then."""
    try:
        await pool.warm()
    except AttemptFailed as error:
        log.error("processor cannot start", processor=name, reason=error.message)


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
