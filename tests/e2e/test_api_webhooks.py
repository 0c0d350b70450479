"""Admins create, change and watch endpoints; deliveries are listed, shown with their attempts, and sent again."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from pipeline.store.event import Event
from pipeline.store.group import Group
from tests.support.api import DOCUMENT, DOCUMENT_UPLOAD, Api, serving
from tests.support.receiver import raw_server
from webhooks import Declared, Webhooks

ENDPOINTS = "/api/webhooks/endpoints"
DELIVERIES = "/api/webhooks/deliveries"
REPLAYS = "/api/webhooks/replays"
NEW = {"url": "http://127.0.0.1:9/hooks", "types": ["job.completed", "workflow.*"]}
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(redis, tmp_path) as api:
        yield api


async def _create(api: Api, **more: Any) -> dict[str, Any]:
    reply = await api.call("POST", ENDPOINTS, as_="admin", body=NEW | more)
    assert reply.status == 201, reply.text
    return dict(reply.json)


# --- endpoints --------------------------------------------------------------------------------------------------------


async def test_an_endpoint_is_created_and_its_secret_shown_once(api: Api, redis: Redis) -> None:
    reply = await api.call("POST", ENDPOINTS, as_="admin", body=NEW)
    created = reply.json
    assert reply.status == 201
    assert reply.headers["Location"] == f"{ENDPOINTS}/{created['id']}"
    assert created["secret"].startswith("whsec_")
    assert (created["url"], created["types"], created["status"], created["source"]) == (NEW["url"], NEW["types"], "enabled", "api")
    shown = (await api.call("GET", reply.headers["Location"], as_="admin")).json
    assert shown == {name: value for name, value in created.items() if name != "secret"}
    assert (await api.call("GET", ENDPOINTS, as_="admin")).json == {"items": [shown], "nextCursor": None}


async def test_a_filter_is_checked_when_it_is_given(api: Api) -> None:
    wrong, fault = {"filter": "event.dat.score < 50"}, {"path": "filter", "message": "character 7: event has no 'dat'; did you mean 'data'?"}
    refused = await api.call("POST", ENDPOINTS, as_="admin", body=NEW | wrong)
    assert (refused.status, refused.json["errors"]) == (422, [fault])
    created = await _create(api, filter="event.data.score < 50", payload="thin")
    assert (created["filter"], created["payload"]) == ("event.data.score < 50", "thin")
    changed = await api.call("PATCH", f"{ENDPOINTS}/{created['id']}", as_="admin", body=wrong)
    assert (changed.status, changed.json["errors"]) == (422, [fault])
    gone = await api.call("PATCH", f"{ENDPOINTS}/{created['id']}", as_="admin", body={"filter": None})
    assert (gone.status, gone.json["filter"]) == (200, None)


async def test_the_same_key_creates_one_endpoint_and_no_secret_lies_in_the_store(api: Api, redis: Redis) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await api.call("POST", ENDPOINTS, as_="admin", body=NEW, headers=headers)
    again = await api.call("POST", ENDPOINTS, as_="admin", body=NEW, headers=headers)
    assert (again.status, again.json, again.headers["Location"]) == (201, first.json, first.headers["Location"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len((await api.call("GET", ENDPOINTS, as_="admin")).json["items"]) == 1
    (record,) = [await redis.get(key) async for key in redis.scan_iter("hookline:idempotency:*")]
    assert first.json["id"] in record
    assert first.json["secret"] not in record


async def test_a_key_that_is_in_flight_has_to_wait(api: Api, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    create = type(api.webhooks.endpoints).create

    async def slow(*args: Any) -> Any:
        entered.set()
        await leave.wait()
        return await create(*args)

    monkeypatch.setattr(type(api.webhooks.endpoints), "create", slow)
    headers = {"Idempotency-Key": "k"}
    first = asyncio.create_task(api.call("POST", ENDPOINTS, as_="admin", body=NEW, headers=headers))
    await entered.wait()
    second = await api.call("POST", ENDPOINTS, as_="admin", body=NEW, headers=headers)
    assert second.json == {
        "type": "urn:hookline:problem:in-flight",
        "title": "The same request is being answered",
        "status": 409,
        "detail": "a request with this Idempotency-Key is still being answered",
        "instance": "urn:hookline:request:req-1",
    }
    assert second.headers["Retry-After"] == "1"
    leave.set()
    assert (await first).status == 201


async def test_an_endpoint_is_changed_paused_enabled_rotated_and_deleted(api: Api) -> None:
    created = await _create(api, secret=SECRET)
    assert created["secret"] == SECRET
    path = f"{ENDPOINTS}/{created['id']}"
    changed = (await api.call("PATCH", path, as_="admin", body={"types": ["a.b"], "timeout": "5s", "schedule": ["0s", "1m"]})).json
    assert (changed["types"], changed["timeout"], changed["schedule"], changed["url"]) == (["a.b"], "5s", ["0s", "1m"], NEW["url"])
    assert (await api.call("POST", f"{path}/pause", as_="admin")).json["status"] == "paused"
    assert (await api.call("POST", f"{path}/enable", as_="admin")).json["status"] == "enabled"
    rotated = await api.call("POST", f"{path}/rotate-secret", as_="admin")
    assert rotated.status == 200
    assert rotated.json["secret"] not in (SECRET, None)
    given = {"secret": SECRET, "overlap": "0s"}
    again = [await api.call("POST", f"{path}/rotate-secret", as_="admin", body=given, headers={"Idempotency-Key": "r"}) for _ in range(2)]
    assert [(reply.status, reply.json["secret"]) for reply in again] == [(200, SECRET)] * 2
    wrong = await api.call("POST", f"{path}/rotate-secret", as_="admin", body={"overlap": "8d"})
    assert (wrong.status, wrong.json["errors"]) == (422, [{"path": "overlap", "message": "an overlap is from 0s to 7d"}])
    assert (await api.call("PATCH", path, as_="admin", body={"asymmetric": True})).json["publicKey"].startswith("whpk_")
    assert (await api.call("DELETE", path, as_="admin")).status == 204
    reply = await api.call("GET", path, as_="admin")
    assert (reply.status, reply.json["type"]) == (404, "urn:hookline:problem:not-found")


async def test_a_refused_address_says_why(redis: Redis, tmp_path: Path) -> None:
    async with serving(redis, tmp_path) as api:
        for url in ("http://169.254.169.254/latest", "http://10.0.0.1/", "ftp://example.com/", "http://user:pass@127.0.0.1/"):
            reply = await api.call("POST", ENDPOINTS, as_="admin", body=NEW | {"url": url})
            assert reply.status == 422, url
            assert reply.headers["Content-Type"] == "application/problem+json"
            assert reply.json["type"] in ("urn:hookline:problem:refused-address", "urn:hookline:problem:invalid-input")
        assert (await api.call("GET", ENDPOINTS, as_="admin")).json["items"] == []
        reply = await api.call("POST", ENDPOINTS, as_="admin", body=NEW | {"url": "http://10.0.0.1/"})
        message = reply.json["detail"]
        assert "10.0.0.1" in message
        expected = {
            "type": "urn:hookline:problem:refused-address",
            "title": "The address may not be dialled",
            "status": 422,
            "detail": message,
            "instance": "urn:hookline:request:req-1",
            "errors": [{"path": "url", "message": message}],
        }
        assert reply.json == expected | ({"hint": reply.json["hint"]} if "hint" in reply.json else {})


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"types": ["a..b"]}, "types"),
        ({"types": []}, "types"),
        ({"concurrency": "3"}, "concurrency"),
        ({"tpyes": []}, "tpyes"),
        ({"timeout": "9"}, "timeout"),
    ],
)
async def test_what_does_not_fit_is_named(api: Api, change: dict[str, Any], path: str) -> None:
    reply = await api.call("POST", ENDPOINTS, as_="admin", body=NEW | change)
    assert (reply.status, reply.json["type"]) == (422, "urn:hookline:problem:invalid-input")
    assert [error["path"].partition(".")[0] for error in reply.json["errors"]] == [path]
    assert (await api.call("POST", ENDPOINTS, as_="admin", body=[])).status == 422


async def test_endpoints_of_the_configuration_are_read_only(api: Api) -> None:
    await api.webhooks.declare([Declared(id="analysis", url=NEW["url"], types=("*",), secret=SECRET)])
    path = f"{ENDPOINTS}/analysis"
    assert (await api.call("GET", path, as_="admin")).json["source"] == "config"
    for method, suffix, body in (("PATCH", "", {"types": ["a"]}), ("DELETE", "", None), ("POST", "/rotate-secret", None)):
        reply = await api.call(method, path + suffix, as_="admin", body=body)
        assert (reply.status, reply.json["type"], reply.json["detail"]) == (
            409, "urn:hookline:problem:conflict", "analysis is declared in config.yaml",
        )  # fmt: skip
    assert (await api.call("POST", f"{path}/pause", as_="admin")).json["status"] == "paused"


async def test_endpoints_and_deliveries_are_for_admins(api: Api) -> None:
    created = await _create(api)
    calls = [
        ("GET", ENDPOINTS), ("POST", ENDPOINTS), ("GET", f"{ENDPOINTS}/{created['id']}"), ("PATCH", f"{ENDPOINTS}/{created['id']}"),
        ("DELETE", f"{ENDPOINTS}/{created['id']}"), ("POST", f"{ENDPOINTS}/{created['id']}/pause"), ("POST", f"{ENDPOINTS}/{created['id']}/enable"),
        ("POST", f"{ENDPOINTS}/{created['id']}/rotate-secret"), ("POST", f"{ENDPOINTS}/{created['id']}/test"),
        ("GET", f"{ENDPOINTS}/{created['id']}/stats"),
        ("GET", DELIVERIES), ("GET", f"{DELIVERIES}/x"), ("POST", f"{DELIVERIES}/x/replay"),
        ("POST", f"{ENDPOINTS}/{created['id']}/replay"), ("GET", REPLAYS), ("GET", f"{REPLAYS}/x"),
        ("GET", "/api/webhooks/explain?event=x"), ("GET", "/api/webhooks/undelivered"), ("POST", f"{REPLAYS}/x/cancel"),
    ]  # fmt: skip
    for method, path in calls:
        for as_, status in (("user", 403), ("service", 403), (None, 401)):
            assert (await api.call(method, path, as_=as_)).status == status, (method, path, as_)


async def test_lists_are_paged(api: Api) -> None:
    ids = [(await _create(api))["id"] for _ in range(3)]
    first = (await api.call("GET", f"{ENDPOINTS}?limit=2", as_="admin")).json
    second = (await api.call("GET", f"{ENDPOINTS}?limit=2&cursor={first['nextCursor']}", as_="admin")).json
    assert sorted(endpoint["id"] for page in (first, second) for endpoint in page["items"]) == sorted(ids)
    assert second["nextCursor"] is None
    assert (await api.call("GET", f"{ENDPOINTS}?cursor=nope", as_="admin")).status == 422


# --- deliveries -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _receiver() -> AsyncIterator[tuple[str, "asyncio.Queue[web.Request]"]]:
    """A receiver's URL and what it was sent."""
    received: asyncio.Queue[web.Request] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        await request.read()
        received.put_nowait(request)
        return web.Response(text="thank you")

    app = web.Application()
    app.router.add_post("/hooks", receive)
    async with TestServer(app) as server:
        yield str(server.make_url("/hooks")), received


