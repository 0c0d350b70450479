"""Events are pulled by cursor, followed as a stream that misses and repeats nothing, and published."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from pipeline.api.feed import Feed
from pipeline.jobs.calls import now_ms
from pipeline.store.event import Event
from tests.support.api import Api, serving


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(redis, tmp_path, feed={"heartbeat": 0.05, "backlog": 20}) as api:
        yield api


async def _tell(api: Api, *names: str, type: str = "invoice.paid", user: str = "alice", **data: Any) -> list[str]:
    events = [Event(id=f"evt_{name}", type=type, timestamp=1700000000000, data={"userId": user, **data}) for name in names]
    return await api.services.log.append(events)


async def _trimmed(api: Api) -> str:
    """A log that has lost its first event; the cursor of the second, which it still has."""
    for cursor, name in (("5-0", "a"), ("7-0", "b")):
        event = Event(id=f"evt_{name}", type="invoice.paid", timestamp=1700000000000, data={"userId": "alice"})
        fields = event.fields()
        await api.services.redis.xadd(api.services.log.key, dict(zip(fields[::2], fields[1::2], strict=True)), id=cursor)
    await api.services.log.trim(max_age_ms=0, max_bytes=1 << 40, now=7)
    return "7-0"


class Stream:
    """A stream's items as they come: events, gaps, comments."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.comments = 0

    async def next(self) -> dict[str, Any]:
        item: dict[str, Any] = {}
        while True:
            line = (await asyncio.wait_for(self.response.content.readline(), 5)).decode()
            assert line, "the stream ended"
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n" and "data" in item:
                return item | {"data": json.loads(item["data"])}
            if not name:
                self.comments += bool(value)
            else:
                item[name] = value

    async def ids(self, count: int) -> list[str]:
        return [(await self.next())["data"]["id"] for _ in range(count)]

    async def ended(self) -> None:
        """Waits for the end; comments may come before."""
        async with asyncio.timeout(5):
            while line := await self.response.content.readline():
                assert line.startswith((b":", b"\n", b"retry")), "nothing more was told"


@asynccontextmanager
async def _stream(api: Api, query: str = "", *, token: str | None = None, last: str | None = None) -> AsyncIterator[Stream]:
    headers = {"Authorization": f"Bearer {token or api.token()}"} | ({"Last-Event-ID": last} if last else {})
    async with api.session.get(f"{api.url}/api/events/stream{query}", headers=headers) as response:
        assert response.status == 200
        yield Stream(response)


# --- pull -------------------------------------------------------------------------------------------------------------


async def test_pulling_by_cursor_yields_each_event_once_and_goes_on_from_the_end(api: Api) -> None:
    empty = await api.call("GET", "/api/events")
    assert empty.json == {"items": [], "nextCursor": None}
    cursors = await _tell(api, *"abc")
    first = (await api.call("GET", "/api/events?limit=2")).json
    assert [event["id"] for event in first["items"]] == ["evt_a", "evt_b"]
    assert first["items"][0] == {
        "id": "evt_a", "type": "invoice.paid", "timestamp": "2023-11-14T22:13:20.000Z", "data": {"userId": "alice"}, "cursor": cursors[0],
    }  # fmt: skip
    second = (await api.call("GET", f"/api/events?after={first['nextCursor']}")).json
    assert [event["id"] for event in second["items"]] == ["evt_c"]
    end = (await api.call("GET", f"/api/events?after={second['nextCursor']}")).json
    assert end == {"items": [], "nextCursor": cursors[2]}


async def test_a_user_sees_its_own_events_and_filters_by_type(api: Api) -> None:
    await _tell(api, "a")
    await _tell(api, "b", user="bob")
    await _tell(api, "c", type="job.progress")
    last = (await _tell(api, "d", type="job.completed"))[-1]

    async def ids(query: str, as_: str) -> list[str]:
        page = (await api.call("GET", f"/api/events{query}", as_=as_)).json
        assert page["nextCursor"] == last, "also past what was filtered out"
        return [event["id"][-1] for event in page["items"]]

    assert await ids("", "user") == ["a", "d"]
    assert await ids("", "bob") == ["b"]
    assert await ids("", "admin") == await ids("", "service") == ["a", "b", "d"]
    assert await ids("?types=job.progress,invoice.*", "admin") == ["a", "b", "c"]
    assert await ids("?types=job.*&types=invoice.paid", "user") == ["a", "d"]


