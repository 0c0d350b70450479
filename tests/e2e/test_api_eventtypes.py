"""The catalogue of event types: Hookline's own for everybody, a team's own registered by admins, and publications held against them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline.catalogue import OWN
from pipeline.eventtypes import MAX_TYPES
from tests.support.api import Api, Reply, serving

TYPES = "/api/events/types"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["invoiceId", "total"],
    "properties": {"invoiceId": {"type": "string"}, "total": {"type": "number", "minimum": 0}, "lines": {"items": {"$ref": "#/$defs/line"}}},
    "$defs": {"line": {"type": "object", "required": ["sku"]}},
}
EXAMPLE: dict[str, Any] = {"invoiceId": "i-1", "total": 90.5, "lines": [{"sku": "a"}]}
PAID = {"description": "An invoice was paid.", "schema": SCHEMA, "example": EXAMPLE}


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(redis, tmp_path) as api:
        yield api


async def put(api: Api, type: str = "invoice.paid", **body: Any) -> Reply:
    return await api.call("PUT", f"{TYPES}/{type}", as_="admin", body=body)


async def publish(api: Api, body: Any, **more: Any) -> Reply:
    return await api.call("POST", "/api/events", as_="service", body=body, **more)


# --- the catalogue ----------------------------------------------------------------------------------------------------


async def test_everybody_who_is_signed_in_reads_the_catalogue(api: Api) -> None:
    await put(api, **PAID)
    items = (await api.call("GET", TYPES, as_="user")).json["items"]
    assert [item["type"] for item in items] == [*(event.type for event in OWN), "invoice.paid"]
    assert {(item["source"], item["updatedAt"] is None) for item in items} == {("hookline", True), ("registered", False)}
    one = (await api.call("GET", f"{TYPES}/job.completed", as_="user")).json
    assert one == items[0]
    assert one["schema"]["required"] == ["queue", "job", "jobId", "attempts", "startedAt", "finishedAt", "durationMs", "result"]
    assert (await api.call("GET", f"{TYPES}/invoice.lost", as_="user")).status == 404
    assert (await api.call("GET", TYPES, as_=None)).status == 401


async def test_admins_register_replace_and_forget(api: Api) -> None:
    made = await put(api, **PAID)
    shown = made.json
    assert (made.status, shown["source"]) == (201, "registered")
    assert {name: shown[name] for name in PAID} == PAID
    assert (await api.call("GET", f"{TYPES}/invoice.paid", as_="user")).json == shown
    replaced = await put(api, description="Paid.")
    assert (replaced.status, replaced.json["schema"], replaced.json["example"], replaced.json["description"]) == (200, None, None, "Paid.")
    assert (await api.call("DELETE", f"{TYPES}/invoice.paid", as_="admin")).status == 204
    assert (await api.call("DELETE", f"{TYPES}/invoice.paid", as_="admin")).status == 404
    for as_ in ("user", "service"):
        assert (await api.call("PUT", f"{TYPES}/invoice.paid", as_=as_, body=PAID)).status == 403
        assert (await api.call("DELETE", f"{TYPES}/invoice.paid", as_=as_)).status == 403


@pytest.mark.parametrize("type", ["job.completed", "workflow.mine", "document.x", "a..b", "a%20b", "a.*", "a" * 129])
async def test_reserved_and_impossible_types_are_not_registered(api: Api, type: str) -> None:
    assert (await put(api, type, **PAID)).status == 422
    assert (await api.call("DELETE", f"{TYPES}/{type}", as_="admin")).status == 422


@pytest.mark.parametrize(
    ("body", "path", "says"),
    [
        ({"schema": {"type": "objekt"}}, "schema.type", "not a JSON Schema"),
        ({"schema": {"properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}}}, 'schema.properties.a."$ref"', "nothing is fetched"),
        ({"schema": {"properties": {"a": {"pattern": "(?=x)"}}}}, "schema.properties.a.pattern", "look-around"),
        ({"schema": {"description": "x" * 40_000}}, "schema", "at most 32,768"),
        ({"schema": SCHEMA, "example": {"invoiceId": "i-1", "total": -1}}, "example.total", "less than the minimum of 0"),
        ({"schema": SCHEMA, "example": {"invoiceId": "i-1", "total": 1, "lines": [{}]}}, "example.lines[0]", "'sku' is a required property"),
        ({"schema": []}, "schema", "must be an object"),
        ({"shema": SCHEMA}, "shema", "is not a parameter"),
        ({"description": "x" * 501}, "description", "at most 500"),
    ],
)
async def test_what_cannot_be_registered_says_where(api: Api, body: dict[str, Any], path: str, says: str) -> None:
    refused = await put(api, **body)
    assert (refused.status, refused.json["errors"][0]["path"]) == (422, path)
    assert says in refused.json["errors"][0]["message"]
    assert (await api.call("GET", f"{TYPES}/invoice.paid", as_="user")).status == 404


async def test_there_are_so_many_types_and_no_more(api: Api, redis: Redis) -> None:
    await put(api, **PAID)
    text = await redis.hget("hookline:event-types", "invoice.paid")
    await redis.hset("hookline:event-types", mapping={f"t.{n}": text or "" for n in range(MAX_TYPES - 1)})
    assert (await put(api, "one.more", **PAID)).status == 409
    assert (await put(api, "invoice.paid", **PAID)).status == 200


# --- what is published -------------------------------------------------------------------------------------------------


async def test_what_does_not_fit_its_schema_is_refused_with_every_fault_and_nothing_is_told(api: Api) -> None:
    await put(api, **PAID)
    refused = await publish(api, [{"type": "invoice.paid", "data": EXAMPLE}, {"type": "invoice.paid", "data": {"total": -1, "lines": [{}]}}])
    assert refused.status == 422
    assert refused.json["errors"] == [
        {"path": "1.data", "message": "'invoiceId' is a required property"},
        {"path": "1.data.total", "message": "-1 is less than the minimum of 0"},
        {"path": "1.data.lines[0]", "message": "'sku' is a required property"},
    ]
    assert await api.services.log.earliest() is None
    one = await publish(api, {"type": "invoice.paid", "data": {"invoiceId": 1, "total": 1}})
    assert one.json["errors"] == [{"path": "data.invoiceId", "message": "1 is not of type 'string'"}]
    assert (await publish(api, {"type": "invoice.paid", "data": EXAMPLE})).status == 202
    assert (await publish(api, {"type": "invoice.lost", "data": {"total": -1}})).status == 202, "types without registration stay allowed"


async def test_large_data_is_checked_as_well(api: Api) -> None:
    await put(api, **PAID)
    large = {"invoiceId": "i-1", "total": 1, "lines": [{"sku": "x" * 100} for _ in range(300)]}
    assert (await publish(api, {"type": "invoice.paid", "data": large})).status == 202
    refused = await publish(api, {"type": "invoice.paid", "data": large | {"total": -1}})
    assert (refused.status, refused.json["errors"][0]["path"]) == (422, "data.total")


async def test_every_process_goes_by_what_was_registered_last(api: Api, redis: Redis, tmp_path: Path) -> None:
    async with serving(redis, tmp_path) as other:
        await put(api, **PAID)
        wrong = {"type": "invoice.paid", "data": {}}
        assert [(await publish(one, wrong)).status for one in (api, other)] == [422, 422]
        await put(other, schema={"type": "object"})
        assert [(await publish(one, wrong)).status for one in (api, other)] == [202, 202]
        await put(api, **PAID)
        assert (await publish(other, wrong)).status == 422
        await api.call("DELETE", f"{TYPES}/invoice.paid", as_="admin")
        assert (await publish(other, wrong)).status == 202


async def test_what_was_accepted_once_is_answered_as_it_was_though_the_schema_has_changed(api: Api) -> None:
    event, key = {"type": "invoice.paid", "data": {"total": 1}}, {"Idempotency-Key": "k"}
    first = await publish(api, event, headers=key)
    await put(api, **PAID)
    again = await publish(api, event, headers=key)
    assert (first.status, again.status, again.json) == (202, 202, first.json)
    refused = await publish(api, event, headers={"Idempotency-Key": "k2"})
    mended = await publish(api, event, headers={"Idempotency-Key": "k2"})
    assert (refused.status, mended.status) == (422, 422), "what was refused keeps no key"
    await put(api, schema=None)
    assert (await publish(api, event, headers={"Idempotency-Key": "k2"})).status == 202


async def test_an_event_has_at_most_256_kib(api: Api) -> None:
    room = 262_144 - len('{"text":""}')
    assert (await publish(api, {"type": "a", "data": {"text": "x" * room}})).status == 202
    refused = await publish(api, [{"type": "a", "data": {}}, {"type": "a", "data": {"text": "x" * (room + 1)}}])
    assert (refused.status, refused.json["type"]) == (413, "urn:hookline:problem:too-large")
    assert refused.json["errors"] == [{"path": "1.data", "message": "has 262,145 bytes as JSON; an event has at most 262,144"}]
    assert refused.json["hint"] == "publish what identifies it, and let receivers fetch the rest"


async def test_strictly_only_registered_types_are_published(redis: Redis, tmp_path: Path) -> None:
    async with serving(redis, tmp_path, events={"strict": True}) as api:
        await put(api, **PAID)
        refused = await publish(api, [{"type": "invoice.paid", "data": EXAMPLE}, {"type": "invoice.payed", "data": {}}])
        assert (refused.status, [fault["path"] for fault in refused.json["errors"]]) == (422, ["1.type"])
        assert "did you mean 'invoice.paid'?" in refused.json["errors"][0]["message"]
        assert (await publish(api, {"type": "invoice.paid", "data": EXAMPLE})).status == 202