@asynccontextmanager
async def _working(api: Api) -> AsyncIterator[None]:
    """The loops of the webhooks run; their end has what is under way recorded."""
    group = Group(api.services.redis, api.services.log.key, "webhooks", "test")
    await group.create()
    working = Webhooks(
        redis=api.services.redis,
        prefix=api.services.keys.webhooks,
        log=group,
        encryption_keys=[b"k" * 32],
        allow_networks=("127.0.0.0/8",),
    )
    stop = asyncio.Event()
    loops = [asyncio.create_task(working.run_fanout(stop)), asyncio.create_task(working.run_dispatcher(stop))]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*loops)


async def _received(api: Api, received: "asyncio.Queue[web.Request]") -> web.Request:
    """What the receiver is sent once the loops run."""
    async with _working(api):
        return await asyncio.wait_for(received.get(), 10)


async def test_a_delivery_is_listed_shown_with_its_attempts_and_sent_again(api: Api) -> None:
    async with _receiver() as (url, received):
        endpoint = await _create(api, url=url, types=["a.*"])
        await api.services.log.append([Event(id="evt_1", type="a.b", timestamp=1700000000000, data={"runId": "run_1"})])
        first = await _received(api, received)
        (delivery,) = (await api.call("GET", f"{DELIVERIES}?endpoint={endpoint['id']}&type=a.*&since=2020-01-01T00:00:00Z", as_="admin")).json[
            "items"
        ]
        assert (delivery["eventId"], delivery["endpoint"], delivery["type"], delivery["runId"]) == ("evt_1", endpoint["id"], "a.b", "run_1")
        assert (delivery["status"], delivery["attemptCount"], delivery["lastStatus"]) == ("delivered", 1, 200)
        for query in ("event=evt_1", "lastStatus=2xx", "until=2999-01-01T00:00:00Z"):
            assert (await api.call("GET", f"{DELIVERIES}?{query}", as_="admin")).json["items"] == [delivery], query
        for query in ("endpoint=other", "type=b.*", "since=2999-01-01T00:00:00.000Z", "status=exhausted", "event=evt_2", "lastStatus=5xx",
                      "until=2020-01-01T00:00:00Z"):  # fmt: skip
            assert (await api.call("GET", f"{DELIVERIES}?{query}", as_="admin")).json["items"] == [], query
        for since in ("2999-01-01", "2999-01-01T00:00:00", "yesterday", "2999", "1769850000000"):
            (fault,) = (await api.call("GET", f"{DELIVERIES}?since={since}", as_="admin")).json["errors"]
            assert fault == {"path": "since", "message": "must be a time with its zone, for example 2026-01-31T09:00:00Z"}
        for query in ("since=2999-01-01", "lastStatus=777"):
            assert (await api.call("GET", f"{DELIVERIES}?{query}", as_="admin")).status == 422, query

        path = f"{DELIVERIES}/{delivery['id']}"
        shown = (await api.call("GET", path, as_="admin")).json
        (attempt,) = shown["attempts"]
        assert shown == delivery | {"attempts": [attempt]}
        assert (attempt["number"], attempt["status"], attempt["response"], attempt["address"]) == (1, 200, "thank you", "127.0.0.1")
        assert (attempt["reused"], attempt["phases"]["tls"]) == (False, None)
        assert 0 < attempt["phases"]["connect"] <= attempt["phases"]["total"] <= attempt["durationMs"] + 1

        headers = {"Idempotency-Key": "k"}
        replayed = await api.call("POST", f"{path}/replay", as_="admin", headers=headers)
        assert (replayed.status, replayed.json["id"], replayed.json["status"]) == (202, delivery["id"], "pending")
        assert (await api.call("POST", f"{path}/replay", as_="admin", headers=headers)).text == replayed.text
        assert (await api.call("POST", f"{path}/replay", as_="admin")).status == 409, "it is pending anyway"
        again = await _received(api, received)
        assert again.headers["webhook-id"] == first.headers["webhook-id"] == "evt_1"
        assert (await api.call("GET", path, as_="admin")).json["attemptCount"] == 2
        assert received.empty()
    for path, method in ((f"{DELIVERIES}/nope", "GET"), (f"{DELIVERIES}/nope/replay", "POST")):
        reply = await api.call(method, path, as_="admin")
        assert (reply.status, reply.json["type"]) == (404, "urn:hookline:problem:not-found")


