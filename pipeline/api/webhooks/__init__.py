"""The package `webhooks` over HTTP, for admins."""

from pipeline.api.routing import Route
from pipeline.api.webhooks import deliveries, endpoints, explain, replays

ROUTES: tuple[Route, ...] = (*endpoints.ROUTES, *deliveries.ROUTES, *replays.ROUTES, *explain.ROUTES)
