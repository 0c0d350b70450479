"""What the HTTP API is given to work with, and where its handlers find it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from pipeline.auth import Authenticator, Principal
from pipeline.config import Config
from pipeline.eventtypes import EventTypes
from pipeline.jobs.callbacks import Callbacks, Links
from pipeline.jobs.queues import Queues
from pipeline.storage import Storage
from pipeline.store.connection import Store
from pipeline.store.keys import Keys
from pipeline.store.log import Log
from pipeline.store.memory import Memory
from pipeline.workflows.runs import Runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    config: Config
    redis: Store
    keys: Keys
    queues: Queues
    runs: Runs
    log: Log
    memory: Memory
    storage: Storage
    callbacks: Callbacks
    links: Links
    event_types: EventTypes
    webhooks: Any
    """A `webhooks.Webhooks`; only `api/webhooks/` may know that package."""
    authenticator: Authenticator
    matches: Callable[[Sequence[str], str], bool]
    """Whether one of the type patterns (`job.*`) matches an event's type."""
    ready: Callable[[], Awaitable[dict[str, Any]]]
    """`{ok: bool, parts: {<part>: {ok: bool, behindMs?, …}}}`: which part is behind, and by how long."""


SERVICES = web.AppKey("services", Services)
PRINCIPAL = web.RequestKey("principal", Principal)
REQUEST_ID = web.RequestKey("request_id", str)


def services_of(request: web.Request) -> Services:
    return request.app[SERVICES]


def principal_of(request: web.Request) -> Principal:
    return request[PRINCIPAL]
