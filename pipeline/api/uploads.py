"""Uploads under way: written down, so that an erasure keeps away from them, and what one left that was killed is found and removed."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator

import structlog

from pipeline.api import ownership
from pipeline.api.services import Services
from pipeline.jobs.calls import now_ms
from pipeline.paths import document_folder
from pipeline.store.scripts import Script

LEASE_MS = 120_000
"""One that has not been heard of for so long is not being written any more."""
ABANDONED_MS = 3_600_000
"""The same for files of a storage that does not tell whether somebody writes them."""
TELL_EVERY = 20.0
"""Seconds between two signs of life of a long one."""
SWEEP_EVERY = 60.0
_FINISH = Script("""
redis.call('ZREM', KEYS[2], ARGV[1])
local text = redis.call('GET', KEYS[1])
local found = text and cjson.decode(text)
if found and found.upload then
  found.upload = nil
  redis.call('SET', KEYS[1], cjson.encode(found))
end
""")
log = structlog.get_logger(__name__)


class Upload:
    """One request's writing of one document."""

    def __init__(self, services: Services, document_id: str) -> None:
        self._services = services
        self._document_id = document_id
        self.name = f"{document_id} {secrets.token_hex(8)}"

    async def tell(self) -> None:
        """That it goes on."""
        await self._services.redis.zadd(self._services.keys.uploads, {self.name: now_ms()})

    async def alive(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        told = time.monotonic()
        async for chunk in chunks:
            yield chunk
            if time.monotonic() - told > TELL_EVERY:
                await self.tell()
                told = time.monotonic()

    async def finish(self) -> None:
        """The document is in its place and a run was started for it."""
        await _finish(self._services, self.name, self._document_id)

    async def abandon(self) -> None:
        """Take away what no run came to need."""
        await _abandon(self._services, self.name, self._document_id)


async def under_way(services: Services, document_id: str, *, but: str = "") -> bool:
    """Whether somebody else is uploading the document, as far as was heard."""
    names = await services.redis.zrange(services.keys.uploads, now_ms() - LEASE_MS, "+inf", byscore=True)
    return any(name != but and name.partition(" ")[0] == document_id for name in names)


async def sweep(services: Services) -> int:
    """Remove what uploads left whose process was killed; returns how many there were."""
    names = await services.redis.zrange(services.keys.uploads, "-inf", f"({now_ms() - LEASE_MS}", byscore=True)
    for name in names:
        await _abandon(services, name, name.partition(" ")[0])
    return len(names)


async def _finish(services: Services, name: str, document_id: str) -> None:
    await _FINISH(services.redis, [services.keys.document(document_id), services.keys.uploads], [name])


async def _abandon(services: Services, name: str, document_id: str) -> None:
    record = await ownership.record(services.redis, services.keys, document_id)
    if record is None or record.get("upload") != name:
        # Finished, or of a document that was there before, or another's.
        await services.redis.zrem(services.keys.uploads, name)
        return
    async with ownership.alone(services.redis, services.keys, document_id) as alone:
        if not alone:
            # A later sweep looks again.
            return
        await ownership.mark_erasing(services.redis, services.keys, document_id, now_ms())
        if await under_way(services, document_id, but=name):
            # The same once more: whether the document stays is known when that is over, for a later sweep.
            await ownership.restore(services.redis, services.keys, document_id, record)
            return
        if await services.runs.of_document(document_id):
            # What became of the transaction that started one was not heard, or the same upload came again.
            await ownership.restore(services.redis, services.keys, document_id, record)
            await _finish(services, name, document_id)
            return
        await services.storage.delete(document_folder(document_id))
        await ownership.release(services.redis, services.keys, document_id)
        await services.redis.zrem(services.keys.uploads, name)


async def keep_sweeping(services: Services) -> None:
    while True:
        try:
            swept = await sweep(services) + await services.storage.sweep(before=now_ms() - ABANDONED_MS)
            if swept:
                log.info("abandoned uploads removed", count=swept)
        except Exception as error:
            # The store or the storage is away: what is there now is there in a minute.
            log.warning("abandoned uploads not removed", error=str(error))
        await asyncio.sleep(SWEEP_EVERY)
