"""The settler: gathers outcomes and records them in batches, however long the store is away."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from webhooks.mailbox import Claim, Mailbox, Settlement
from webhooks.outbox import Outbox
from webhooks.stubborn import STORE_ERRORS, Pause

PER_SETTLE = 200
log = structlog.get_logger(__name__)


class Settler:
    def __init__(self, mailbox: Mailbox, outbox: Outbox, clock: Callable[[], int], settled: Callable[[Sequence[Claim]], Awaitable[None]]) -> None:
        """`settled` is told which claims are over."""
        self._mailbox = mailbox
        self._outbox = outbox
        self._clock = clock
        self._settled = settled
        self._outcomes: list[Settlement] = []
        self._something = asyncio.Event()

    def put(self, settlement: Settlement) -> None:
        self._outcomes.append(settlement)
        self._something.set()

    async def run(self) -> None:
        """Record outcomes until cancelled."""
        pause = Pause()
        while True:
            await self._something.wait()
            self._something.clear()
            while self._outcomes:
                batch = self._outcomes[:PER_SETTLE]
                try:
                    await self._mailbox.settle(batch, self._clock())
                except STORE_ERRORS as error:
                    log.warning("outcomes wait for the store", waiting=len(self._outcomes), error=str(error))
                    await pause.wait()
                    continue
                except Exception:
                    log.exception("a batch of outcomes broke; going on one by one")
                    await self._settle_each(batch)
                pause.reset()
                del self._outcomes[: len(batch)]
                if any(one.about for one in batch):
                    self._outbox.nudge()
                await self._settled([one.claim for one in batch])

    async def _settle_each(self, batch: Sequence[Settlement]) -> None:
        """Leave out only what cannot be recorded: its lease runs out."""
        for one in batch:
            try:
                await self._mailbox.settle([one], self._clock())
            except Exception:
                log.exception("an outcome cannot be recorded", delivery=one.claim.id, endpoint=one.claim.endpoint)