async def test_what_was_trimmed_is_gone_and_says_where_to_go_on(api: Api) -> None:
    kept = await _trimmed(api)
    reply = await api.call("GET", "/api/events?after=1-0")
    assert (reply.status, reply.json["type"], reply.json["earliest"]) == (410, "urn:hookline:problem:gone", kept)
    assert [event["id"] for event in (await api.call("GET", "/api/events")).json["items"]] == ["evt_b"]
    assert (await api.call("GET", f"/api/events?after={kept}")).json["items"] == []


@pytest.mark.parametrize("query", ["after=x", "after=-1", "types=", "types=a..b", "types=*.a", "types=a b", "limit=501"])
async def test_a_query_that_makes_no_sense(api: Api, query: str) -> None:
    assert (await api.call("GET", f"/api/events?{query}")).status == 422


# --- stream -----------------------------------------------------------------------------------------------------------


async def test_a_stream_tells_what_happens_from_now_on(api: Api) -> None:
    await _tell(api, "old")
    async with _stream(api) as stream:
        assert stream.response.headers["Content-Type"] == "text/event-stream"
        cursor = (await _tell(api, "new"))[0]
        item = await stream.next()
        assert item["id"] == cursor
        assert "event" not in item
        assert item["data"]["id"] == "evt_new"
        assert item["data"]["cursor"] == cursor


async def test_a_stream_resumes_after_the_last_event_id(api: Api) -> None:
    cursors = await _tell(api, *"abc")
    async with _stream(api, last=cursors[0]) as stream, _stream(api, f"?after={cursors[1]}") as other:
        assert await stream.ids(2) == ["evt_b", "evt_c"]
        assert await other.ids(1) == ["evt_c"]
        await _tell(api, "d")
        assert await stream.ids(1) == await other.ids(1) == ["evt_d"]


async def test_nothing_is_missed_or_repeated_while_catching_up(api: Api) -> None:
    first = (await _tell(api, *(f"{n}" for n in range(600))))[0]
    async with _stream(api, last=first) as stream:
        telling = asyncio.create_task(_tell_slowly(api, 600, 700))
        assert await stream.ids(699) == [f"evt_{n}" for n in range(1, 700)]
        await telling


async def _tell_slowly(api: Api, start: int, end: int) -> None:
    for n in range(start, end):
        await _tell(api, str(n))


async def test_a_cursor_older_than_the_log_is_a_gap(api: Api) -> None:
    kept = await _trimmed(api)
    async with _stream(api, last="1-0") as stream:
        gap = await stream.next()
        assert (gap["event"], gap["data"]) == ("gap", {"after": "1-0", "earliest": kept})
        assert await stream.ids(1) == ["evt_b"]


async def test_a_log_that_was_trimmed_to_nothing_is_followed_like_any_other(api: Api) -> None:
    await _tell(api, "a")
    await api.services.log.trim(max_age_ms=0, max_bytes=1 << 40, now=now_ms() + 1000)
    assert await api.services.redis.xlen(api.services.log.key) == 0
    async with _stream(api) as stream:
        await _tell(api, "b")
        assert await stream.ids(1) == ["evt_b"]


async def test_a_stream_is_filtered_like_a_pull(api: Api) -> None:
    async with _stream(api, "?types=job.*") as mine, _stream(api, "?types=job.*", token=api.token("root", "admin")) as all_:
        await _tell(api, "a")
        await _tell(api, "b", type="job.completed", user="bob")
        await _tell(api, "c", type="job.completed")
        assert await mine.ids(1) == ["evt_c"]
        assert await all_.ids(2) == ["evt_b", "evt_c"]


