"""Whose a document is: recorded when it is uploaded, asked when a user names one."""

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
    if orjson.loads(await redis.get(keys.document(document_id)) or "null") == mine:
        return False
    raise taken(document_id)


def taken(document_id: str) -> Conflict:
    return Conflict(f"there is a document {document_id!r} already", hint="choose another documentId, or leave it out to be given one")


async def release(redis: Store, keys: Keys, document_id: str) -> None:
    await redis.delete(keys.document(document_id))


async def require(services: Services, principal: Principal, data: object) -> None:
    """Raises NotFound if a user's `data` names, by documentId or documentPath, a document that somebody else uploaded.

    Documents that others put into the storage are not recorded: whoever knows their id may name them.
    """
    if principal.role != "user" or not isinstance(data, dict):
        return
    for document_id in (data.get("documentId"), _id_in(data.get("documentPath"))):
        if isinstance(document_id, str):
            text = await services.redis.get(services.keys.document(document_id))
            if text and not principal.owns(orjson.loads(text)["userId"]):
                raise NotFound(f"there is no document {document_id!r}")


def _id_in(path: object) -> str | None:
    """The document's id in `documents/<id>/<filename>`."""
    if not isinstance(path, str):
        return None
    folder, _, rest = resolve(path).partition("/")
    return rest.partition("/")[0] if folder == "documents" else None
