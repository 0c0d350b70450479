"""A route as data: what the application serves and the OpenAPI document describes come from the same table."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from aiohttp import web
from pydantic import BaseModel

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access(Enum):
    """Who may call a route; whose objects are then seen is for the handler to decide."""

    PUBLIC = "public"
    JOBS = "jobs"
    """Anyone signed in, and with `auth.anonymous_jobs` also who sends no token."""
    SIGNED_IN = "signed-in"
    SERVICE = "service"
    """Services and admins."""
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    method: str
    path: str
    handler: Handler
    summary: str
    access: Access = Access.SIGNED_IN
    body: type[BaseModel] | None = None
    optional: bool = False
    """Whether the body may be left out."""
    many: int = 0
    """How many bodies may come as a list instead of one; 0: no list."""
    multipart: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    status: int = 200
    answer: type[BaseModel] | None = None
    """None: no body, or one of another media type than JSON."""
    media: str = "application/json"
    idempotent: bool = False
    """Takes an `Idempotency-Key`."""
    problems: tuple[int, ...] = ()
    """Statuses of the problems that are this route's own, beside those any route may answer with."""
    also: tuple[int, ...] = ()
    """Further statuses with the same `answer`."""
    listed: bool = True
    """Whether the OpenAPI document shows it."""
