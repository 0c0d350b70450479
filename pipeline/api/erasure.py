"""Erasing a document: its file, text and findings, and the word of it in the log and in its runs' timelines."""

from typing import Any

from aiohttp import web

from pipeline.api import ownership, uploads
from pipeline.api.routing import Route
from pipeline.api.services import Services, principal_of, services_of
from pipeline.auth import Principal
from pipeline.errors import Conflict, InvalidInput, NotFound
from pipeline.jobs.calls import now_ms
from pipeline.jobs.erasure import remove_ended
from pipeline.paths import checked_id, document_folder
from pipeline.store.event import Event, event_id

ERASED = "document.erased"


async def erase(request: web.Request) -> web.Response:
    """A call that was cut off in the middle is finished by the next one; one after the last finds nothing."""
    services, principal = services_of(request), principal_of(request)
    document_id = request.match_info["documentId"]
    await _own(services, principal, document_id)
    async with ownership.alone(services.redis, services.keys, document_id) as alone:
        if not alone:
            raise Conflict(
                f"document {document_id!r} is being erased", hint="wait a minute; if it is there still, the erasure was cut off: ask again"
            )
        # Again: it may have been erased meanwhile.
        record, folder = await _own(services, principal, document_id)
        at = await _begin(services, document_id, record)
        if busy := await _busy(services, document_id):
            await ownership.restore(services.redis, services.keys, document_id, record)
            raise busy
        await _remove(services, principal, document_id, folder, record, at)
    return web.Response(status=204)


async def _busy(services: Services, document_id: str) -> Conflict | None:
    """Why the document cannot be erased now. Asked when new runs and uploads are kept away already: what is not seen here cannot begin."""
    if await uploads.under_way(services, document_id):
        return Conflict(f"document {document_id!r} is being uploaded", hint="wait until that is over")
    for run in await services.runs.of_document(document_id):
        if await services.runs.working(run):
            return Conflict(
                f"run {run.id} of document {document_id!r} is still under way", hint=f"wait for it, or POST /api/runs/{run.id}/cancel first"
            )
    return None


async def _remove(services: Services, principal: Principal, document_id: str, folder: str, record: dict[str, Any] | None, at: int) -> None:
    await services.storage.delete(folder)
    await remove_ended(services.redis, services.queues, document_id)
    runs = await services.runs.of_document(document_id)
    data: dict[str, Any] = {"documentId": document_id, "by": principal.sub, "runs": len(runs)}
    if record and record["userId"]:
        data["userId"] = record["userId"]
    event = Event(id=event_id(ERASED, document_id, at), type=ERASED, timestamp=at, data=data)
    for run in runs:
        await services.runs.erased(run.id, event)
    await services.log.append([event])
    # Last: until here, a call that is repeated does all of it again.
    await ownership.release(services.redis, services.keys, document_id)


async def _own(services: Services, principal: Principal, document_id: str) -> tuple[dict[str, Any] | None, str]:
    """The document's record, if it was uploaded here, and its folder. Raises NotFound, also for another user's."""
    unknown = NotFound(f"there is no document {document_id!r}")
    try:
        folder = document_folder(checked_id(document_id))
    except InvalidInput:
        raise unknown from None
    record = await ownership.record(services.redis, services.keys, document_id)
    if record is None and principal.role == "user":
        # Stored by another service: whose it is, nobody has told.
        raise unknown
    if record is not None and not principal.owns(record["userId"]):
        raise unknown
    if record is None and not await services.storage.exists(folder):
        raise unknown
    return record, folder


async def _begin(services: Services, document_id: str, record: dict[str, Any] | None) -> int:
    """Keep new runs and uploads away from the document; when its erasure began (ms), also for who finishes it."""
    if record and "erasing" in record:
        return int(record["erasing"])
    at = now_ms()
    await ownership.mark_erasing(services.redis, services.keys, document_id, at)
    return at


ROUTES = (
    Route(
        method="DELETE",
        path="/api/documents/{documentId}",
        handler=erase,
        summary="Erase a document: its file, its text and its findings",
        status=204,
        problems=(404, 409, 503),
    ),
)
