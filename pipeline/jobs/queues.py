"""The queues as the API and the engine use them: add a job, look at one, count them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.config import Config
from pipeline.config.queues import Queue
from pipeline.errors import InvalidInput, NotFound
from pipeline.jobs import calls
from pipeline.jobs.additions import Additions
from pipeline.jobs.attempt import origin_of
from pipeline.jobs.calls import QueueKeys
from pipeline.jobs.model import Origin
from pipeline.jobs.plain import Plain, plain
from pipeline.store.connection import Store
from pipeline.store.idempotency import Answer, Claim, parse, record
from pipeline.store.keys import Keys
from pipeline.store.scripts import Call, Script, stock

STATE = Script(stock("getStateV2"))
COUNTS = Script(stock("getCounts"))
LOST_REPLY_SECONDS = 60
"""How long a request without an Idempotency-Key is remembered, so that sending it again after a lost reply adds nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Added:
    job_id: str
    """Empty when `replay` is set."""
    replay: Answer | None = None
    """The first answer, if this idempotency key was used before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStatus:
    """A job as its hash and the queue's lists show it."""

    job_id: str
    queue: str
    name: str
    state: str
    """BullMQ's: waiting, active, completed, failed, delayed, prioritized, waiting-children, unknown."""
    progress: Any
    attempts_made: int
    data: Any
    result: Any
    failed_reason: str | None
    timestamp: int
    """Added; this and the next two in ms since the epoch."""
    processed_on: int | None
    finished_on: int | None
    origin: Origin | None


