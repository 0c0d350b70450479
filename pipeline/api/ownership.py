"""Whose a document is: recorded when it is uploaded, asked when a user names one."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import orjson

from pipeline.api.services import Services
from pipeline.auth import Principal
from pipeline.errors import Conflict, NotFound
from pipeline.jobs.calls import now_ms
from pipeline.paths import resolve
from pipeline.store.connection import Store
from pipeline.store.keys import Keys
from pipeline.store.scripts import Script

REMOVING_MS = 60_000
"""After this, one that removes a document has been killed."""
_CLAIM = Script("""
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
return redis.call('SET', KEYS[1], ARGV[1], 'NX') and 1 or 0
""")
_AMEND = Script("""
local text = redis.call('GET', KEYS[1])
if not text then return end
local found, value = cjson.decode(text), cjson.decode('[' .. ARGV[2] .. ']')[1]
if value == cjson.null then found[ARGV[1]] = nil else found[ARGV[1]] = value end
redis.call('SET', KEYS[1], cjson.encode(found))
""")
_UNLOCK = Script("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end")


async def claim(redis: Store, keys: Keys, document_id: str, *, user_id: str, filename: str, sha256: str, upload: str) -> None:
    """Record a new document, whose folder is the upload's alone until that is over; nothing if the same one of the same user is recorded.

    In the same step the upload is written down as under way: an erasure marks the document first and then looks for uploads, so that one
    of the two sees the other.
    Raises Conflict if there is another document of this id: what a run may be reading is never overwritten.
    """
    mine = {"userId": user_id, "filename": filename, "sha256": sha256}
    text = orjson.dumps(mine | {"upload": upload}).decode()
    if await _CLAIM(redis, [keys.document(document_id), keys.uploads], [text, upload, now_ms()]):
        return
    found = orjson.loads(await redis.get(keys.document(document_id)) or "{}")
    if {name: value for name, value in found.items() if name != "upload"} != mine:
        raise taken(document_id)


def taken(document_id: str) -> Conflict:
    return Conflict(f"there is a document {document_id!r} already", hint="choose another documentId, or leave it out to be given one")


async def release(redis: Store, keys: Keys, document_id: str) -> None:
    await redis.delete(keys.document(document_id))


async def record(redis: Store, keys: Keys, document_id: str) -> dict[str, Any] | None:
    """`{userId, filename, sha256}` of an uploaded document, with `upload` until that is over and `erasing` (ms) once its erasure began."""
    found: dict[str, Any] | None = orjson.loads(await redis.get(keys.document(document_id)) or "null")
    return found


async def mark_erasing(redis: Store, keys: Keys, document_id: str, at: int) -> None:
    """From now on nobody can name the document or upload another one under its id."""
    if await redis.set(keys.document(document_id), orjson.dumps({"userId": None, "filename": "", "sha256": "", "erasing": at}).decode(), nx=True):
        return
    await _amend(redis, keys, document_id, "erasing", at)


async def restore(redis: Store, keys: Keys, document_id: str, before: dict[str, Any] | None) -> None:
    """As it was before an erasure that did not take place."""
    if before is None or before["userId"] is None:
        await release(redis, keys, document_id)
    else:
        await _amend(redis, keys, document_id, "erasing", None)


async def _amend(redis: Store, keys: Keys, document_id: str, name: str, value: Any) -> None:
    """Set one field of a record, or take it away (None); others change other fields meanwhile."""
    await _AMEND(redis, [keys.document(document_id)], [name, orjson.dumps(value).decode()])


@contextlib.asynccontextmanager
async def alone(redis: Store, keys: Keys, document_id: str) -> AsyncIterator[bool]:
    """Whether nobody else is removing this document: two at once would take away what was uploaded between them."""
    name = secrets.token_hex(8)
    if not await redis.set(keys.removing(document_id), name, nx=True, px=REMOVING_MS):
        yield False
        return
    try:
        yield True
    finally:
        await _UNLOCK(redis, [keys.removing(document_id)], [name])


def named(principal: Principal, data: object) -> list[str]:
    """The ids of the documents that `data` names by documentId or documentPath, as far as the caller must be allowed to name them."""
    if not isinstance(data, dict):
        return []
    # Services have paths of their own kinds, which are theirs to check.
    ids = (data.get("documentId"), _id_in(data.get("documentPath")) if principal.role == "user" else None)
    return [document_id for document_id in ids if isinstance(document_id, str)]


async def require(services: Services, principal: Principal, data: object) -> None:
    """Raises NotFound if `data` names a document that is being erased or, for a user, one that somebody else uploaded.

    Documents that others put into the storage are not recorded: whoever knows their id may name them.
    """
    for document_id in named(principal, data):
        found = await record(services.redis, services.keys, document_id)
        if found and ("erasing" in found or not principal.owns(found["userId"])):
            raise NotFound(f"there is no document {document_id!r}")


def _id_in(path: object) -> str | None:
    """The document's id in `documents/<id>/<filename>`."""
    if not isinstance(path, str):
        return None
    folder, _, rest = resolve(path).partition("/")
    return rest.partition("/")[0] if folder == "documents" else None
