"""One request to a receiver, bounded in every direction: seconds, bytes, headers, redirects, addresses."""

import asyncio
import functools
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from webhooks.answer import MAX_ANSWER, Answer, Closed, ExchangeFailed
from webhooks.dialer import Dialer
from webhooks.errors import RefusedAddress
from webhooks.guard import Dial, Guard
from webhooks.phases import Phases, clock
from webhooks.pool import Pool
from webhooks.signing import Key, signature_header
from webhooks.target import Target

__all__ = ["KEPT", "MAX_ANSWER", "Outcome", "Request", "Sender"]

KEPT = 4 * 1024
"""Bytes of an answer that are recorded."""
USER_AGENT = "Hookline-Webhooks/1"
LINES = 11
"""Of a request's head, beside the endpoint's own headers."""
MAX_TARGETS = 10_000
"""URLs that are not read again for each attempt."""


# Not frozen, as is Outcome: each is made once per attempt, and freezing is most of what that costs.
@dataclass(kw_only=True, slots=True)
class Request:
    """What is sent where."""

    # Neither a key nor a header, nor a query that may be a password, goes into a repr.
    url: str = field(repr=False)
    event: str
    """Its id, and so the message's: the same on every attempt."""
    body: bytes
    keys: Sequence[Key] = field(repr=False)
    """What signs; several while a secret rotates, or with ed25519 beside HMAC."""
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    """Seconds for all of it."""
    trace: str
    """What belongs to one trace: the run's id, else the event's."""
    keep: int = KEPT
    """Bytes of the answer that the outcome holds."""


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What came of it."""

    duration: int
    """ms"""
    status: int | None = None
    error: str | None = None
    """None for a success."""
    retry_after: str | None = None
    response: str | None = None
    address: str | None = None
    """The IP address that was dialled last."""
    webhook_delivery: str | None = None
    """The header of this name: `disable` or `abort`, if it is one that we know."""
    phases: Phases | None = None
    """None where nothing was sent."""
    reused: bool | None = None
    """Whether it went over a connection that an earlier one had opened."""

    @property
    def verdict_status(self) -> int | None:
        """The status to decide by: a 2xx that did not end in time is no success."""
        return None if self.error and self.status is not None and self.status < 300 else self.status

    def record(self, at: int) -> dict[str, Any]:
        """The attempt that began then (ms), as `model.Attempt` is stored; its number is its place."""
        return {
            "at": at,
            "duration": self.duration,
            "status": self.status,
            "error": self.error,
            "response": self.response,
            "address": self.address,
            "phases": self.phases.document() if self.phases else None,
            "reused": self.reused,
        }


class Sender:
    """One client for all receivers, which keeps its connections; an async context manager."""

    def __init__(self, guard: Guard, *, dialer: Dialer | None = None) -> None:
        self._guard = guard
        self._dialer = dialer
        self._pool = Pool()
        self._target = functools.lru_cache(MAX_TARGETS)(lambda url: Target.of(guard.parse_url(url)))

    async def __aenter__(self) -> "Sender":
        self._dialer = self._dialer or Dialer(self._guard)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.close()
        if self._dialer:
            self._dialer.close()
        # Closed connections say goodbye in the loop's next turn.
        await asyncio.sleep(0)

    async def send(self, request: Request, now: int) -> Outcome:
        """Attempt a delivery at `now` (ms); whatever a receiver or the network does is an outcome, never an exception."""
        begun = clock()
        attempt = _Attempt()
        error = await self._attempt(request, now, attempt)
        attempt.phases.total = taken = clock() - begun
        answer = attempt.answer
        return Outcome(
            duration=round(taken * 1000),
            status=answer.status,
            # What a receiver wrote may have bytes that are no text, and would spoil the record.
            error=error.encode("utf-8", "replace").decode() if error else None,
            retry_after=answer.retry_after,
            webhook_delivery=answer.webhook_delivery,
            response=answer.text(request.keep),
            address=attempt.dial.address,
            phases=attempt.phases,
            reused=attempt.reused,
        )

    async def _attempt(self, request: Request, now: int, attempt: "_Attempt") -> str | None:
        """Returns why the attempt failed, or None."""
        answer = attempt.answer
        try:
            target = self._target(request.url)
            message = _message(request, target, now)
            await self._exchange(target, message, attempt, asyncio.get_running_loop().time() + request.timeout)
        except TimeoutError:
            if answer.status is not None:
                return f"answered {answer.status}, but the answer did not end within {request.timeout:g} s"
            return f"no answer within {request.timeout:g} s"
        except RefusedAddress as error:
            return error.message
        except ExchangeFailed as error:
            return str(error)
        assert answer.status is not None
        if 200 <= answer.status <= 299:
            return None
        if 300 <= answer.status <= 399:
            return f"answered {answer.status}: redirects are not followed; give the endpoint its final URL"
        return f"answered {answer.status}"

    async def _exchange(self, target: Target, message: bytes, attempt: "_Attempt", deadline: float) -> None:
        """Fill the answer. Raises RefusedAddress, ExchangeFailed or TimeoutError."""
        if connection := self._pool.take(target):
            attempt.reused, attempt.dial.address = True, connection.address
            try:
                await connection.exchange(message, attempt.answer, attempt.phases, deadline)
            except Closed:
                # It was idle, and its receiver ended it as we sent: no fault of either. Once more, over one of our own; if that
                # request arrived all the same, the receiver knows this one by its id.
                if attempt.phases.first_byte is not None:
                    raise
                attempt.reused, connection = False, None
        if connection is None:
            assert self._dialer, "use the sender as a context manager"
            async with asyncio.timeout_at(deadline):
                connection = await self._dialer.dial(target, attempt.phases, attempt.dial)
            attempt.dial.address = connection.address
            await connection.exchange(message, attempt.answer, attempt.phases, deadline)
        if attempt.answer.reusable:
            self._pool.give(target, connection)


class _Attempt:
    """One attempt as far as it has come."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.phases = Phases()
        self.dial = Dial()
        self.reused = False


def traceparent(trace: str, span: int) -> str:
    """W3C trace context: the same trace for all deliveries of a run, an own span for each attempt."""
    return f"00-{hashlib.blake2b(trace.encode(), digest_size=16).hexdigest()}-{span:016x}-01"


def _message(request: Request, target: Target, now: int) -> bytes:
    """The whole request as bytes. Raises ExchangeFailed where a header would become two."""
    timestamp = now // 1000
    # None of its own headers is one of ours: `inputs.py` refuses these.
    own = "".join([f"{name}: {value}\r\n" for name, value in request.headers.items()])
    head = (
        f"POST {target.path} HTTP/1.1\r\n"
        f"{own}"
        f"host: {target.authority}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(request.body)}\r\n"
        f"user-agent: {USER_AGENT}\r\n"
        # Nothing to decompress is the best defence; who compresses all the same is bounded in the answer.
        "accept-encoding: identity\r\n"
        f"webhook-id: {request.event}\r\n"
        f"webhook-timestamp: {timestamp}\r\n"
        f"webhook-signature: {signature_header(request.keys, request.event, timestamp, request.body)}\r\n"
        f"traceparent: {traceparent(request.trace, random.getrandbits(64))}\r\n"
        "\r\n"
    )
    lines = LINES + len(request.headers)
    if not head.count("\n") == head.count("\r") == lines or "\0" in head:
        raise ExchangeFailed("a header of this request has a line break in it")
    return head.encode() + request.body
