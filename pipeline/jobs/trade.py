"""One exchange with a queue: completed jobs and their events go in, as many new jobs come out, all in one script."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.config.queues import Queue
from pipeline.jobs import events
from pipeline.jobs.attempt import Completed, keep_of
from pipeline.jobs.calls import QueueKeys, keep_jobs, now_ms
from pipeline.jobs.fetched import FIELDS, Fetched, Idle, idle_of
from pipeline.jobs.model import Job
from pipeline.store.event import told
from pipeline.store.scripts import Argument, Call, composed, lua, pack

TRADE = composed(f"local FIELDS = {{{','.join(map(repr, FIELDS))}}}\n" + lua("pipeline.jobs", "trade.lua"), "moveToActive")
_NOTHING = pack({})
ALONE = -100
"""An answer: the job got a parent while it ran, and has to be ended by BullMQ's script."""


@dataclass(slots=True)
class Ended:
    """A plain job that was completed, on its way into the store."""

    fetched: Fetched
    job: Job
    result: str
    """JSON."""
    processor: str | None
    """Its name, for the logs."""
    started: int
    """ms since the epoch."""
    keep: bytes
    """BullMQ's `removeOnComplete`, as its scripts want it, packed."""
    row: tuple[Argument, ...]
    """The job as `trade.lua` takes it, its event included."""


@dataclass(slots=True)
class Traded:
    """What an exchange brought."""

    answers: list[Any]
    """For each completed job 0, a refusal of moveToFinished, ALONE, or the text of an error that left it as it was."""
    jobs: list[Fetched]
    idle: Idle
    """When to ask again, where fewer jobs came than were asked for."""
    error: str | None
    """What went wrong in fetching."""
    unsettled: str | None
    """What went wrong in the queue's sets after the ends, which stand."""
    more: bool
    """There are more jobs; these were enough for one answer."""


class Desk:
    """Builds the calls of one worker, whose keys and settings do not change."""

    def __init__(self, keys: QueueKeys, settings: Queue, *, log_key: str, lock_ms: int, worker: str) -> None:
        names = ("wait", "active", "prioritized", "events", "stalled", "limiter", "delayed", "paused", "meta", "pc", "marker")
        self._keys = [*keys.keys(*names, "completed"), log_key]
        self._base = keys.base
        self._lock_ms = lock_ms
        self._worker = worker
        self._limiter = pack(settings.limiter.options()) if settings.limiter else b""
        self._keep = pack(keep_jobs(settings.keep.completed))

    def ended(self, fetched: Fetched, job: Job, processor: str | None, outcome: Completed, started: int, now: int) -> Ended:
        result = outcome.result
        id, data = events.completed(job, orjson.Fragment(result), started=started, now=now)
        row = (fetched.job_id, fetched.token, job.attempt, result, told(id, now, data))
        return Ended(fetched, job, result, processor, started, keep_of(job) or self._keep, row)

    def call(self, ends: Sequence[Ended], *, want: int, token: str, again: bool = False, now: int | None = None) -> Call:
        """`ends` are of one `keep`; the jobs that come are locked with `token` and their number.

        `again` after a lost reply: jobs that the first call locked are handed out again.
        """
        keep = ends[0].keep if ends else _NOTHING
        # In one argument, which costs both sides less than seven a job.
        rows = pack([end.row for end in ends])
        args: list[Argument] = [
            self._base, now or now_ms(), self._lock_ms, self._worker, keep, self._limiter, want, f"{token}:", "1" if again else "", rows,
        ]  # fmt: skip
        return self._keys, args


def parse(reply: Any) -> Traded:
    answers, found, limit_ms, next_at, error, unsettled, more = reply
    jobs = [Fetched(*job) for job in found]
    return Traded(answers, jobs, idle_of(int(limit_ms), float(next_at), now_ms()), error or None, unsettled or None, bool(more))
