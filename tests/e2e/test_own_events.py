"""A team's own events through the whole service: registered, published, filtered, delivered thin and full, verified."""

from pathlib import Path
from typing import Any

import aiohttp

from pipeline.client import Client
from tests.support.chains import no_libraries
from tests.support.service import Service, token
from tests.support.subscriber import Subscriber

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["invoiceId", "total"],
    "properties": {"invoiceId": {"type": "string"}, "total": {"type": "number", "minimum": 0}, "customer": {"type": "object"}},
}


def paid(number: int, total: float) -> dict[str, Any]:
    return {"type": "invoice.paid", "data": {"invoiceId": f"i-{number}", "total": total, "customer": {"name": "Ann", "customerId": "c-1"}}}


async def test_hookline_serves_the_webhooks_of_other_events_too(tmp_path: Path) -> None:
    async with Subscriber() as thin, Subscriber() as full:
        endpoints = [
            thin.endpoint("invoice.*", id="thin") | {"payload": "thin"},
            full.endpoint("invoice.paid", id="full") | {"filter": 'event.data.total >= 100 && event.type == "invoice.paid"'},
        ]
        config = {"queues": no_libraries(), "webhooks": {"allow_networks": ["127.0.0.0/8"], "endpoints": endpoints}}
        async with Service(tmp_path, config) as service:
            headers = {"Authorization": f"Bearer {token()}"}
            body = {"description": "An invoice was paid.", "schema": SCHEMA, "example": paid(1, 90.5)["data"]}
            async with (
                aiohttp.ClientSession(service.url, headers=headers) as session,
                session.put("/api/events/types/invoice.paid", json=body) as registered,
            ):
                assert registered.status == 201
            async with Client(service.url, token()) as client:
                small, large = await client.publish([paid(1, 90.5), paid(2, 250)], idempotency_key="k")
                assert await client.publish([paid(1, 90.5), paid(2, 250)], idempotency_key="k") == [small, large]
                (other,) = await client.publish([{"type": "invoice.lost", "data": {"invoiceId": "i-3", "why": "fire"}}])
                await thin.until({small, large, other})
                await full.until({large})
                assert {id: body["data"] for id, body in thin.events.items()} == {
                    small: {"invoiceId": "i-1"},
                    large: {"invoiceId": "i-2"},
                    other: {"invoiceId": "i-3"},
                }
                assert {id: (body["type"], body["data"]) for id, body in full.events.items()} == {large: ("invoice.paid", paid(2, 250)["data"])}
                deliveries = [delivery async for delivery in client.deliveries()]
                skipped = [(one["eventId"], one["endpoint"], one["reason"]) for one in deliveries if one["status"] == "skipped"]
                assert (len(deliveries), skipped) == (5, [(small, "full", "filtered")])
        assert thin.refused == full.refused == 0