async def test_why_an_event_did_not_arrive(api: Api) -> None:
    wants, other = await _create(api, types=["a.*"]), await _create(api, types=["b.*"])
    await api.services.log.append([Event(id="evt_1", type="a.b", timestamp=round(time.time() * 1000), data={"runId": "run_1"})])
    (item,) = (await api.call("GET", f"/api/webhooks/explain?event=evt_1&endpoint={other['id']}", as_="admin")).json["items"]
    assert (item["verdict"], item["type"], item["delivery"]) == ("not-wanted", "a.b", None)
    assert {"name": "endpointTypes", "value": ["b.*"]} in item["facts"]
    (item,) = (await api.call("GET", "/api/webhooks/explain?event=evt_1", as_="admin")).json["items"]
    assert (item["endpoint"], item["verdict"]) == (wants["id"], "not-fanned-out")
    for wrong in ("", "?event=evt_1&run=run_1", "?evt=1"):
        assert (await api.call("GET", f"/api/webhooks/explain{wrong}", as_="admin")).status == 422, wrong
    hit = asyncio.Event()

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hit.set()
        writer.transport.abort()

    async with raw_server(reset) as url:
        failing = await _create(api, url=url, types=["c.*"], schedule=["0s"])
        await api.services.log.append([Event(id="evt_2", type="c.d", timestamp=round(time.time() * 1000), data={})])
        async with _working(api):
            await asyncio.wait_for(hit.wait(), 10)
    (item,) = (await api.call("GET", f"/api/webhooks/undelivered?endpoint={failing['id']}", as_="admin")).json["items"]
    assert (item["endpoint"], item["eventId"], item["status"], item["why"]["verdict"]) == (failing["id"], "evt_2", "exhausted", "exhausted")
    assert (await api.call("GET", "/api/webhooks/undelivered?type=a*", as_="admin")).status == 422


