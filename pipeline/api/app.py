"""The HTTP application: every resource's routes, served with the same middlewares."""

from typing import Any

from aiohttp import web

from pipeline.api import callbacks, documents, erasure, events, eventtypes, health, jobs, metrics, middleware, openapi, runs, webhooks, workflows
from pipeline.api.feed import FEED, Feed
from pipeline.api.routing import Route
from pipeline.api.services import SERVICES, Services

ROUTES: tuple[Route, ...] = (
    *jobs.ROUTES,
    *documents.ROUTES,
    *erasure.ROUTES,
    *workflows.ROUTES,
    *runs.ROUTES,
    *eventtypes.ROUTES,
    *events.ROUTES,
    *callbacks.ROUTES,
    *webhooks.ROUTES,
    *health.ROUTES,
    *metrics.ROUTES,
    *openapi.ROUTES,
)

RUNNER: dict[str, Any] = {"access_log": None, "auto_decompress": False}
"""How `web.AppRunner` serves it. It writes its own lines. Compressed bodies are refused: aiohttp unpacks even those it then
throws away, without a bound and without letting anybody else be served meanwhile."""


def create_app(services: Services, *, feed: Feed | None = None) -> web.Application:
    """The application, to be served with the settings RUNNER.

    `feed` is the reader behind `/api/events/stream`; it and the authenticator are closed with the application.
    """
    app = web.Application(
        client_max_size=services.config.server.body_limit, middlewares=[middleware.observe, middleware.as_problems, middleware.authenticated]
    )
    app[SERVICES] = services
    app[FEED] = feed or Feed(services.log)
    app[middleware.ROUTES] = {}
    app[openapi.DOCUMENT] = openapi.document(ROUTES)
    for route in ROUTES:
        # A stream has no end that a HEAD could answer with.
        methods = ["GET", "HEAD"] if route.method == "GET" and route.media == "application/json" else [route.method]
        for method in methods:
            added = app.router.add_route(method, route.path, route.handler, expect_handler=middleware.expect)
            assert added.resource
            app[middleware.ROUTES][method, added.resource.canonical] = route
    app.on_response_prepare.append(middleware.on_prepare)
    app.on_shutdown.append(_stop_streams)
    app.on_cleanup.append(_close_authenticator)
    return app


async def _stop_streams(app: web.Application) -> None:
    await app[FEED].close()


async def _close_authenticator(app: web.Application) -> None:
    await app[SERVICES].authenticator.close()
