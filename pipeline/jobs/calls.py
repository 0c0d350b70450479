"""Keys and arguments of BullMQ's scripts as pure functions: the whole of the wire contract with other BullMQ clients."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import orjson

from pipeline.store.scripts import Argument, Call

KEPT = {"keep": True}
"""In the options of an external queue's job that belongs to no run: once it has ended we keep or remove it, as `queues.<queue>.keep` says."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def dumps(value: Any) -> str:
    """JSON as BullMQ stores it. Raises TypeError for what JSON cannot say (NaN becomes null, as in JavaScript)."""
    return orjson.dumps(value).decode()


def _msgpack(value: Any) -> bytes:
    # The stock scripts unpack these themselves; nothing in them is `bytes`, so the `bin` type never occurs.
    return bytes(msgpack.packb(value))


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """BullMQ's keys of one queue: `<prefix>:<queue>:<suffix>`."""

    prefix: str
    queue: str

    def key(self, suffix: str) -> str:
        return f"{self.prefix}:{self.queue}:{suffix}"

    def keys(self, *suffixes: str) -> list[str]:
        return [self.key(suffix) for suffix in suffixes]

    @property
    def base(self) -> str:
        """`<prefix>:<queue>:`, which scripts put before a job's id."""
        return f"{self.prefix}:{self.queue}:"


def add_standard(queue: QueueKeys, *, name: str, data: Any, opts: dict[str, Any], job_id: str = "", now: int | None = None) -> Call:
    """addStandardJob: `job_id` empty takes the queue's counter; an id that exists is left as it is."""
    header = [queue.base, job_id, name, now or now_ms(), None, None, None, None, None]
    keys = queue.keys("wait", "paused", "meta", "id", "completed", "delayed", "active", "events", "marker")
    return keys, [_msgpack(header), dumps(data), _msgpack(opts)]


def move_to_finished(
    queue: QueueKeys,
    *,
    job_id: str,
    token: str,
    completed: bool,
    value: str,
    keep: Any,
    attempts: int,
    attempts_made: int,
    opts: Mapping[str, Any],
    fields: dict[str, str] | None = None,
    now: int | None = None,
) -> Call:
    """moveToFinished with fetchNext off; `value` is the result as JSON or the failed reason, `keep` a BullMQ removeOn option."""
    target = "completed" if completed else "failed"
    suffixes = ("wait", "active", "prioritized", "events", "stalled", "limiter", "delayed", "paused", "meta", "pc", target)
    keys = [*queue.keys(*suffixes), queue.key(job_id), queue.key(f"metrics:{target}"), queue.key("marker")]
    packed = _msgpack(
        {
            "token": token,
            "keepJobs": keep_jobs(keep),
            "limiter": None,
            "attempts": attempts,
            "attemptsMade": attempts_made,
            "maxMetricsSize": "",
            "fpof": bool(opts.get("fpof", False)),
            "cpof": bool(opts.get("cpof", False)),
            "idof": bool(opts.get("idof", False)),
            "rdof": bool(opts.get("rdof", False)),
        }
    )
    args: list[Argument] = [job_id, now or now_ms(), "returnvalue" if completed else "failedReason", value, target, "", queue.base, packed]
    if fields:
        args.append(_fields(fields))
    return keys, args


def move_to_delayed(
    queue: QueueKeys, *, job_id: str, token: str, delay_ms: int, fields: dict[str, str], skip_attempt: bool = False, now: int | None = None
) -> Call:
    """moveToDelayed: back after `delay_ms` for another attempt, or (`skip_attempt`) for the rest of this one."""
    suffixes = ("events", "meta", "stalled", "wait", "limiter", "pc")
    keys = [*queue.keys("marker", "active", "prioritized", "delayed"), queue.key(job_id), *queue.keys(*suffixes)]
    return keys, [queue.base, now or now_ms(), job_id, token, delay_ms, "1" if skip_attempt else "0", _fields(fields), "0"]


