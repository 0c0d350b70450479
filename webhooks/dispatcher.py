"""The dispatcher: claims what is due, sends it concurrently, and hands what came of it to the settler."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from webhooks.backoff import Verdict, decide
from webhooks.directory import Directory
from webhooks.endpoints import Endpoints
from webhooks.errors import NotFound, WebhookError
from webhooks.mailbox import Claim, Mailbox, Settlement, released
from webhooks.model import Endpoint
from webhooks.notices import about
from webhooks.outbox import Outbox
from webhooks.requests import Requests
from webhooks.sender import Outcome, Request, Sender
from webhooks.settler import Settler
from webhooks.stubborn import STORE_ERRORS, Pause
from webhooks.tally import Tally

CAPACITY = 2_000
"""Attempts under way in one process: room for two hundred endpoints that hang with ten each, until their breakers open, before others wait.

One that waits costs a socket and some 10 KiB, with TLS more. Retries have half of it at most: however many hang again, fresh deliveries have
the other half.
"""
PER_CLAIM = 100
LEAST = 16
"""Of so few no part is worth a script of its own."""
HAND_BACK_SECONDS = 1.0
LONGEST_SLEEP = 1.0
"""Seconds; the marker in the store wakes us earlier, this is for one that was lost."""
log = structlog.get_logger(__name__)


def part_of(width: int) -> int:
    """How much to claim where so many can be under way: half of it. While one half is recorded the other is sent; all of it would wait together."""
    return min(max(width // 2, LEAST), PER_CLAIM)


class Dispatcher:
    def __init__(
        self,
        mailbox: Mailbox,
        directory: Directory,
        endpoints: Endpoints,
        sender: Sender,
        outbox: Outbox,
        schedule: Sequence[int],
        clock: Callable[[], int],
        *,
        tally: Tally | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        self._mailbox = mailbox
        self._directory = directory
        self._requests = Requests(endpoints)
        self._sender = sender
        self._settler = Settler(mailbox, outbox, clock, self._settled)
        self._schedule = schedule
        self._clock = clock
        self._tally = tally or Tally()
        self._capacity = capacity
        self._sending: dict[asyncio.Task[None], Claim] = {}
        self._unsettled = 0
        """Claimed and not yet settled: what the capacity is counted by."""
        self._retries = 0
        """Those of them that are retries."""
        self._freed = asyncio.Event()
        self._claimed_at: float | None = None
        self._width = 0
        """How many can be under way, as far as is known: as many as were when a claim got less than it asked for, or more."""

    async def run(self, stop: asyncio.Event, *, drain: float) -> None:
        """Deliver until told to stop; then finish what is under way within `drain` seconds and hand back the rest."""
        settler = asyncio.create_task(self._settler.run(), name="webhooks settle")
        try:
            await self._claim_until(stop)
            await self._drain(drain)
        finally:
            settler.cancel()
            for task in self._sending:
                task.cancel()
            await asyncio.gather(settler, *self._sending, return_exceptions=True)

    @property
    def claim_age(self) -> int | None:
        """ms since the last successful claim of this process, also of nothing; None: there was none."""
        return None if self._claimed_at is None else round((time.monotonic() - self._claimed_at) * 1000)

    # --- claim ------------------------------------------------------------------------------------------------------

    async def _claim_until(self, stop: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait())
        pause = Pause()
        self._mailbox.claiming = True
        try:
            while not stop.is_set():
                room = self._capacity - self._unsettled
                if room <= 0:
                    await self._mailbox.rest()
                    self._freed.clear()
                    await _first(self._freed.wait(), stopped)
                    continue
                try:
                    sleep = await self._claim(min(room, part_of(self._width)))
                    pause.reset()
                    if sleep > 0:
                        await _first(self._mailbox.wait(sleep), stopped)
                except STORE_ERRORS as error:
                    log.warning("deliveries wait for the store", error=str(error))
                    await pause.wait(stop)
                except Exception:
                    # A mistake of ours must not end all deliveries; what was claimed comes back when its lease runs out.
                    log.exception("a claim broke")
                    await pause.wait(stop)
        finally:
            self._mailbox.claiming = False
            stopped.cancel()
            await self._mailbox.rest()

    async def _claim(self, limit: int) -> float:
        """Claim once and begin to send; returns for how many seconds there is nothing more to do."""
        now = self._clock()
        room = self._capacity // 2 - self._retries
        batch = await self._mailbox.claim(limit, now, retries=max(room, 0))
        self._claimed_at = time.monotonic()
        self._count(batch.claims, 1)
        self._width = self._unsettled if len(batch.claims) < limit else max(self._width, self._unsettled)
        if batch.version != self._directory.version:
            try:
                self._requests.forget(await self._directory.refresh())
            except BaseException:
                # What was claimed comes back when its lease runs out.
                self._count(batch.claims, -1)
                raise
        for claim in batch.claims:
            task = asyncio.create_task(self._deliver(claim))
            self._sending[task] = claim
            task.add_done_callback(self._sent)
        if batch.next_due is not None and batch.next_due <= now + 1 and batch.claims:
            return 0.0
        return LONGEST_SLEEP if batch.next_due is None else min(max(batch.next_due - now, 1) / 1000, LONGEST_SLEEP)

    # --- send -------------------------------------------------------------------------------------------------------

    async def _deliver(self, claim: Claim) -> None:
        now = self._clock()
        endpoint = self._directory.get(claim.endpoint)
        request: Request | None = None
        try:
            if endpoint is None or not claim.body:
                raise NotFound("the endpoint was deleted, or its event is no longer kept")
            request = self._requests.of(claim, endpoint, now)
            outcome = await self._sender.send(request, now)
        except WebhookError as error:
            outcome = Outcome(duration=0, error=error.message)
        except Exception:
            # A mistake of ours is a failed attempt like any other, so that the schedule slows its repetition down and ends it.
            log.exception("an attempt broke", delivery=claim.id, endpoint=claim.endpoint)
            outcome, request = Outcome(duration=self._clock() - now, error="the sender failed; its log says why"), None
        self._record(claim, endpoint, outcome, now, sent=request is not None)

    # --- settle -----------------------------------------------------------------------------------------------------

    def _record(self, claim: Claim, endpoint: Endpoint | None, outcome: Outcome, now: int, *, sent: bool) -> None:
        decision = decide(
            status=outcome.verdict_status,
            retry_after=outcome.retry_after,
            directive=outcome.webhook_delivery,
            tried=claim.tried + 1,
            schedule=(endpoint and endpoint.schedule) or self._schedule,
            now=self._clock(),
            random=random.random(),
        )
        failed = decision.verdict is not Verdict.DELIVERED
        settlement = Settlement(
            claim=claim,
            verdict=decision.verdict,
            attempt=outcome.record(now),
            due=decision.due,
            hold_until=decision.hold_until,
            endpoint_version=endpoint.version if endpoint else 0,
            receiver=decision.receiver if sent else None,
            refusal=decision.refusal,
            off=decision.off,
            reason=decision.reason,
            about=about(claim, outcome) if failed or decision.off else None,
        )
        self._tally.count(claim.endpoint, delivered=not failed, exhausted=decision.verdict is Verdict.EXHAUSTED, duration=outcome.duration, at=now)
        # The record says as much of a success.
        if failed:
            log.info(
                "attempted", delivery=claim.id, endpoint=claim.endpoint, eventId=claim.event, type=claim.type, runId=claim.run,
                status=outcome.status, error=outcome.error, ms=outcome.duration, outcome=decision.verdict.value,
            )  # fmt: skip
        self._settler.put(settlement)

    def _sent(self, task: asyncio.Task[None]) -> None:
        claim = self._sending.pop(task)
        if task.cancelled():
            self._settler.put(released(claim))
        elif error := task.exception():
            # Its outcome could not even be made: the lease is left to run out.
            log.error("an outcome broke", delivery=claim.id, endpoint=claim.endpoint, exc_info=error)
            self._count([claim], -1)
            self._freed.set()

    async def _settled(self, claims: Sequence[Claim]) -> None:
        crowded = self._retries >= self._capacity // 2
        self._count(claims, -1)
        self._freed.set()
        if crowded and self._retries < self._capacity // 2:
            # The last claim was told nothing of retries, for which there is room again.
            with contextlib.suppress(*STORE_ERRORS):
                await self._mailbox.wake()

    def _count(self, claims: Iterable[Claim], by: int) -> None:
        for claim in claims:
            self._unsettled += by
            self._retries += by * claim.retry

    async def _drain(self, seconds: float) -> None:
        """Let attempts end, then hand back the rest; of the time for both, a second at most is kept for the latter."""
        deadline = time.monotonic() + seconds
        if self._sending:
            await asyncio.wait(self._sending, timeout=max(seconds - HAND_BACK_SECONDS, seconds / 2))
        for task in list(self._sending):
            task.cancel()
        # What could not be handed back in time comes back when its lease runs out.
        grace = max(deadline - time.monotonic(), HAND_BACK_SECONDS)
        try:
            async with asyncio.timeout(grace):
                while self._unsettled > 0:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            log.warning("stopped with outcomes unrecorded", count=self._unsettled)


async def _first(waiting: Awaitable[object], stopped: "asyncio.Task[bool]") -> None:
    """Wait for something, but no longer than until the stop; raises what it raises."""
    task = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