async def test_a_silent_stream_shows_that_it_lives(api: Api) -> None:
    async with _stream(api) as stream:
        async with asyncio.timeout(5):
            while (line := await stream.response.content.readline()) != b": keep-alive\n":
                assert line in (b"retry: 3000\n", b"\n")


async def test_a_stream_ends_with_its_token(api: Api) -> None:
    async with _stream(api, token=api.token(ttl=2_200)) as stream:  # tokens end at whole seconds: in 1.2 s at the earliest
        await stream.ended()


async def test_one_reader_serves_all_streams_and_rests_when_they_are_gone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, rested = 0, asyncio.Event()
    after, stop = type(api.services.log).after, Feed._stop

    async def counted(*args: Any, **more: Any) -> Any:
        nonlocal reads
        reads += bool(more.get("block_ms"))
        return await after(*args, **more)

    async def stopped(feed: Feed) -> None:
        await stop(feed)
        rested.set()

    monkeypatch.setattr(type(api.services.log), "after", counted)
    monkeypatch.setattr(Feed, "_stop", stopped)
    async with _stream(api) as one, _stream(api) as two, _stream(api) as three:
        await _tell(api, "a")
        assert await one.ids(1) == await two.ids(1) == await three.ids(1) == ["evt_a"]
        assert reads <= 2, "one for the event, one that waits for the next"
        assert not rested.is_set()
    await asyncio.wait_for(rested.wait(), 5)
    assert api.feed._reader is None
    async with _stream(api) as stream:
        await _tell(api, "b")
        assert await stream.ids(1) == ["evt_b"]


async def test_a_reader_that_is_too_slow_is_dropped_and_the_others_are_not(api: Api) -> None:
    async with _stream(api) as slow, _stream(api, "?types=end.*") as quick:
        # Or the kernel reads for it, on some machines all of it.
        assert slow.response.connection
        assert slow.response.connection.transport
        slow.response.connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        bulk = "x" * 200_000
        for n in range(200):
            await _tell(api, str(n), bulk=bulk)
            await asyncio.sleep(0)
            if len(api.feed._subscriptions) == 1:
                break
        await _tell(api, "done", type="end.here")
        assert await quick.ids(1) == ["evt_done"]
        assert len(api.feed._subscriptions) == 1
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(slow.response.content.read(), 5)