async def test_why_of_a_run(redis: Redis, tmp_path: Path) -> None:
    async with serving(redis, tmp_path, workflows={"document-upload": DOCUMENT_UPLOAD}) as api:
        wants, other = await _create(api, types=["workflow.*"]), await _create(api, types=["a.b"])
        run = (await api.call("POST", "/api/workflows/document-upload/runs", body={"input": DOCUMENT})).json["runId"]
        items = (await api.call("GET", f"/api/webhooks/explain?run={run}", as_="admin")).json["items"]
        assert {(item["type"], item["endpoint"], item["verdict"]) for item in items} == {("workflow.started", wants["id"], "not-fanned-out")}
        (item,) = (await api.call("GET", f"/api/webhooks/explain?run={run}&endpoint={other['id']}", as_="admin")).json["items"]
        assert item["verdict"] == "not-wanted"
        # What the log no longer has is in the run's own timeline still.
        await redis.delete(api.services.log.key)
        (item,) = (await api.call("GET", f"/api/webhooks/explain?run={run}&endpoint={other['id']}", as_="admin")).json["items"]
        assert (item["verdict"], {"name": "inLog", "value": False} in item["facts"]) == ("not-wanted", True)
        assert (await api.call("GET", "/api/webhooks/explain?run=run_nope", as_="admin")).json == {"items": [], "truncated": False}


