"""Forwards events to a local URL as webhooks would arrive there, signed, and keeps count of what came of each."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from pipeline.client import why_unreachable
from webhooks.signing import key_of, signature_header

AT_ONCE = 10
"""Requests under way: somebody who stands at a breakpoint must not hold up everything else."""
PATIENCE = 30.0
"""Seconds for one request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forwarded:
    """One event, and how the local receiver took it."""

    event: Mapping[str, Any]
    status: int | None
    error: str | None
    """None where it was taken."""
    ms: int

    @property
    def ok(self) -> bool:
        return self.error is None


@dataclass(slots=True)
class Tally:
    """What passed, by type."""

    taken: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def count(self, one: Forwarded) -> None:
        (self.taken if one.ok else self.refused)[one.event["type"]] += 1

    @property
    def total(self) -> int:
        return self.taken.total() + self.refused.total()


class Forwarder:
    """Use it as `async with`; `told` is called with each outcome, as they come."""

    def __init__(self, url: str, secret: str, told: Callable[[Forwarded], None]) -> None:
        """Raises ValueError for a secret that is none."""
        self._url = url
        self._key = key_of(secret)
        self._told = told
        self.tally = Tally()

    async def forward(self, events: AsyncIterator[Mapping[str, Any]], count: int | None) -> None:
        """Each event of the stream, up to `count` of them; returns when the stream ends and all were answered."""
        room = asyncio.Semaphore(AT_ONCE)
        sending: set[asyncio.Task[None]] = set()

        async def send(event: Mapping[str, Any]) -> None:
            try:
                one = await self._send(session, event)
            finally:
                room.release()
            self.tally.count(one)
            self._told(one)

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
            begun = 0
            try:
                async for event in events:
                    await room.acquire()
                    task = asyncio.create_task(send(event))
                    sending.add(task)
                    task.add_done_callback(sending.discard)
                    begun += 1
                    if begun == count:
                        break
            finally:
                await asyncio.gather(*sending)

    async def _send(self, session: aiohttp.ClientSession, event: Mapping[str, Any]) -> Forwarded:
        body = orjson.dumps({"type": event["type"], "timestamp": event["timestamp"], "data": event["data"]})
        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "Hookline-Listen/1",
            "webhook-id": event["id"],
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature_header([self._key], event["id"], timestamp, body),
        }
        began = time.perf_counter()
        status, error = None, None
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
                await response.read()
            if not 200 <= status <= 299:
                error = "redirects are not followed" if 300 <= status <= 399 else "not a 2xx: an endpoint's delivery would be tried again"
        except TimeoutError:
            error = f"no answer within {PATIENCE:g} s"
        except (aiohttp.ClientError, OSError) as failure:
            error = why_unreachable(failure)
        return Forwarded(event=event, status=status, error=error, ms=round((time.perf_counter() - began) * 1000))
