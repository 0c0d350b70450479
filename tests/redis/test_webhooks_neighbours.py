"""A backlog of retries that hang has its own part of a process; what one endpoint that hangs does to others is in tests/faults."""

import asyncio

from redis.asyncio import Redis

from tests.redis.test_webhooks_service import FAST, hooks_of
from tests.support.receiver import receiving
from webhooks.backoff import Verdict
from webhooks.dispatcher import Dispatcher
from webhooks.guard import Guard
from webhooks.mailbox import Settlement
from webhooks.sender import Sender


async def test_retries_that_hang_leave_half_of_a_process_to_what_is_fresh(redis: Redis) -> None:
    hooks = hooks_of(redis)
    async with receiving() as slow, receiving() as quick:
        slow.default = slow.hang
        await hooks.endpoint(slow.url, types=["a"], concurrency=100)
        await hooks.endpoint(quick.url, types=["b"])
        for n in range(100):
            await hooks.event("a", n=n)
        await hooks.spread()
        failed = (await hooks.mailbox.claim(100, hooks.clock())).claims
        outcomes = [Settlement(claim=one, verdict=Verdict.RETRY, attempt={"at": 1}, due=hooks.clock()) for one in failed]
        await hooks.mailbox.settle(outcomes, hooks.clock())
        async with Sender(Guard(["127.0.0.0/8"])) as sender:
            dispatcher = Dispatcher(
                hooks.mailbox, hooks.directory, hooks.webhooks.endpoints, sender, hooks.webhooks._outbox, FAST, hooks.clock, capacity=20
            )
            stop = asyncio.Event()
            running = asyncio.create_task(dispatcher.run(stop, drain=5))
            for _ in range(10):
                await slow.next()
            for n in range(200, 240):
                await hooks.event("b", n=n)
            await hooks.spread()
            for _ in range(40):
                await quick.next()
            assert slow.under_way == slow.most_at_once == 10
            slow.let_go.set()
            # There is room again, and the rest goes on.
            for _ in range(90):
                await slow.next()
            stop.set()
            await running
