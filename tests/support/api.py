"""The HTTP API over a real store, queues, runs, storage and webhooks, served on a loopback port; no worker runs."""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from pipeline.api.app import RUNNER, create_app
from pipeline.api.feed import Feed
from pipeline.api.services import Services
from pipeline.auth import Authenticator, Role, issue
from pipeline.config import Config
from pipeline.eventtypes import EventTypes
from pipeline.filters import compile_filter
from pipeline.history import History
from pipeline.jobs.callbacks import Callbacks, Links
from pipeline.jobs.queues import Queues
from pipeline.storage import Storage
from pipeline.store.keys import Keys
from pipeline.store.log import Log
from pipeline.store.memory import Memory
from pipeline.workflows.definition import compile_all
from pipeline.workflows.definitions import Definitions
from pipeline.workflows.runs import Runs
from pipeline.workflows.transitions import Transitions
from webhooks import Webhooks

SECRET = "0123456789abcdef0123456789abcdef"
SERVICE_KEY = "hk_0123456789abcdefghijklmn"
DOCUMENT_UPLOAD = {
    "input": {"type": "object", "required": ["documentId", "filename", "mimeType", "fileSize"]},
    "steps": {
        "process": {
            "queue": "document-processing",
            "job": "process-document",
            "with": {"documentId": "${{ input.documentId }}", "userId": "${{ run.userId }}", "filename": "${{ input.filename }}"},
        },
        "notify": {
            "needs": ["process"],
            "queue": "notifications",
            "job": "send-notification",
            "with": {"userId": "${{ run.userId }}", "type": "email", "subject": "Done", "message": "Done"},
        },
    },
}
DOCUMENT = {"documentId": "doc-123", "userId": "alice", "filename": "a.pdf", "mimeType": "application/pdf", "fileSize": 1024}
NOTIFICATION = {"userId": "alice", "type": "email", "subject": "Hello", "message": "World"}


@dataclass(kw_only=True)
class Reply:
    """An answer that has come whole."""

    status: int
    headers: Any
    text: str
    json: Any


@dataclass(kw_only=True)
class Api:
    """A running API and its callers."""

    app: web.Application
    config: Config
    services: Services
    url: str
    session: aiohttp.ClientSession
    feed: Feed
    webhooks: Webhooks
    ready: dict[str, Any] = field(default_factory=lambda: {"ok": True, "parts": {}})
    """What `/health/ready` will say."""

    def token(self, sub: str = "alice", role: Role = "user", ttl: int = 60_000) -> str:
        return issue(self.config.auth, sub, role, ttl, now=round(time.time() * 1000))

    async def call(
        self, method: str, path: str, *, as_: str | None = "user", body: Any = None, headers: dict[str, str] | None = None, **more: Any
    ) -> Reply:
        """`as_`: user (alice), bob, admin, service, a token, or None for nobody."""
        sent = {"X-Request-Id": "req-1", **(headers or {})}
        token = {"user": self.token(), "bob": self.token("bob"), "admin": self.token("root", "admin"), "service": SERVICE_KEY}.get(as_ or "", as_)
        if token:
            sent.setdefault("Authorization", f"Bearer {token}")
        if body is not None:
            more["json"] = body
        async with self.session.request(method, self.url + path, headers=sent, **more) as response:
            text = await response.text()
            is_json = response.content_type.endswith("json") and text
            return Reply(
                status=response.status, headers=response.headers, text=text, json=await response.json(content_type=None) if is_json else None
            )


@contextlib.asynccontextmanager
async def serving(
    redis: Redis, folder: Path, *, workflows: dict[str, Any] | None = None, feed: dict[str, Any] | None = None, **sections: Any
) -> AsyncIterator[Api]:
    """`sections`: those of config.yaml; `feed`: the settings of the feed behind the stream."""
    auth = {"jwt_secret": SECRET, "api_keys": {"files": SERVICE_KEY}} | sections.pop("auth", {})
    config = Config(auth=auth, workflows=workflows or {}, storage={"url": str(folder)}, **sections)
    keys = Keys()
    queues = Queues(redis, config)
    definitions = Definitions(redis, keys, compile_all(config))
    runs = Runs(redis, keys, queues, definitions, Transitions(redis, keys, queues, definitions))
    log = Log(redis, keys.log)
    history = History(redis, keys, log, "webhooks")
    webhooks = Webhooks(
        redis=redis, prefix=keys.webhooks, history=history, encryption_keys=[b"k" * 32], allow_networks=("127.0.0.0/8",), filters=compile_filter
    )

    async def ready() -> dict[str, Any]:
        return api.ready

    services = Services(
        config=config,
        redis=redis,
        keys=keys,
        queues=queues,
        runs=runs,
        log=log,
        memory=Memory(redis),
        storage=Storage(str(folder)),
        callbacks=Callbacks(redis, prefix=config.redis.prefix, bull_prefix=config.bullmq.prefix),
        links=Links("http://hookline.test", [bytes(32)]),
        event_types=EventTypes(redis, keys, strict=config.events.strict),
        webhooks=webhooks,
        authenticator=Authenticator(config.auth),
        matches=webhooks.matches,
        ready=ready,
    )
    live = Feed(log, **(feed or {}))
    app = create_app(services, feed=live)
    server = TestServer(app)
    await server.start_server(**RUNNER)
    async with server, aiohttp.ClientSession() as session:
        api = Api(app=app, config=config, services=services, url=str(server.make_url("")).rstrip("/"), session=session, feed=live, webhooks=webhooks)
        yield api
