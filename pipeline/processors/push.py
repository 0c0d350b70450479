"""Push: a job is done by another service, asked by a signed POST; it answers at once, or says 202 and calls back."""

from typing import Any

import orjson

from pipeline.errors import AttemptFailed, PermanentFailure
from pipeline.jobs.attempt import Held
from pipeline.jobs.callbacks import Callbacks, Links, callback_id
from pipeline.jobs.calls import now_ms
from pipeline.jobs.model import Context, Job
from pipeline.units import format_duration, iso
from webhooks.sender import MAX_ANSWER, Outcome, Request, Sender

AGAIN = frozenset({408, 425, 429})
"""4xx that another attempt may cure; so may every 5xx and every failure of the network."""
EXCERPT = 200


class PushProcessor:
    """Does the jobs of one URL."""

    def __init__(self, url: str, sender: Sender, callbacks: Callbacks, links: Links, *, key: bytes, timeout: int, callback_timeout: int) -> None:
        """`key` signs (Standard Webhooks), `timeout` is for the whole request and `callback_timeout` for an answer after 202; both in ms."""
        self._url = url
        self._sender = sender
        self._callbacks = callbacks
        self._links = links
        self._key = key
        self._timeout = timeout
        self._callback_timeout = callback_timeout

    async def run(self, job: Job, context: Context) -> Any:
        """The result; raises Held when it is to come by callback, AttemptFailed or PermanentFailure when there will be none."""
        record = await self._callbacks.open(job, now_ms() + self._callback_timeout)
        if record.answer is not None:
            return taken(record.answer)
        if record.sent and now_ms() < record.deadline:
            raise Held(record.key, record.deadline)
        outcome = None if record.sent else await self._sender.send(self._request(job, context, record.deadline), now_ms())
        if outcome and outcome.status == 202:
            # Said with the status: what becomes of the body changes nothing.
            raise Held(record.key, record.deadline)
        # A callback that was accepted while the request broke off, or the deadline passed, is the answer.
        answer = await self._callbacks.close(record)
        if answer is not None:
            return taken(answer)
        if outcome is None:
            raise AttemptFailed(f"no callback within {format_duration(self._callback_timeout)}")
        return _result(outcome, self._links.hidden(outcome.response or "", callback_id(job)))

    def _request(self, job: Job, context: Context, deadline: int) -> Request:
        id = callback_id(job)
        data: dict[str, Any] = {
            "queue": job.queue,
            "job": job.name,
            "jobId": job.id,
            "attempt": job.attempt,
            "attempts": job.attempts,
            "data": job.data,
            "idempotencyKey": context.idempotency_key,
            "callbackUrl": self._links.url(id),
            "callbackDeadline": iso(deadline),
        }
        if job.origin:
            data |= {"runId": job.origin.run, "workflow": job.origin.workflow, "step": job.origin.step}
        body = orjson.dumps({"type": "job.requested", "timestamp": iso(now_ms()), "data": data})
        return Request(
            url=self._url,
            event=f"job_{id}",
            body=body,
            keys=[self._key],
            headers={},
            timeout=self._timeout / 1000,
            trace=job.origin.run if job.origin else id,
            keep=MAX_ANSWER,
        )


def taken(answer: dict[str, Any]) -> Any:
    """The result that a callback brought; raises what it brought instead."""
    if "error" not in answer:
        return answer.get("result")
    if answer.get("retry"):
        raise AttemptFailed(answer["error"])
    raise PermanentFailure(answer["error"])


def _result(outcome: Outcome, text: str) -> Any:
    status = outcome.status
    if outcome.error is None:
        if not text:
            return None
        if len(text.encode()) >= MAX_ANSWER:
            raise PermanentFailure(f"the answer is larger than {MAX_ANSWER:,} bytes: put bulk into the storage and answer with its path")
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            raise PermanentFailure(f"answered {status} with a body that is not JSON: {text[:EXCERPT]!r}") from None
    reason = f"{outcome.error}: {text[:EXCERPT]}" if text and status is not None else outcome.error
    if status is not None and 300 <= status < 500 and status not in AGAIN:
        raise PermanentFailure(reason)
    raise AttemptFailed(reason)
