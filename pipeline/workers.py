"""The workers of one process: a worker for each queue, and what its processors run in."""

import asyncio
import contextlib
import os

import structlog

from pipeline.declared import allowed_networks
from pipeline.errors import AttemptFailed, ConfigError
from pipeline.house import House, cancel
from pipeline.jobs.isolation import IsolatedPool
from pipeline.jobs.registry import Processor, resolve_all
from pipeline.jobs.runner import Elsewhere, Runner
from pipeline.jobs.watchdog import Watchdog
from pipeline.jobs.worker import Worker
from pipeline.processors.push import PushProcessor
from webhooks import Guard
from webhooks.sender import Sender
from webhooks.signing import key_of

HAND_BACK_SECONDS = 3.0
"""For jobs that outlived the drain deadline: to be handed back to their queues."""
log = structlog.get_logger(__name__)


async def start_workers(house: House, stack: contextlib.AsyncExitStack) -> None:
    stack.enter_context(Watchdog())
    queues = {queue: processors for queue, processors in resolve_all(house.config).items() if processors}
    elsewhere: dict[str, Elsewhere] = {}
    workers: list[Worker] = []
    warming: list[asyncio.Task[None]] = []
    stack.push_async_callback(cancel, warming)
    for queue, processors in queues.items():
        settings = house.config.queues[queue]
        for processor in processors.values():
            if processor.path in elsewhere:
                continue
            if processor.kind == "isolated":
                # More children than cores would only share them.
                pool = IsolatedPool(processor, house.config, min(settings.concurrency, os.cpu_count() or 1))
                elsewhere[processor.path] = pool
                stack.push_async_callback(pool.close)
                warming.append(asyncio.create_task(_warm(pool, processor.name)))
            elif processor.kind == "push":
                elsewhere[processor.path] = await _pushed(house, processor, stack)
        runner = Runner(processors, elsewhere, concurrency=settings.concurrency)
        stack.callback(runner.close)
        workers.append(Worker(house.redis, house.queues.keys(queue), settings, runner, log_key=house.keys.log, name=house.consumer))
    tasks = [asyncio.create_task(worker.run(), name=f"worker {queue}") for queue, worker in zip(queues, workers, strict=True)]
    house.parts += tasks

    async def drain() -> None:
        ends = await asyncio.gather(*(worker.stop(house.config.server.drain / 1000) for worker in workers), return_exceptions=True)
        for error in ends:
            if isinstance(error, Exception):
                # One queue's mistake must not cut short the drain of the others.
                log.error("drain failed", error=repr(error))
        if tasks:
            await asyncio.wait(tasks, timeout=HAND_BACK_SECONDS)

    stack.push_async_callback(drain)
    log.info("working", queues=list(queues))


async def _pushed(house: House, processor: Processor, stack: contextlib.AsyncExitStack) -> PushProcessor:
    assert house.config.push.secret, "the registry has asked for it"
    try:
        key = key_of(house.config.push.secret.get_secret_value())
    except ValueError as error:
        raise ConfigError(f"push.secret: {error}") from error
    return PushProcessor(
        processor.path,
        await stack.enter_async_context(Sender(Guard(allowed_networks(house.config)))),
        house.callbacks(),
        house.links(),
        key=key,
        timeout=house.config.push.timeout,
        callback_timeout=house.config.push.callback_timeout,
    )


async def _warm(pool: IsolatedPool, name: str) -> None:
    """Start a child before its first job asks for one; what is missing in it is said now rather than then."""
    try:
        await pool.warm()
    except AttemptFailed as error:
        log.error("processor cannot start", processor=name, reason=error.message)
