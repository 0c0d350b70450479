"""Claims once as a dispatcher does, in a process of its own that says its dispatcher's id and then waits to be killed: `<store> <ms> <limit>`."""

import asyncio
import sys

from pipeline.store.connection import connect
from tests.support.hooks import Clock, Hooks
from webhooks.mailbox import Mailbox
from webhooks.presence import Presence


async def main(url: str, now: str, limit: str) -> None:
    clock = Clock()
    clock.now = int(now)
    hooks = Hooks(connect(url), clock)
    presence = Presence(hooks.redis, hooks.keys, clock)
    await presence.beat()
    await Mailbox(hooks.redis, hooks.keys, dispatcher=presence.id).claim(int(limit), clock.now)
    print(presence.id, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
