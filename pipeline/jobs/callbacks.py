"""Callbacks of pushed jobs: a record per attempt, a signed single-use link, and the answer that comes back."""

import base64
import hashlib
import hmac
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from pipeline.jobs import calls
from pipeline.jobs.calls import QueueKeys
from pipeline.jobs.model import Job
from pipeline.store.connection import Store
from pipeline.store.scripts import Argument, composed, lua, pack, pack_call

CALLBACK = composed(lua("pipeline.jobs", "callback.lua"), "promote")
KEPT_MS = 7 * 86_400_000
"""How long after its deadline a record still tells a late caller what happened."""
Verdict = Literal["accepted", "unknown", "repeated", "late", "over", "gone"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What is known of the callback of one attempt."""

    key: str
    deadline: int
    """ms since the epoch."""
    sent: bool
    """Whether the receiver said 202 and the job was held."""
    answer: dict[str, Any] | None
    """`{result}` or `{error, retry}`."""


def callback_id(job: Job) -> str:
    """The same when an attempt is executed again after a crash, another for each attempt."""
    text = "\x1f".join((job.queue, job.id, str(job.timestamp), str(job.attempt)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Links:
    """Signs and checks links; made from the service's encryption keys, of which the first signs and all verify."""

    def __init__(self, base_url: str, encryption_keys: Sequence[bytes]) -> None:
        self._base_url = base_url.rstrip("/")
        self._keys = [hmac.digest(key, b"hookline callbacks", "sha256") for key in encryption_keys]

    def url(self, id: str) -> str:
        return f"{self._base_url}/api/callbacks/{id}?signature={_signature(self._keys[0], id)}"

    def genuine(self, id: str, signature: str) -> bool:
        sent = signature.encode()
        return any(hmac.compare_digest(_signature(key, id).encode(), sent) for key in self._keys)

    def hidden(self, text: str, id: str) -> str:
        """`text` without the link's signature: a receiver's answer may quote the request, and reasons are logged and sent on."""
        for key in self._keys:
            text = text.replace(_signature(key, id), "…")
        return text


class Callbacks:
    """The records in the store."""

    def __init__(self, redis: Store, *, prefix: str, bull_prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._bull_prefix = bull_prefix

    def key(self, id: str) -> str:
        return f"{self._prefix}:callback:{id}"

    async def open(self, job: Job, deadline: int) -> Record:
        """The record of this attempt, made if it is its first execution (whose deadline then stands).

        One that was closed is open again: the end for which it was closed was never recorded.
        """
        key = self.key(callback_id(job))
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hsetnx(key, "deadline", deadline)
            pipe.hset(key, mapping={"queue": job.queue, "job": job.id, "timestamp": job.timestamp, "attempt": job.attempt})
            pipe.hdel(key, "closed")
            pipe.hmget(key, "deadline", "sent", "answer")
            pipe.pexpireat(key, deadline + KEPT_MS)
            _, _, _, (until, sent, answer), _ = await pipe.execute()
        return Record(key=key, deadline=int(until), sent=bool(sent), answer=orjson.loads(answer) if answer else None)

    async def close(self, record: Record) -> dict[str, Any] | None:
        """The answer that has come; if there is none, none is taken any more, because the attempt ends without it."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(record.key, "closed", 1)
            pipe.hget(record.key, "answer")
            pipe.pexpireat(record.key, record.deadline + KEPT_MS)
            _, answer, _ = await pipe.execute()
        return orjson.loads(answer) if answer else None

    async def answer(self, id: str, answer: dict[str, Any], now: int) -> Verdict:
        """Keep an answer, if it is the first and in time, and put its job back to work."""
        queue, job_id = await self._redis.hmget(self.key(id), "queue", "job")
        if queue is None:
            return "unknown"
        keys = QueueKeys(self._bull_prefix, queue)
        promote = pack(pack_call(calls.promote(keys, job_id=job_id)))
        args: list[Argument] = [orjson.dumps(answer), now, keys.key(job_id), promote, uuid.uuid4().hex]
        verdict: Verdict = await CALLBACK(self._redis, [self.key(id)], args)
        return verdict


def _signature(key: bytes, id: str) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, id.encode(), "sha256")).decode().rstrip("=")
