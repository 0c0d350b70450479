"""A small typed client of the HTTP API, as the commands and the demo use it."""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from pipeline.errors import HooklineError, Unavailable


class RequestFailed(HooklineError):
    """The service answered with a problem."""

    code = "request-failed"

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
        # A detail that tells of a fault in full needs no second line of it.
        faults = [fault for fault in problem.get("errors") or () if str(fault.get("message")) not in detail]
        lines = [detail, *(f"  {fault.get('path') or 'body'}: {fault.get('message')}" for fault in faults)]
        super().__init__("\n".join(lines), hint=problem.get("hint"))
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("type", "")).rpartition(":")[2] or self.code


class Client:
    """Use it as `async with Client(url, token) as client`.

    Every method raises RequestFailed with the service's problem, and Unavailable when the service cannot be reached.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        form: aiohttp.FormData | None = None,
    ) -> Any:
        """One call; the answer's JSON, or None where there is no body. Query values that are None are left out."""
        arguments: dict[str, Any] = {"params": {name: str(value) for name, value in (query or {}).items() if value is not None}}
        if idempotency_key is not None:
            arguments["headers"] = {"Idempotency-Key": idempotency_key}
        if form is not None:
            # An upload takes as long as the line needs; what must not take long is a silence.
            arguments |= {"data": form, "timeout": aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)}
        elif body is not None:
            arguments["json"] = body
        try:
            async with self._open.request(method, self._url + path, **arguments) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error
        if response.status >= 400:
            raise RequestFailed(response.status, _problem(response.status, raw))
        try:
            return json.loads(raw) if raw else None
        except ValueError:
            raise self._foreign(method, path) from None

    # --- jobs -------------------------------------------------------------------------------------------------------

    async def add_job(self, queue: str, data: Mapping[str, Any], *, idempotency_key: str | None = None) -> dict[str, Any]:
        """`{jobId, queueName, name, state[, runId]}`."""
        return await self._object("POST", f"/api/jobs/{_part(queue)}", body=dict(data), idempotency_key=idempotency_key)

    async def job(self, queue: str, job_id: str) -> dict[str, Any]:
        return await self._object("GET", f"/api/jobs/status/{_part(queue)}/{_part(job_id)}")

    async def stats(self, queue: str | None = None) -> dict[str, Any]:
        """One queue's counts, or `{queues: {<name>: …}}`."""
        return await self._object("GET", f"/api/jobs/stats/{_part(queue)}" if queue else "/api/jobs/stats")

    # --- workflows and runs -----------------------------------------------------------------------------------------

    async def workflows(self) -> list[dict[str, Any]]:
        return list((await self._object("GET", "/api/workflows"))["items"])

    async def workflow(self, name: str) -> dict[str, Any]:
        return await self._object("GET", f"/api/workflows/{_part(name)}")

    async def start_run(self, workflow: str, input: Any, *, user_id: str | None = None, idempotency_key: str | None = None) -> dict[str, Any]:
        """`{runId, workflow, status}`."""
        body = {"input": input} | ({"userId": user_id} if user_id else {})
        return await self._object("POST", f"/api/workflows/{_part(workflow)}/runs", body=body, idempotency_key=idempotency_key)

    async def upload(
        self,
        path: Path,
        *,
        filename: str | None = None,
        mime_type: str | None = None,
        document_id: str | None = None,
        user_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Store a file and start the workflow bound to uploads: `{runId, workflow, status, documentId}`."""
        # Names as browsers and curl send them; aiohttp's default percent-encodes, and the service would store that.
        form = aiohttp.FormData(default_to_multipart=True, quote_fields=False)
        for name, value in (("documentId", document_id), ("mimeType", mime_type), ("userId", user_id)):
            if value is not None:
                form.add_field(name, value)
        with path.open("rb") as file:
            form.add_field("file", file, filename=filename or path.name, content_type=mime_type or "application/octet-stream")
            return await self._object("POST", "/api/documents", form=form, idempotency_key=idempotency_key)

    async def run(self, run_id: str) -> dict[str, Any]:
        return await self._object("GET", f"/api/runs/{_part(run_id)}")

    def runs(
        self, *, status: str | None = None, workflow: str | None = None, user_id: str | None = None, limit: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Newest first, page by page, up to `limit` in all."""
        return self._pages("/api/runs", {"status": status, "workflow": workflow, "userId": user_id}, limit)

    def timeline(self, run_id: str) -> AsyncIterator[dict[str, Any]]:
        return self._pages(f"/api/runs/{_part(run_id)}/events", {}, None)

    async def cancel(self, run_id: str) -> dict[str, Any]:
        return await self._object("POST", f"/api/runs/{_part(run_id)}/cancel")

    async def retry(self, run_id: str) -> dict[str, Any]:
        return await self._object("POST", f"/api/runs/{_part(run_id)}/retry")

    # --- events -----------------------------------------------------------------------------------------------------

    async def events(self, *, after: str | None = None, types: Sequence[str] = (), limit: int | None = None) -> dict[str, Any]:
        """One page `{items, nextCursor}`."""
        return await self._object("GET", "/api/events", query={"after": after, "types": ",".join(types) or None, "limit": limit})

    async def publish(self, events: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None) -> list[str]:
        each = [dict(event) for event in events]
        # Of a single one, errors name no place in a list.
        body = each[0] if len(each) == 1 else each
        return list((await self._object("POST", "/api/events", body=body, idempotency_key=idempotency_key))["ids"])

    async def event_types(self) -> list[dict[str, Any]]:
        """Hookline's own with their schemas and examples, then those that were registered."""
        return list((await self._object("GET", "/api/events/types"))["items"])

    async def event_type(self, type: str) -> dict[str, Any]:
        return await self._object("GET", f"/api/events/types/{_part(type)}")

    async def register_event_type(
        self, type: str, *, description: str = "", schema: Mapping[str, Any] | None = None, example: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A type of one's own, or all of it anew; from then on only `data` that fits the schema can be published."""
        body = {"description": description, "schema": schema, "example": example}
        return await self._object("PUT", f"/api/events/types/{_part(type)}", body=body)

    async def forget_event_type(self, type: str) -> None:
        await self.request("DELETE", f"/api/events/types/{_part(type)}")

    async def follow(self, *, after: str | None = None, types: Sequence[str] = ()) -> AsyncGenerator[dict[str, Any], None]:
        """Events as they happen, until the connection ends; pass the last one's `cursor` as `after` to go on.

        Where the log no longer reaches back to `after`, the first item is `{"type": "gap", "data": {after, earliest}}`.
        """
        query = {name: value for name, value in (("after", after), ("types", ",".join(types))) if value}
        # The service writes a comment every 15 s, so that silence for longer means that the line is dead.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        try:
            async with self._open.get(f"{self._url}/api/events/stream", params=query, timeout=timeout) as response:
                if response.status >= 400:
                    raise RequestFailed(response.status, _problem(response.status, await response.read()))
                async for item in _events(response.content):
                    yield item
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error

    # --- webhooks ---------------------------------------------------------------------------------------------------

    async def create_endpoint(self, url: str, types: Sequence[str], **more: Any) -> dict[str, Any]:
        """The endpoint with its secret, which is shown this once."""
        return await self._object("POST", "/api/webhooks/endpoints", body={"url": url, "types": list(types), **more})

    def endpoints(self) -> AsyncIterator[dict[str, Any]]:
        return self._pages("/api/webhooks/endpoints", {}, None)

    async def endpoint(self, endpoint_id: str) -> dict[str, Any]:
        return await self._object("GET", f"/api/webhooks/endpoints/{_part(endpoint_id)}")

    async def update_endpoint(self, endpoint_id: str, **changes: Any) -> dict[str, Any]:
        return await self._object("PATCH", f"/api/webhooks/endpoints/{_part(endpoint_id)}", body=changes)

    async def delete_endpoint(self, endpoint_id: str) -> None:
        await self.request("DELETE", f"/api/webhooks/endpoints/{_part(endpoint_id)}")

    async def enable_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        return await self._object("POST", f"/api/webhooks/endpoints/{_part(endpoint_id)}/enable")

    async def pause_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        return await self._object("POST", f"/api/webhooks/endpoints/{_part(endpoint_id)}/pause")

    async def rotate_secret(self, endpoint_id: str, **how: Any) -> dict[str, Any]:
        """The endpoint with its new secret, which is shown this once; `secret` and `overlap` as the API takes them."""
        return await self._object("POST", f"/api/webhooks/endpoints/{_part(endpoint_id)}/rotate-secret", body=how or None)

    async def test_endpoint(self, endpoint_id: str) -> dict[str, Any]:
        """What came of a `webhook.test` sent to it now."""
        return await self._object("POST", f"/api/webhooks/endpoints/{_part(endpoint_id)}/test")

    def deliveries(
        self,
        *,
        status: str | None = None,
        endpoint: str | None = None,
        type: str | None = None,
        since: str | None = None,
        until: str | None = None,
        event: str | None = None,
        run: str | None = None,
        last_status: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        query = {"status": status, "endpoint": endpoint, "type": type, "since": since, "until": until, "event": event, "run": run}
        return self._pages("/api/webhooks/deliveries", query | {"lastStatus": last_status}, limit)

    def undelivered(
        self, *, endpoint: str | None = None, run: str | None = None, type: str | None = None, limit: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Oldest first, each with its `why`."""
        return self._pages("/api/webhooks/undelivered", {"endpoint": endpoint, "run": run, "type": type}, limit)

    async def explain(self, *, event: str | None = None, run: str | None = None, endpoint: str | None = None) -> dict[str, Any]:
        """`{items: [{verdict, reason, advice, facts, …}], truncated}`."""
        return await self._object("GET", "/api/webhooks/explain", query={"event": event, "run": run, "endpoint": endpoint})

    async def delivery(self, delivery_id: str) -> dict[str, Any]:
        return await self._object("GET", f"/api/webhooks/deliveries/{_part(delivery_id)}")

    async def replay(self, delivery_id: str) -> dict[str, Any]:
        return await self._object("POST", f"/api/webhooks/deliveries/{_part(delivery_id)}/replay")

    async def start_replay(self, endpoint_id: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A replay of many deliveries, or what a dry run has counted."""
        return await self._object("POST", f"/api/webhooks/endpoints/{_part(endpoint_id)}/replay", body=dict(asked))

    def replays(self, *, limit: int | None = None) -> AsyncIterator[dict[str, Any]]:
        return self._pages("/api/webhooks/replays", {}, limit)

    async def show_replay(self, replay_id: str) -> dict[str, Any]:
        return await self._object("GET", f"/api/webhooks/replays/{_part(replay_id)}")

    async def cancel_replay(self, replay_id: str) -> dict[str, Any]:
        return await self._object("POST", f"/api/webhooks/replays/{_part(replay_id)}/cancel")

    # --- health -----------------------------------------------------------------------------------------------------

    async def ready(self) -> dict[str, Any]:
        """What `/health/ready` says, also when the service is not ready."""
        try:
            return await self._object("GET", "/health/ready")
        except RequestFailed as error:
            if "parts" in error.problem:
                return error.problem
            raise

    # --- within -----------------------------------------------------------------------------------------------------

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client as: async with Client(url, token) as client")
        return self._session

    async def _object(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        found = await self.request(method, path, **arguments)
        if not isinstance(found, dict):
            raise self._foreign(method, path)
        return found

    async def _pages(self, path: str, query: Mapping[str, Any], limit: int | None) -> AsyncIterator[dict[str, Any]]:
        cursor, left = None, limit
        while left is None or left > 0:
            page = await self._object("GET", path, query={**query, "cursor": cursor, "limit": min(left, 100) if left else None})
            for item in page["items"]:
                yield item
            left = None if left is None else left - len(page["items"])
            cursor = page["nextCursor"]
            if cursor is None:
                return

    def _foreign(self, method: str, path: str) -> RequestFailed:
        return RequestFailed(502, {"detail": f"{self._url} is not a Hookline service: it answered {method} {path} without a JSON object"})

    def _unreachable(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._url} cannot be reached: {why_unreachable(error)}")


def why_unreachable(error: Exception) -> str:
    """In the system's words where it has some: of a failed connection aiohttp's tell whom it was to reach, and how TLS was set."""
    cause = getattr(error, "os_error", None)
    number = getattr(cause, "errno", None)
    return (os.strerror(number) if number and number > 0 else getattr(cause, "strerror", None)) or str(error) or type(error).__name__


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    kind, data = "", b""
    buffer = b""
    async for chunk in content.iter_any():
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            name, _, value = line.partition(b": ")
            if name == b"event":
                kind = value.decode()
            elif name == b"data":
                data = value
            elif not line and data:
                item = json.loads(data)
                yield {"type": kind, "data": item} if kind else item
                kind, data = "", b""


def _problem(status: int, raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"detail": f"HTTP {status} without a problem document: is this a Hookline service?"}


def _part(text: str) -> str:
    return quote(text, safe="")
