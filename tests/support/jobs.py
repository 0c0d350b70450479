"""A job taken from its queue by hand, as a worker takes it."""

from pipeline.jobs import calls
from pipeline.jobs.calls import QueueKeys
from pipeline.store.connection import Store
from pipeline.store.scripts import Script, stock

FETCH = Script(stock("moveToActive"))


async def take(redis: Store, keys: QueueKeys, token: str = "t", *, lock_ms: int = 10_000) -> tuple[str, dict[str, str]]:
    """The next job's id and fields; it is active and locked with `token`."""
    fields, job_id, *_ = await FETCH(redis, *calls.move_to_active(keys, token=token, lock_ms=lock_ms, worker="w"))
    return str(job_id), dict(zip(fields[::2], fields[1::2], strict=True))