def retry_job(queue: QueueKeys, *, job_id: str, token: str, fields: dict[str, str], lifo: bool = False, now: int | None = None) -> Call:
    """retryJob: back for another attempt at once."""
    keys = [
        *queue.keys("active", "wait", "paused"),
        queue.key(job_id),
        *queue.keys("meta", "events", "delayed", "prioritized", "pc", "marker", "stalled"),
    ]
    return keys, [queue.base, now or now_ms(), "RPUSH" if lifo else "LPUSH", job_id, token, _fields(fields)]


def release(queue: QueueKeys, *, job_id: str, token: str) -> Call:
    """moveJobFromActiveToWait: hand back a job that was not run to its end, without counting an attempt."""
    keys = [*queue.keys("active", "wait", "stalled", "paused", "meta", "limiter", "prioritized", "marker", "events")]
    return keys, [job_id, token, queue.key(job_id)]


def promote(queue: QueueKeys, *, job_id: str) -> Call:
    """promote: a delayed job waits no longer."""
    keys = [*queue.keys("delayed", "wait", "paused", "meta", "prioritized", "active", "pc", "events", "marker")]
    return keys, [queue.base, job_id]


def move_stalled(queue: QueueKeys, *, max_stalled: int, interval_ms: int, now: int | None = None) -> Call:
    """moveStalledJobsToWait: put back jobs that are active without a lock."""
    keys = queue.keys("stalled", "wait", "active", "stalled-check", "meta", "paused", "marker", "events", "repeat")
    return keys, [max_stalled, queue.base, now or now_ms(), interval_ms]


def update_scheduler(queue: QueueKeys, *, scheduler: str, at: int, opts: dict[str, Any], producer: str, now: int) -> Call:
    """updateJobScheduler: the job after `producer`, once, however often it is asked for."""
    suffixes = ("repeat", "delayed", "wait", "paused", "meta", "prioritized", "marker", "id", "events", "pc", producer, "active")
    return queue.keys(*suffixes), [at, scheduler, "{}", _msgpack(opts), now, queue.base, producer]


def update_progress(queue: QueueKeys, *, job_id: str, progress: Any) -> Call:
    return [queue.key(job_id), queue.key("events"), queue.key("meta")], [job_id, dumps(progress)]


def remove_job(queue: QueueKeys, *, job_id: str) -> Call:
    """removeJob: 1 if it is gone, 0 if it is locked by a worker."""
    return [queue.key(job_id), queue.key("repeat")], [job_id, "0", queue.base]


def get_state(queue: QueueKeys, *, job_id: str) -> Call:
    return queue.keys("completed", "failed", "delayed", "active", "wait", "paused", "waiting-children", "prioritized"), [job_id, queue.key(job_id)]


COUNTED = ("wait", "paused", "active", "completed", "failed", "delayed", "prioritized")


def get_counts(queue: QueueKeys) -> Call:
    return [queue.base], list(COUNTED)


def keep_jobs(option: Any) -> dict[str, Any]:
    """BullMQ's `removeOnComplete`/`removeOnFail` as the scripts want it: True removes, nothing keeps all, a number or object keeps some.

    A bound that is no number is none: the scripts would raise after the job had ended.
    """
    if option is True:
        return {"count": 0}
    if isinstance(option, dict):
        bounds = {name: _bound(option.get(name)) for name in ("count", "age", "limit")}
        kept = {name: value for name, value in bounds.items() if value is not None}
        return kept if "count" in kept or "age" in kept else {"count": -1}
    bound = None if option is False else _bound(option)
    return {"count": -1 if bound is None else bound}


def _bound(value: Any) -> int | None:
    try:
        bound = None if value is None or isinstance(value, bool) else int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    # No script counts further, and msgpack has no room for what is beyond 64 bits.
    return bound if bound is None or abs(bound) < 1 << 53 else None


def _fields(fields: dict[str, str]) -> bytes:
    # The scripts unpack whatever is not empty, and an HMSET without fields is an error.
    return _msgpack([part for pair in fields.items() for part in pair]) if fields else b""
