"""The loop that does what replays ask for: in steps, each all or nothing, at the rate that was asked for, and never far ahead of the sending."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgpack
import orjson
import structlog

from webhooks.candidates import END, Candidate, Candidates
from webhooks.endpoints import Endpoints
from webhooks.errors import NotFound
from webhooks.keys import Keys
from webhooks.model import Endpoint, EndpointStatus, run_of
from webhooks.ordering import line_of
from webhooks.pacing import allowed, earliest, spend
from webhooks.replays import ReplayRecord, Replays, ReplayStatus
from webhooks.scripts import Script, Store
from webhooks.stubborn import STORE_ERRORS, Pause

PER_STEP = 200
AHEAD = 1_000
"""How much may be due at an endpoint before a replay waits: what it put there can no longer be cancelled, and is in the way of others' retries."""
IDLE_SECONDS = 1.0
WAIT_SECONDS = 0.1
log = structlog.get_logger(__name__)


class Replaying:
    def __init__(self, redis: Store, keys: Keys, replays: Replays, candidates: Candidates, endpoints: Endpoints, clock: Callable[[], int]) -> None:
        self._redis = redis
        self._keys = keys
        self._replays = replays
        self._candidates = candidates
        self._endpoints = endpoints
        self._clock = clock
        self._script = Script(redis, "replays")

    async def run(self, stop: asyncio.Event) -> None:
        """Step each running replay in turn until told to stop; several processes may, for a step is done once."""
        pause = Pause()
        while not stop.is_set():
            seconds = IDLE_SECONDS
            try:
                for replay in await self._redis.hvals(self._keys.replaying):
                    seconds = min(seconds, await self.step(replay))
                pause.reset()
            except STORE_ERRORS as error:
                log.warning("replays wait for the store", error=str(error))
                await pause.wait(stop)
                continue
            except Exception:
                log.exception("a replay broke; trying again")
                await pause.wait(stop)
                continue
            if seconds > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await stop.wait()

    async def step(self, replay: str) -> float:
        """Do the next part of a replay; returns for how many seconds there is nothing more to do."""
        try:
            state = await self._replays.get(replay)
            endpoint = await self._endpoints.get(state.asked.endpoint)
        except NotFound:
            await self._script([self._keys.prefix], [self._clock(), "cancel", replay, "the endpoint was deleted"])
            return 0.0
        if state.status is not ReplayStatus.RUNNING:
            return IDLE_SECONDS
        now = self._clock()
        room, wait = await self._room(state, endpoint, now)
        if room <= 0:
            return wait
        found = await self._candidates.step(state.asked, endpoint, state.position, room)
        paid = spend(state.asked.rate, state.paid, now, len(found.found)) if state.asked.rate and found.found else state.paid
        what = {
            "from": state.position,
            "to": found.position,
            "paid": repr(paid),
            "records": [candidate.delivery for candidate in found.found if candidate.source is None],
            "events": [_packed(candidate, endpoint) for candidate in found.found if candidate.source is not None],
        }
        packed: bytes = msgpack.packb(what, use_bin_type=False)
        await self._script([self._keys.prefix], [now, "step", replay, packed])
        if found.position == END:
            log.info("replayed", replay=replay, endpoint=endpoint.id)
        return 0.0

    async def _room(self, state: ReplayRecord, endpoint: Endpoint, now: int) -> tuple[int, float]:
        """How many may be sent again now; where none may, for how many seconds to wait."""
        if endpoint.status is EndpointStatus.DISABLED:
            return 0, IDLE_SECONDS
        due = int(await self._redis.zcount(self._keys.retries(endpoint.id), "-inf", now))
        room = min(PER_STEP, AHEAD - due)
        if room <= 0:
            return 0, WAIT_SECONDS
        rate = state.asked.rate
        if rate is None:
            return room, 0.0
        return min(room, allowed(rate, state.paid, now)), min(max(earliest(rate, state.paid) - now, 1) / 1000, IDLE_SECONDS)


def _packed(candidate: Candidate, endpoint: Endpoint) -> dict[str, Any]:
    event = candidate.source
    assert event
    line = line_of(endpoint.ordering, event)
    return {
        **({"line": line} if line else {}),
        "id": event.id,
        "type": event.type,
        "run": run_of(event.data) or "",
        "body": orjson.dumps(event.document()),
        "delivery": candidate.delivery,
    }
