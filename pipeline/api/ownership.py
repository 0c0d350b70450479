"""Whose a document is: recorded when it is uploaded, asked when a user names one."""

from typing import Any

import orjson

from pipeline.api.services import Services
from pipeline.auth import Principal
from pipeline.errors import Conflict, NotFound
from pipeline.storage import resolve
from pipeline.store.connection import Store
from pipeline.store.keys import Keys


async def claim(redis: Store, keys: Keys, document_id: str, *, user_id: str, filename: str, sha256: str) -> bool:
    """Record a new document; False if the same one of the same user is recorded already.

    Raises Conflict if there is another document of this id: what a run may be reading is never overwritten.
    """
    mine = {"userId": user_id, "filename": filename, "sha256": sha256}
    if await redis.set(keys.document(document_id), orjson.dumps(mine).decode(), nx=True):
        return True
    found = orjson.loads(await redis.get(keys.document(document_id)) or "{}")
    if {name: value for name, value in found.items() if name != "upload"} == mine:
        return False
    raise taken(document_id)


async def mark_upload(redis: Store, keys: Keys, document_id: str, upload: str) -> None:
    """From now on the document's folder is this upload's alone, and goes if it comes to nothing."""
    found = await record(redis, keys, document_id)
    await redis.set(keys.document(document_id), orjson.dumps((found or {}) | {"upload": upload}).decode())


def taken(document_id: str) -> Conflict:
    return Conflict(f"there is a document {document_id!r} already", hint="choose another documentId, or leave it out to be given one")


async def release(redis: Store, keys: Keys, document_id: str) -> None:
    await redis.delete(keys.document(document_id))


async def record(redis: Store, keys: Keys, document_id: str) -> dict[str, Any] | None:
    """`{userId, filename, sha256}` of an uploaded document, with `upload` until that is over and `erasing` (ms) once its erasure began."""
    found: dict[str, Any] | None = orjson.loads(await redis.get(keys.document(document_id)) or "null")
    return found


async def mark_erasing(redis: Store, keys: Keys, document_id: str, before: dict[str, Any] | None, at: int) -> None:
    """From now on nobody can name the document or upload another one under its id."""
    known = before or {"userId": None, "filename": "", "sha256": ""}
    await redis.set(keys.document(document_id), orjson.dumps(known | {"erasing": at}).decode())


async def restore(redis: Store, keys: Keys, document_id: str, before: dict[str, Any] | None) -> None:
    """As it was before an erasure that did not take place."""
    if before is None or before["userId"] is None:
        await release(redis, keys, document_id)
    else:
        kept = {name: value for name, value in before.items() if name != "erasing"}
        await redis.set(keys.document(document_id), orjson.dumps(kept).decode())


async def require(services: Services, principal: Principal, data: object) -> None:
    """Raises NotFound if `data` names, by documentId or documentPath, a document that is being erased or, for a user, one that
    somebody else uploaded.

    Documents that others put into the storage are not recorded: whoever knows their id may name them.
    """
    if not isinstance(data, dict):
        return
    # Services have paths of their own kinds, which are theirs to check.
    for document_id in (data.get("documentId"), _id_in(data.get("documentPath")) if principal.role == "user" else None):
        if isinstance(document_id, str):
            found = await record(services.redis, services.keys, document_id)
            if found and ("erasing" in found or not principal.owns(found["userId"])):
                raise NotFound(f"there is no document {document_id!r}")


def _id_in(path: object) -> str | None:
    """The document's id in `documents/<id>/<filename>`."""
    if not isinstance(path, str):
        return None
    folder, _, rest = resolve(path).partition("/")
    return rest.partition("/")[0] if folder == "documents" else None