class Queues:
    """The configured queues in one store."""

    def __init__(self, redis: Store, config: Config) -> None:
        self._redis = redis
        self._config = config
        self._documents = Keys(config.redis.prefix)
        self._additions: dict[str, Additions] = {}
        self.external = tuple(name for name, settings in config.queues.items() if settings.external)
        """The queues whose jobs foreign workers do."""
        self._keys = {queue: QueueKeys(config.bullmq.prefix, queue) for queue in config.queues}
        self._usual = {queue: _usual(settings) for queue, settings in config.queues.items()}
        self._usual_of_runs = {queue: _beginning(usual) for queue, usual in self._usual.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._config.queues)

    def settings(self, queue: str) -> Queue:
        """Those of a queue that is not configured (any more) are the built-in ones."""
        return self._config.queues.get(queue) or Queue()

    def keys(self, queue: str) -> QueueKeys:
        return self._keys.get(queue) or QueueKeys(self._config.bullmq.prefix, queue)

    def job_name(self, queue: str) -> str:
        """The name that a plain POST to this queue gives its jobs: that of its first processor."""
        return next(iter(self._config.queues[queue].processors), queue)

    def add_call(
        self,
        queue: str,
        name: str,
        data: Any,
        *,
        job_id: str = "",
        origin: Origin | None = None,
        attempts: int | None = None,
        backoff: dict[str, Any] | None = None,
    ) -> Call:
        """addStandardJob with the queue's options: what the engine's start puts into its transaction."""
        opts = self._opts(queue, job_id, origin, attempts, backoff)
        return calls.add_standard(self.keys(queue), name=name, data=data, opts=opts, job_id=job_id)

    def plain(
        self, queue: str, name: str, data: Any, *, job_id: str, origin: Origin, attempts: int | None = None, backoff: dict[str, Any] | None = None
    ) -> Plain:
        """The same for the scripts that add several jobs of runs."""
        usual = self._usual_of_runs.get(queue)
        if usual is None or attempts or backoff:
            opts = orjson.dumps(self._opts(queue, job_id, origin, attempts, backoff))
        else:
            # All but the end of it is the same for each job.
            opts = usual + orjson.dumps({"jobId": job_id, "hookline": origin.mark()})[1:]
        return plain(self.keys(queue), name=name, data=data, opts=opts, job_id=job_id)

    def _opts(
        self, queue: str, job_id: str = "", origin: Origin | None = None, attempts: int | None = None, backoff: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        opts = (self._usual.get(queue) or _usual(self.settings(queue))).copy()
        if attempts:
            opts["attempts"] = attempts
        if backoff:
            opts["backoff"] = backoff
        if job_id:
            opts["jobId"] = job_id
        if origin:
            opts["hookline"] = origin.mark()
        return opts

    async def add(
        self,
        queue: str,
        name: str,
        data: Any,
        *,
        claim: Claim | None = None,
        answer: Answer | None = None,
        documents: Sequence[str] = (),
        user: str | None = None,
    ) -> Added:
        """Add one job that belongs to no run; with a `claim`, once per idempotency key, whose `answer` is kept beside it.

        `documents` are the ids, two at most, of those that the job names; with `user`, those of others are refused, as far as they are recorded.
        Raises InvalidInput for a queue that is not configured, NotFound for a document that the job may not name or that is being erased,
        Conflict if the key was used for another request.
        """
        additions = self._additions.get(queue) or self._adding(queue)
        first, second = (*map(self._documents.document, documents), "", "")[:2]
        said = await additions.add(
            name,
            orjson.dumps(data),
            key=claim.key if claim else "",
            record=record(claim, answer) if claim else "",
            documents=(first, second),
            user=user or "",
        )
        if isinstance(said, str):
            return Added(job_id=said)
        if isinstance(said, int):
            raise NotFound(f"there is no document {documents[said - 1]!r}")
        assert claim
        return Added(job_id="", replay=parse(said[0], claim))

    def _adding(self, queue: str) -> Additions:
        if queue not in self._config.queues:
            raise InvalidInput(f"there is no queue {queue!r}; known: {', '.join(self.names)}", code="unknown-queue")
        once, options = f"{self._config.redis.prefix}:once:", orjson.dumps(self._opts(queue))
        made = Additions(self._redis, self.keys(queue), options=options, once=once, seconds=LOST_REPLY_SECONDS)
        self._additions[queue] = made
        return made

    async def job(self, queue: str, job_id: str) -> JobStatus | None:
        """A job's state and fields, or None if its hash is gone (removed, or by retention)."""
        keys = self.keys(queue)
        fields = await self._redis.hgetall(keys.key(job_id))
        if not fields or "timestamp" not in fields:
            return None
        state = await STATE(self._redis, *calls.get_state(keys, job_id=job_id))
        return JobStatus(
            job_id=job_id,
            queue=queue,
            name=fields.get("name", ""),
            state=str(state),
            progress=_json(fields.get("progress"), 0),
            attempts_made=int(fields.get("atm", 0)),
            data=_json(fields.get("data"), None),
            result=_json(fields.get("returnvalue"), None),
            failed_reason=fields.get("failedReason"),
            timestamp=int(fields["timestamp"]),
            processed_on=_int(fields.get("processedOn")),
            finished_on=_int(fields.get("finishedOn")),
            origin=origin_of(_json(fields.get("opts"), {})),
        )

    async def counts(self, queue: str) -> dict[str, int]:
        """Jobs by state: waiting, active, completed, failed, delayed, prioritized, and paused (held by a pause)."""
        keys = self.keys(queue)
        found = dict(zip(calls.COUNTED, await COUNTS(self._redis, *calls.get_counts(keys)), strict=True))
        waiting, held = found.pop("wait"), found.pop("paused")
        # BullMQ 6 pauses by a flag and leaves the jobs where they are; 5 moved them to a list named `paused`.
        if await self._redis.hexists(keys.key("meta"), "paused"):
            waiting, held = 0, held + waiting
        return {"waiting": waiting, **found, "paused": held}

    async def all_counts(self) -> dict[str, dict[str, int]]:
        return {name: await self.counts(name) for name in self.names}


def _usual(settings: Queue) -> dict[str, Any]:
    """The options of a queue's jobs."""
    # The end of an external queue's job is told by whoever finds it there. We remove it afterwards; the worker, or the end of another job,
    # must not before.
    keep: dict[str, Any] = {"removeOnComplete": False, "removeOnFail": False, "hookline": calls.KEPT}
    if not settings.external:
        keep = {"removeOnComplete": {"count": settings.keep.completed}, "removeOnFail": {"count": settings.keep.failed}}
    return {"attempts": settings.attempts, "backoff": {"type": settings.backoff.type, "delay": settings.backoff.delay}, **keep}


def _beginning(usual: dict[str, Any]) -> bytes:
    """The JSON of options, but for what differs from job to job of runs."""
    return orjson.dumps({name: value for name, value in usual.items() if name != "hookline"})[:-1] + b","


def _json(text: str | None, default: Any) -> Any:
    if text is None:
        return default
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _int(text: str | None) -> int | None:
    return int(float(text)) if text else None