async def test_streams_end_when_the_service_stops(redis: Redis, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        async with serving(redis, tmp_path) as api:
            response = await session.get(f"{api.url}/api/events/stream", headers={"Authorization": f"Bearer {api.token()}"})
        async with asyncio.timeout(5):
            assert (await response.content.read()).startswith(b"retry: 3000\n\n")


async def test_a_head_request_does_not_open_a_stream(api: Api) -> None:
    assert (await api.call("HEAD", "/api/events/stream")).status == 405


# --- publish ----------------------------------------------------------------------------------------------------------


async def test_one_event_or_a_list_is_published(api: Api) -> None:
    one = await api.call("POST", "/api/events", as_="service", body={"type": "invoice.paid", "data": {"userId": "alice", "n": 1}})
    many = await api.call("POST", "/api/events", as_="admin", body=[{"type": "a", "data": {}}, {"type": "b_2.C", "data": {}}])
    assert (one.status, many.status) == (202, 202)
    ids = [*one.json["ids"], *many.json["ids"]]
    assert len(set(ids)) == 3
    assert all(id.startswith("evt_") for id in ids)
    pulled = (await api.call("GET", "/api/events", as_="admin")).json["items"]
    assert [(event["id"], event["type"]) for event in pulled] == list(zip(ids, ["invoice.paid", "a", "b_2.C"], strict=True))


async def test_a_key_may_be_used_again_when_its_day_is_over(api: Api, redis: Redis) -> None:
    body, once = [{"type": "invoice.paid", "data": {"n": n}} for n in range(2)], {"Idempotency-Key": "daily"}
    first = await api.call("POST", "/api/events", as_="service", body=body, headers=once)
    (kept,) = await redis.keys("hookline:idempotency:*")
    assert 86_000 < await redis.ttl(kept) <= 86_400
    await redis.delete(kept)  # as a day later
    second = await api.call("POST", "/api/events", as_="service", body=body, headers=once)
    # Under the ids of yesterday, for which there are deliveries, nobody would get it.
    assert not set(first.json["ids"]) & set(second.json["ids"])


async def test_of_equal_publications_at_once_one_is_made(api: Api) -> None:
    body, once = [{"type": "invoice.paid", "data": {"n": n}} for n in range(2)], {"Idempotency-Key": "k"}
    replies = await asyncio.gather(*(api.call("POST", "/api/events", as_="service", body=body, headers=once) for _ in range(5)))
    assert [reply.status for reply in replies] == [202] * 5
    assert sum("Idempotent-Replayed" in reply.headers for reply in replies) == 4
    (ids,) = {tuple(reply.json["ids"]) for reply in replies}
    assert [event["id"] for event in (await api.call("GET", "/api/events", as_="admin")).json["items"]] == list(ids)
    assert (await api.call("POST", "/api/events", as_="service", body=body[:1], headers=once)).status == 409


async def test_a_nearly_full_store_takes_no_events_and_answers_for_those_it_took(api: Api, redis: Redis) -> None:
    body, once = {"type": "invoice.paid", "data": {"n": 1}}, {"Idempotency-Key": "k"}
    taken = await api.call("POST", "/api/events", as_="service", body=body, headers=once)
    await redis.config_set("maxmemory", int((await redis.info("memory"))["used_memory"] * 1.25))
    api.services.memory._asked = float("-inf")  # as if a second had passed
    try:
        refused = await api.call("POST", "/api/events", as_="service", body=body)
        again = await api.call("POST", "/api/events", as_="service", body=body, headers=once)
    finally:
        await redis.config_set("maxmemory", 0)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
    assert (again.status, again.json) == (202, taken.json)
    assert [event["id"] for event in (await api.call("GET", "/api/events", as_="admin")).json["items"]] == taken.json["ids"]


@pytest.mark.parametrize(
    "type",
    ["job.done", "job", "workflow.x.y", "queue.a", "endpoint.a", "delivery.a", "webhook.test", "", "a..b", ".a", "a.", "a b", "a.*", "é", "a" * 129],
)
async def test_reserved_and_impossible_types_are_refused(api: Api, type: str) -> None:
    reply = await api.call("POST", "/api/events", as_="service", body=[{"type": "fine", "data": {}}, {"type": type, "data": {}}])
    assert (reply.status, reply.json["errors"][0]["path"]) == (422, "1.type")
    assert await api.services.log.earliest() is None, "none of the list was published"


async def test_a_type_that_only_begins_alike_is_not_reserved(api: Api) -> None:
    assert (await api.call("POST", "/api/events", as_="service", body={"type": "jobs.done", "data": {}})).status == 202


async def test_at_most_500_at_once_and_at_least_one(api: Api) -> None:
    event = {"type": "a", "data": {}}
    assert len((await api.call("POST", "/api/events", as_="service", body=[event] * 500)).json["ids"]) == 500
    for body in ([event] * 501, []):
        assert (await api.call("POST", "/api/events", as_="service", body=body)).status == 422
    assert (await api.call("POST", "/api/events", as_="service", body=[event, 1])).status == 422
    assert (await api.call("POST", "/api/events", as_="service", body={"type": "a", "data": []})).status == 422


async def test_a_publication_is_told_once_per_key(api: Api, redis: Redis) -> None:
    body, headers = [{"type": "a", "data": {}}], {"Idempotency-Key": "k"}
    first = await api.call("POST", "/api/events", as_="service", body=body, headers=headers)
    again = await api.call("POST", "/api/events", as_="service", body=body, headers=headers)
    assert (again.status, again.text) == (202, first.text)
    assert await redis.xlen("hookline:log") == 1
    assert (await api.call("POST", "/api/events", as_="service", body=[], headers=headers)).status == 422
    assert (await api.call("POST", "/api/events", as_="service", body=[{"type": "b", "data": {}}], headers=headers)).status == 409