async def test_a_replay_is_counted_begun_shown_and_cancelled(api: Api) -> None:
    async with _receiver() as (url, received):
        endpoint = await _create(api, url=url, types=["a.*"])
        await api.services.log.append([Event(id="evt_1", type="a.b", timestamp=1700000000000, data={"runId": "run_1"})])
        await _received(api, received)
        path = f"{ENDPOINTS}/{endpoint['id']}/replay"
        asked = {"since": "2020-01-01T00:00:00Z", "status": ["delivered"]}
        counted = await api.call("POST", path, as_="admin", body=asked | {"dryRun": True})
        assert (counted.status, counted.json["count"], counted.json["sample"][0]["event"]) == (200, 1, "evt_1")
        begun = await api.call("POST", path, as_="admin", body=asked, headers={"Idempotency-Key": "k"})
        assert (begun.status, begun.json["status"], begun.json["replayed"]) == (202, "running", 0)
        again = await api.call("POST", path, as_="admin", body=asked, headers={"Idempotency-Key": "k"})
        assert (again.json, again.headers["Location"]) == (begun.json, begun.headers["Location"])
        assert (await api.call("POST", path, as_="admin", body=asked)).status == 409, "one at a time"
        assert (await _received(api, received)).headers["webhook-id"] == "evt_1"
        shown = (await api.call("GET", begun.headers["Location"], as_="admin")).json
        assert (shown["status"], shown["matched"], shown["replayed"], shown["endpoint"]) == ("done", 1, 1, endpoint["id"])
        assert (await api.call("GET", REPLAYS, as_="admin")).json == {"items": [shown], "nextCursor": None}
        assert (await api.call("POST", f"{begun.headers['Location']}/cancel", as_="admin")).status == 409
        other = (await api.call("POST", path, as_="admin", body=asked | {"rate": "1/1d"})).json
        assert (await api.call("POST", f"{REPLAYS}/{other['id']}/cancel", as_="admin")).json["status"] == "cancelled"
        for wrong in ({}, {"since": "yesterday"}, asked | {"status": ["pending"]}, asked | {"dry": True}):
            assert (await api.call("POST", path, as_="admin", body=wrong)).status == 422, wrong
        (delivery,) = (await api.call("GET", f"{DELIVERIES}?run=run_1", as_="admin")).json["items"]
        assert delivery["attemptCount"] == 2
        stats = (await api.call("GET", f"{ENDPOINTS}/{endpoint['id']}/stats", as_="admin")).json
        assert (stats["pending"], stats["total"], stats["lastHour"]["delivered"]) == (0, {"delivered": 2, "failed": 0, "exhausted": 0}, 2)
    assert (await api.call("GET", f"{REPLAYS}/nope", as_="admin")).status == 404
    assert (await api.call("POST", f"{ENDPOINTS}/nope/replay", as_="admin", body=asked)).status == 404


