"""The whole of this package behind one object: what an API and a composition root need."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog

from webhooks.backoff import DEFAULT_SCHEDULE_MS
from webhooks.candidates import Candidates
from webhooks.deliveries import Deliveries
from webhooks.directory import Directory
from webhooks.dispatcher import Dispatcher
from webhooks.endpoints import Endpoints
from webhooks.errors import InvalidInput
from webhooks.fanout import Fanout
from webhooks.guard import Guard
from webhooks.inputs import Declared, check_schedule
from webhooks.inquiry import Inquiry
from webhooks.keyring import Keyring
from webhooks.keys import Keys
from webhooks.mailbox import Mailbox
from webhooks.matching import matches
from webhooks.metrics import Metrics
from webhooks.outbox import Outbox
from webhooks.ports import Compile, EventLog, History, Publish
from webhooks.presence import Presence
from webhooks.probe import Probe
from webhooks.replay import Replay
from webhooks.replaying import Replaying
from webhooks.replays import Replays
from webhooks.scripts import Store
from webhooks.seals import Seals
from webhooks.selecting import Filters
from webhooks.sender import Sender
from webhooks.stats import Statistics, Stats
from webhooks.stubborn import STORE_ERRORS
from webhooks.tally import Tally
from webhooks.undelivered import Overdue
from webhooks.vault import Vault

UPKEEP_SECONDS = 30.0
RETENTION_MS = 30 * 24 * 3_600_000
DRAIN_MS = 20_000
DISABLE_AFTER_MS = 5 * 24 * 3_600_000
log = structlog.get_logger(__name__)


class Webhooks:
    """Endpoints, deliveries and replay for an API; the two loops for the processes that do the work."""

    def __init__(
        self,
        *,
        redis: Store,
        prefix: str = "hookline:webhooks",
        log: EventLog | None = None,
        publish: Publish | None = None,
        history: History | None = None,
        filters: Compile | None = None,
        encryption_keys: Sequence[bytes],
        allow_networks: Iterable[str] = (),
        schedule: Sequence[int] = DEFAULT_SCHEDULE_MS,
        retention: int = RETENTION_MS,
        drain: int = DRAIN_MS,
        disable_after: int = DISABLE_AFTER_MS,
        clock: Callable[[], int] | None = None,
        guard: Guard | None = None,
    ) -> None:
        """`redis` decodes responses. `log` and `publish` are for `run_fanout` and `run_dispatcher` only; without `filters`
        an endpoint can have none, without `history` nobody is told what is missing. Times are in ms:
        `schedule` before each attempt, `retention` after a delivery's end, `drain` for what is under way at the stop,
        `disable_after` without a success until an endpoint is disabled (0: never).

        Raises InvalidInput for keys, networks or a schedule that cannot be used.
        """
        try:
            self._schedule = check_schedule(schedule)
        except ValueError as error:
            raise InvalidInput(f"webhooks.schedule: {error}") from error
        self._redis = redis
        self._clock = clock or now_ms
        self._keys = Keys(prefix)
        self._log = log
        self._drain = drain
        self._retention = retention
        self._filters = Filters(filters)
        self.guard = guard or Guard(allow_networks)
        keyring = Keyring(Vault(encryption_keys))
        self.endpoints = Endpoints(redis, self._keys, self.guard, keyring, self._filters, self._clock)
        self.seals = Seals(redis, self._keys, keyring, self._clock)
        self.deliveries = Deliveries(redis, self._keys, retention, self._clock)
        self.replay = Replay(redis, self._keys, self.deliveries, self._clock)
        candidates = Candidates(redis, self._keys, self.deliveries, history, self._filters)
        self.replays = Replays(redis, self._keys, self.endpoints, candidates, self._clock)
        self.replaying = Replaying(redis, self._keys, self.replays, candidates, self.endpoints, self._clock)
        self.inquiry = Inquiry(redis, self._keys, self.deliveries, history, self._filters, self._clock)
        self.undelivered = Overdue(self.deliveries.listing, self.inquiry, self._clock)
        self.statistics = Statistics(redis, self._keys, self._clock)
        self.metrics = Metrics(redis, self._keys, self.statistics)
        self.probe = Probe(self.endpoints, self.guard, self._clock)
        self._mailbox = Mailbox(redis, self._keys, disable_after=disable_after)
        self._outbox = Outbox(redis, self._keys, publish)
        self._dispatcher: Dispatcher | None = None

    @staticmethod
    def matches(patterns: Iterable[str], type: str) -> bool:
        """Whether any of the patterns (`job.*`) matches an event's type."""
        return matches(patterns, type)

    async def declare(self, endpoints: Sequence[Declared]) -> None:
        """Make the endpoints of config.yaml what it says; see `Endpoints.declare`."""
        await self.endpoints.declare(endpoints)

    async def run_fanout(self, stop: asyncio.Event) -> None:
        """Turn events into deliveries until told to stop."""
        if self._log is None:
            raise InvalidInput("the fan-out needs the event log")
        directory = Directory(self._redis, self._keys)
        await Fanout(self._redis, self._keys, self._log, directory, self._filters, self._schedule, self._clock).run(stop)

    async def run_dispatcher(self, stop: asyncio.Event) -> None:
        """Send deliveries until told to stop, then finish those under way; also retention and the events about deliveries."""
        # Not earlier: who made this object may have forked since.
        presence = Presence(self._redis, self._keys, self._clock)
        self._mailbox.dispatcher = presence.id
        async with Sender(self.guard) as sender:
            directory, tally = Directory(self._redis, self._keys), Tally()
            self._dispatcher = Dispatcher(self._mailbox, directory, self.endpoints, sender, self._outbox, self._schedule, self._clock, tally=tally)
            helpers = [
                asyncio.create_task(presence.run()),
                asyncio.create_task(self._outbox.run(stop)),
                asyncio.create_task(self._upkeep(stop)),
                asyncio.create_task(self.replaying.run(stop)),
                asyncio.create_task(self.statistics.run(tally, stop)),
            ]
            try:
                await self._dispatcher.run(stop, drain=self._drain / 1000)
            finally:
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
                await presence.leave()
                await self.statistics.flush(tally)

    async def stats(self, endpoint: str) -> Stats:
        """How an endpoint fares. Raises NotFound."""
        await self.endpoints.get(endpoint)
        return await self.statistics.of(endpoint)

    async def health(self) -> dict[str, Any]:
        """`lagMs`: how long a delivery that could be sent has been waiting; `lastClaimAgeMs`: null where this process sends none."""
        claim_age = self._dispatcher.claim_age if self._dispatcher else None
        return {"lagMs": await self._mailbox.longest_waiting(self._clock()), "lastClaimAgeMs": claim_age}

    async def _upkeep(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                while await self.deliveries.sweep():
                    pass
                await self.endpoints.bury()
                await self.replays.forget(self._retention)
                if renewed := await self.seals.renew():
                    log.info("secrets are encrypted with the current key now", endpoints=renewed)
            except STORE_ERRORS as error:
                log.warning("upkeep waits for the store", error=str(error))
            except Exception:
                log.exception("upkeep broke; trying again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(UPKEEP_SECONDS):
                    await stop.wait()


def now_ms() -> int:
    return time.time_ns() // 1_000_000
