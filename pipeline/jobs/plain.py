"""Jobs as our own scripts add them, many at once: what addStandardJob would leave of each, for a part of the store's time."""

from typing import Any

import orjson

from pipeline.jobs.calls import QueueKeys, now_ms
from pipeline.store.scripts import lua

ADD = lua("pipeline.jobs", "paused.lua") + lua("pipeline.jobs", "add.lua")
"""`add(keys, args)` for scripts that add jobs one by one."""
ADD_ALL = ADD + lua("pipeline.jobs", "plain.lua")
"""`addAll(jobs)` for scripts that add several; they are composed with addStandardJob."""
Plain = tuple[str, str, str, bytes, bytes, str]
"""A job for `addAll`."""


def plain(queue: QueueKeys, *, name: str, data: Any, opts: bytes, job_id: str, now: int | None = None) -> Plain:
    """`opts` as addStandardJob takes them, in JSON, but none that concerns other jobs or another time; `job_id` must not be empty."""
    return queue.base, job_id, name, orjson.dumps(data), opts, str(now or now_ms())
