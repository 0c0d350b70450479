"""Ended jobs of a document that is erased: their hashes hold results, and BullMQ keeps the last of a queue for as long as no others end."""

from typing import Any

import orjson

from pipeline.jobs import calls
from pipeline.jobs.attempt import origin_of
from pipeline.jobs.queues import Queues
from pipeline.store.connection import Store
from pipeline.store.scripts import Script, stock

REMOVE = Script(stock("removeJob"))
PAGE = 500


async def remove_ended(redis: Store, queues: Queues, document_id: str) -> None:
    """Remove each completed or failed job that was for the document: a step of its run, or one whose data names it."""
    for queue in queues.names:
        keys = queues.keys(queue)
        for ended in ("completed", "failed"):
            ids = await redis.zrange(keys.key(ended), 0, -1)
            for first in range(0, len(ids), PAGE):
                page = ids[first : first + PAGE]
                async with redis.pipeline(transaction=False) as pipe:
                    for job_id in page:
                        pipe.hmget(keys.key(job_id), "data", "opts")
                    rows = await pipe.execute()
                for job_id, (data, opts) in zip(page, rows, strict=True):
                    if _is_of(document_id, data, opts):
                        await REMOVE(redis, *calls.remove_job(keys, job_id=job_id))


def _is_of(document_id: str, data: str | None, opts: str | None) -> bool:
    origin = origin_of(_json(opts))
    if origin and origin.document == document_id:
        return True
    named = _json(data)
    path = named.get("documentPath")
    return named.get("documentId") == document_id or (isinstance(path, str) and path.lstrip("/").startswith(f"documents/{document_id}/"))


def _json(text: str | None) -> dict[str, Any]:
    try:
        found = orjson.loads(text or "null")
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
