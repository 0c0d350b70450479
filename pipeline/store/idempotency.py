"""The answer to a request that carried an `Idempotency-Key`, kept so that sending it again does nothing twice.

Where one script does the work (adding a job, starting a run), that script also stores `record(claim, answer)` and nothing is
ever in flight. Everything else goes through `Idempotency`: `begin`, the work, then `finish` or `abandon`.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, replace
from typing import Any

import orjson

from pipeline.errors import Conflict, InFlight, InvalidInput
from pipeline.store.connection import Store
from pipeline.store.scripts import Script

SECONDS = 86_400
"""How long an answer is kept: 24 h."""
LEASE_SECONDS = 60
"""How long work that is not finished holds its key; after that its process is taken for dead."""

JOB, RUN, STATUS = "@job@", "@run@", "@status@"
"""Stand for what is only known while the work is done: the job's id (filled in by the script), the run's id and status."""

_KEY = re.compile(r"[\x20-\x7e]{1,255}")

# A finished answer replaces only the marker of the same attempt, or nothing: if the lease ran out and somebody else did the
# work meanwhile, theirs is the first answer.
_FINISH = Script("""
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
""")
_ABANDON = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to answer one request: where the answer is kept and what the request asked for."""

    key: str
    """The Redis key (`Keys.idempotency`)."""
    fingerprint: str
    """Hash of the body; the same key with another body is a conflict."""
    token: str = ""
    """Made by `begin`: tells this attempt's marker from that of another."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it is kept; headers and body may hold JOB, RUN and STATUS until they are known."""

    status: int
    headers: dict[str, str]
    body: str

    def filled(self, **values: str | None) -> "Answer":
        """With `job=`, `run=` and `status=` in the place of what stands for them; None leaves it standing."""
        headers, body = self.headers, self.body
        for name, value in values.items():
            if value is not None:
                mark = f"@{name}@"
                body = body.replace(mark, value)
                headers = {key: text.replace(mark, value) for key, text in headers.items()}
        return Answer(self.status, headers, body)


def check_key(text: str) -> str:
    """The header as sent, if it is 1 to 255 printable ASCII characters. Raises InvalidInput otherwise."""
    if not _KEY.fullmatch(text):
        raise InvalidInput(
            "Idempotency-Key must be 1 to 255 printable ASCII characters", hint="send a fresh UUID with each new request", code="invalid-header"
        )
    return text


def fingerprint(*parts: bytes | str) -> str:
    """What tells one request from another under the same key: a hash that keeps the parts apart."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def record(claim: Claim, answer: Answer | None) -> str:
    """The text to store: `{"fingerprint": …, "answer": {status, headers, body} | null}`; null while the work is under way."""
    kept: dict[str, Any] = {"fingerprint": claim.fingerprint, "answer": None}
    if answer:
        kept["answer"] = {"status": answer.status, "headers": answer.headers, "body": answer.body}
    elif claim.token:
        kept["token"] = claim.token
    return orjson.dumps(kept).decode()


def parse(text: str, claim: Claim) -> Answer:
    """The first answer, out of a stored record.

    Raises Conflict if the key was used for another request, InFlight if that request is still being answered.
    """
    kept = orjson.loads(text)
    if kept["fingerprint"] != claim.fingerprint:
        raise Conflict("this Idempotency-Key was used for a request with another body", hint="use a fresh key for a new request")
    if kept["answer"] is None:
        raise InFlight("a request with this Idempotency-Key is still being answered", retry_after=1.0)
    return Answer(**kept["answer"])


class Idempotency:
    """The records of work that no single script does."""

    def __init__(self, redis: Store, *, lease_seconds: int = LEASE_SECONDS) -> None:
        self._redis = redis
        self._lease = lease_seconds

    async def peek(self, claim: Claim) -> Answer | None:
        """The first answer if there is one already. Raises as `parse`."""
        text = await self._redis.get(claim.key)
        return parse(text, claim) if text else None

    async def begin(self, claim: Claim) -> Claim | Answer:
        """The claim to `finish` or `abandon`, or the first answer if the work was done before. Raises as `parse`."""
        mine = replace(claim, token=secrets.token_hex(8))
        marker = record(mine, None)
        while True:
            if await self._redis.set(claim.key, marker, nx=True, ex=self._lease):
                return mine
            text = await self._redis.get(claim.key)
            if text == marker:
                return mine  # the reply to our SET was lost and it was sent again
            if text:
                return parse(text, claim)

    async def finish(self, claim: Claim, answer: Answer) -> None:
        """Keep the answer for 24 h."""
        await _FINISH(self._redis, [claim.key], [record(claim, None), record(claim, answer), SECONDS])

    async def abandon(self, claim: Claim) -> None:
        """Free the key: the work was not done, the same request may be tried again."""
        await _ABANDON(self._redis, [claim.key], [record(claim, None)])
