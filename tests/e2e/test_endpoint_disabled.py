"""An endpoint of config.yaml that wants nothing any more: whom that is told, what is kept for it, and what no log tells."""

from pathlib import Path
from typing import Any

from pipeline.client import Client
from tests.support.chains import no_libraries
from tests.support.service import Service, token
from tests.support.subscriber import SECRET, Subscriber
from webhooks.scripted import ScriptedReceiver

SECRETS = (SECRET.removeprefix("whsec_"), "in-the-query", "in-a-header", "in-the-answer")


async def _first_of_each(client: Client, *types: str) -> dict[str, dict[str, Any]]:
    """Events by type, as soon as there is one of each."""
    found: dict[str, dict[str, Any]] = {}
    async for event in client.follow(after="0-0", types=types):
        found.setdefault(event["type"], event)
        if len(found) == len(types):
            break
    return found


async def test_it_is_told_to_others_and_to_people_and_keeps_what_it_had_over_a_restart(tmp_path: Path) -> None:
    async with Subscriber() as others:
        with ScriptedReceiver() as receiver:
            receiver.secret = SECRET
            receiver.respond(410, body="in-the-answer")
            ill = {
                **{"id": "ill", "url": f"{receiver.url}?key=in-the-query", "types": ["order.*", "endpoint.*"], "secret": SECRET},
                "headers": {"authorization": "Bearer in-a-header"},
            }
            webhooks = {"endpoints": [ill, others.endpoint("order.*", "endpoint.*")], "notify": {"type": "email", "to": "ops@example.com"}}
            config = {"queues": no_libraries(), "webhooks": webhooks}
            async with Service(tmp_path, config) as service, Client(service.url, token()) as client:
                (first,) = await client.publish([{"type": "order.paid", "data": {"orderId": 1}}])
                told = await _first_of_each(client, "endpoint.disabled", "job.completed")
                disabled, notice = told["endpoint.disabled"], told["job.completed"]["data"]["result"]["got"]
                assert (disabled["data"]["endpoint"], disabled["data"]["eventId"], disabled["data"]["reason"]) == ("ill", first, "gone")
                assert (notice["type"], notice["to"], notice["subject"]) == ("email", "ops@example.com", "Webhook endpoint ill is disabled")
                (late,) = await client.publish([{"type": "order.paid", "data": {"orderId": 2}}])
                await others.until({first, disabled["id"], late})
            async with Service(tmp_path, config) as service, Client(service.url, token()) as client:
                assert (await client.endpoint("ill"))["status"] == "disabled", "a restart does not enable it"
                found = {delivery["eventId"]: delivery async for delivery in client.deliveries(endpoint="ill")}
                expected = {first: ("pending", None), late: ("skipped", "endpoint-disabled")}
                assert {id: (one["status"], one["reason"]) for id, one in found.items()} == expected, "and nothing about itself"
                assert [one["why"]["verdict"] async for one in client.undelivered(endpoint="ill")] == ["disabled", "skipped"]
                assert (await client.delivery(found[first]["id"]))["attempts"][0]["response"] == "in-the-answer"
                await client.enable_endpoint("ill")
                await client.replay(found[late]["id"])
                received = await receiver.wait(3, seconds=30)
                assert {one.id for one in received[1:]} == {first, late}
                assert received[2].headers["authorization"] == "Bearer in-a-header"
            assert "attempted" in service.log
            for secret in SECRETS:
                assert secret not in service.log
    assert others.refused == 0