async def test_a_test_event_is_sent_and_answered(api: Api) -> None:
    async with _receiver() as (url, received):
        endpoint = await _create(api, url=url)
        tried = await api.call("POST", f"{ENDPOINTS}/{endpoint['id']}/test", as_="admin")
        assert (await received.get()).headers["webhook-id"] == tried.json["eventId"]
    assert (tried.status, tried.json["delivered"], tried.json["status"], tried.json["response"]) == (200, True, 200, "thank you")
    assert (await api.call("POST", f"{ENDPOINTS}/nope/test", as_="admin")).status == 404


async def test_what_a_lost_encryption_key_prevents_is_said(api: Api, redis: Redis) -> None:
    created = await _create(api)
    key = api.webhooks._keys.endpoint(created["id"])
    definition = str(await redis.hget(key, "definition"))
    await redis.hset(key, "definition", re.sub(r"v1\.[0-9a-f]{8}\.", "v1.deadbeef.", definition))
    path = f"{ENDPOINTS}/{created['id']}/rotate-secret"
    refused = await api.call("POST", path, as_="admin")
    assert refused.status == 409
    assert "deadbeef" in refused.json["detail"]
    assert '{"overlap": "0s"}' in refused.json["hint"]
    assert (await api.call("POST", path, as_="admin", body={"overlap": "0s"})).status == 200


async def test_no_secret_is_logged(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    created = await _create(api, secret=SECRET, headers={"x-token": "swordfish"})
    await api.call("GET", f"{ENDPOINTS}/{created['id']}", as_="admin")
    logged = "".join(capsys.readouterr())
    assert "request" in logged
    for text in (SECRET, "swordfish", api.token("root", "admin").rpartition(".")[2]):
        assert text not in logged
    assert "swordfish" not in json.dumps(created)
