"""What a webhook server ought to promise a subscriber, and its operator."""

import asyncio
import email.utils
import json
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable

from standardwebhooks import Webhook, WebhookVerificationError

from tests.faults.receivers import Answer, Receiver, Request, receiving
from tests.faults.scenario import Bench, scenario
from tests.faults.server import Refused

SIGNING, RETRYING, HEALTH, ORDER, KNOWING = "signing", "retrying", "back-pressure", "order and rate", "knowing and repairing"
FUTURE = 3600.0


async def refused(request: Awaitable[object]) -> int:
    """The status with which it was refused; 0 if it was taken."""
    try:
        await request
    except Refused as error:
        return error.status
    return 0


# --- signing ----------------------------------------------------------------------------------------------------------


def verified(secret: str, request: Request) -> bool:
    try:
        Webhook(secret).verify(request.body, dict(request.headers))
    except WebhookVerificationError:
        return False
    return True


@scenario(SIGNING, "The public Standard Webhooks library verifies each attempt; a retry has the same id and a time of its own")
async def public_library_verifies(bench: Bench) -> None:
    async with receiving() as receiver:
        receiver.then(Answer(status=500))
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], schedule=(0, 1.1))
        (event,) = await bench.server.publish([(bench.type, {"text": "Größe ∑ \u2028"})])
        first, second = await receiver.count(2)
    assert verified(endpoint.secret, first)
    assert verified(endpoint.secret, second)
    assert first.id == second.id == event
    assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    assert first.body == second.body


@scenario(SIGNING, "The body is what was published: keys in their order, numbers exact, text untouched, up to 200 KB")
async def body_untouched(bench: Bench) -> None:
    data = {"z": 1, "a": [1.5, 12345678901234567890, -0.0, None, True], "text": '€\U0001f600\\"\n\u0000', "big": "x" * 200_000, "": {}}
    async with receiving() as receiver:
        await bench.server.create_endpoint(receiver.url, [bench.type])
        await bench.server.publish([(bench.type, data)])
        (request,) = await receiver.count(1)
    got = json.loads(request.body)["data"]
    assert json.dumps(got) == json.dumps(data)


@scenario(SIGNING, "While a secret is replaced, either one verifies")
async def rotation_overlaps(bench: Bench) -> None:
    async with receiving() as receiver:
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type])
        fresh = await bench.server.rotate_secret(endpoint.id)
        assert fresh != endpoint.secret
        await bench.server.publish([(bench.type, {})])
        (request,) = await receiver.count(1)
    assert verified(endpoint.secret, request)
    assert verified(fresh, request)


@scenario(SIGNING, "Internal addresses are refused when an endpoint is created, however they are written")
async def internal_addresses(bench: Bench) -> str:
    hosts = (
        *(
            "10.0.0.1",
            "169.254.169.254",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
            "[64:ff9b::a00:1]",
            "[2002:a00:1::]",
            "[fec0::1]",
            "0.0.0.0",
            "100.64.0.1",
        ),
        *("192.168.1.1", "[::]", "[fd00::1]", "224.0.0.1", "255.255.255.255", "2852039166", "0xa9.254.169.254", "169.254.43518", "１０.0.0.1"),
    )
    for host in hosts:
        assert await refused(bench.server.create_endpoint(f"http://{host}/hooks", [bench.type])), f"{host} was accepted"
    for url in (
        "ftp://example.com/",
        "http://user:pass@example.com/",
        "javascript:alert(1)",
        "http://",
        "//example.com",
        "http://example.com:99999/",
    ):
        assert await refused(bench.server.create_endpoint(url, [bench.type])), f"{url} was accepted"
    return f"{len(hosts)} writings"


# --- retrying ---------------------------------------------------------------------------------------------------------


@scenario(RETRYING, "Only 2xx is a success; redirects are failures and are not followed")
async def only_2xx(bench: Bench) -> None:
    statuses = (200, 201, 202, 204, 301, 302, 303, 307, 308, 400, 404, 500)
    async with receiving() as receiver:
        receiver.answering(lambda request: _numbered(request, statuses, receiver.url))
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], schedule=(0, FUTURE))
        events = await bench.server.publish([(bench.type, {"n": n}) for n in range(len(statuses))])
        found = await bench.settled(endpoint.id, events, seconds=20)
    got = {status: found[event].status for status, event in zip(statuses, events, strict=True)}
    assert got == {status: "delivered" if status < 300 else "pending" for status in statuses}
    assert len(receiver.requests) == len(statuses)
    assert {request.method for request in receiver.requests} == {"POST"}


def _numbered(request: Request, statuses: tuple[int, ...], url: str) -> Answer:
    status = statuses[json.loads(request.body)["data"]["n"]]
    return Answer(status=status, headers={"location": url} if 300 <= status < 400 else {})


@scenario(RETRYING, "What fails is tried again by the schedule, never early, then given up and said to be")
async def schedule_kept(bench: Bench) -> str:
    async with receiving() as receiver:
        receiver.default = Answer(status=500)
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], schedule=(0, 0.5, 1))
        (event,) = await bench.server.publish([(bench.type, {})])
        first, second, third = await receiver.count(3)
        record = await bench.said(endpoint.id, event, "failed")
    waits = [second.at - first.at, third.at - second.at]
    assert record.attempts == 3
    assert waits[0] >= 0.5
    assert waits[1] >= 1.0
    return f"waits of {waits[0]:.2f} and {waits[1]:.2f} s for 0.5 and 1 s"


@scenario(RETRYING, "A replay is sent under the same id")
async def replay_same_id(bench: Bench) -> None:
    async with receiving() as receiver:
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type])
        (event,) = await bench.server.publish([(bench.type, {})])
        record = await bench.said(endpoint.id, event, "delivered")
        await bench.server.replay(record.id)
        first, second = await receiver.count(2)
    assert (first.id, first.body) == (second.id, second.body)


@scenario(RETRYING, "Publishing again with the same idempotency key sends nothing more; with another body it is a conflict")
async def publishing_twice(bench: Bench) -> None:
    async with receiving() as receiver:
        await bench.server.create_endpoint(receiver.url, [bench.type])
        first = await bench.server.publish([(bench.type, {"n": 1})], key=bench.type)
        assert await bench.server.publish([(bench.type, {"n": 1})], key=bench.type) == first
        assert await refused(bench.server.publish([(bench.type, {"n": 2})], key=bench.type)) == 409, "another body was taken under the same key"
        await bench.server.publish([(bench.type, {"n": 3})])
        requests = await receiver.count(2)
    assert sorted(json.loads(request.body)["data"]["n"] for request in requests) == [1, 3]


# --- back-pressure ----------------------------------------------------------------------------------------------------


@scenario(HEALTH, "Retry-After in seconds holds the whole endpoint, and is never early")
async def retry_after_seconds(bench: Bench) -> str:
    async with receiving() as receiver:
        receiver.then(Answer(status=429, headers={"retry-after": "2"}))
        return await _held(bench, receiver, 2.0)


@scenario(HEALTH, "Retry-After as a date holds the whole endpoint, and is never early")
async def retry_after_date(bench: Bench) -> str:
    async with receiving() as receiver:
        until = int(time.time()) + 3
        receiver.then(Answer(status=503, headers={"retry-after": email.utils.formatdate(until, usegmt=True)}))
        return await _held(bench, receiver, until - time.time(), until=until)


async def _held(bench: Bench, receiver: Receiver, seconds: float, *, until: float | None = None) -> str:
    endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], schedule=(0, 0.1))
    events = await bench.server.publish([(bench.type, {"n": 1})])
    (first,) = await receiver.count(1)
    await bench.settled(endpoint.id, events, seconds=10)
    await bench.server.publish([(bench.type, {"n": 2})])
    requests = await receiver.count(3)
    due = until or first.at + seconds
    early = [due - request.at for request in requests[1:] if request.at < due]
    assert not early, f"{early[0]:.2f} s early"
    return f"{max(requests[1].at - due, 0):.2f} s after it was allowed"


@scenario(HEALTH, "410 Gone disables the endpoint: nothing more is sent, and what comes later is recorded as skipped")
async def gone(bench: Bench) -> None:
    async with receiving() as receiver:
        receiver.default = Answer(status=410)
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], schedule=(0, 0.1, 0.1))
        events = await bench.server.publish([(bench.type, {})])
        await bench.settled(endpoint.id, events, seconds=10)
        assert await bench.server.status(endpoint.id) == "disabled"
        (late,) = await bench.server.publish([(bench.type, {})])
        record = await bench.said(endpoint.id, late, "skipped")
        assert record.reason
        assert len(receiver.requests) == 1
        receiver.default = Answer()
        await bench.server.enable(endpoint.id)
        await receiver.count(2)


@scenario(HEALTH, "`webhook-delivery: disable` in an answer disables the endpoint")
async def header_disable(bench: Bench) -> None:
    async with receiving() as receiver:
        receiver.then(Answer(status=400, headers={"webhook-delivery": "disable"}))
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], schedule=(0, 0.1))
        events = await bench.server.publish([(bench.type, {})])
        await bench.settled(endpoint.id, events, seconds=10)
        assert await bench.server.status(endpoint.id) == "disabled"


@scenario(HEALTH, "`webhook-delivery: abort` in an answer ends that delivery, and no other")
async def header_abort(bench: Bench) -> None:
    async with receiving() as receiver:
        abort = Answer(status=400, headers={"webhook-delivery": "abort"})
        receiver.answering(lambda request: abort if json.loads(request.body)["data"]["n"] == 1 else None)
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], schedule=(0, 0.1, 0.1), concurrency=1)
        first, second = await bench.server.publish([(bench.type, {"n": 1}), (bench.type, {"n": 2})])
        await bench.said(endpoint.id, second, "delivered")
        record = await bench.said(endpoint.id, first, "failed")
    assert record.attempts == 1


@scenario(HEALTH, "A circuit breaker opens for a receiver that only fails, and what waits meanwhile keeps its attempts")
async def breaker(bench: Bench) -> str:
    async with receiving() as receiver:
        receiver.default = Answer(status=500)
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], schedule=(0, *(0.05,) * 20), concurrency=5)
        events = await bench.server.publish([(bench.type, {"n": n}) for n in range(50)])
        await receiver.count(10)
        async with receiving() as witness:
            await bench.server.create_endpoint(witness.url, [f"{bench.type}.tick"])
            for _ in range(5):
                await bench.server.publish([(f"{bench.type}.tick", {})])
                await asyncio.sleep(0.3)
            await witness.count(5)
        told = len(receiver.requests)
        records = {one.event: one for one in await bench.server.deliveries(endpoint.id)}
    assert told <= 30, f"{told} requests in the 1.5 s after it began to fail; without a breaker they would be hundreds"
    assert all(records[event].status == "pending" for event in events)
    return f"{told} requests, then quiet"


@scenario(HEALTH, "A pause holds and does not drop")
async def pause(bench: Bench) -> None:
    async with receiving() as receiver, receiving() as witness:
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type])
        await bench.server.create_endpoint(witness.url, [bench.type])
        await bench.server.set_paused(endpoint.id, True)
        await bench.server.publish([(bench.type, {"n": n}) for n in range(20)])
        await witness.count(20)
        assert receiver.requests == []
        await bench.server.set_paused(endpoint.id, False)
        await receiver.count(20)


# --- order and rate ---------------------------------------------------------------------------------------------------


@scenario(ORDER, "By an ordering key, deliveries keep their order through failures; one that is given up is passed over")
async def ordered(bench: Bench) -> None:
    # Few enough that their failures do not look like a receiver that is down.
    keys = 3
    async with receiving() as receiver:
        tries: Counter[str] = Counter()

        def answer(request: Request) -> Answer | None:
            data = json.loads(request.body)["data"]
            tries[request.id] += 1
            if data["n"] == 3:
                return Answer(status=500)  # always
            return Answer(status=500) if data["n"] % 4 == 1 and tries[request.id] == 1 else None

        receiver.answering(answer)
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], schedule=(0, 0.05), ordering="key", concurrency=10)
        for n in range(12):
            await bench.server.publish([(bench.type, {"key": f"k{key}", "n": n}) for key in range(keys)])
        await receiver.until(lambda requests: len({request.id for request in requests}) == 12 * keys, 60)
        found = await bench.server.deliveries(endpoint.id)
    order: dict[str, list[int]] = defaultdict(list)
    for request in receiver.requests:
        data = json.loads(request.body)["data"]
        order[data["key"]].append(data["n"])
    for key, seen in order.items():
        assert seen == sorted(seen), f"{key}: {seen}"
    assert sum(one.status == "failed" for one in found) == keys


@scenario(ORDER, "A rate is kept at the receiver")
async def rate(bench: Bench) -> str:
    async with receiving() as receiver:
        await bench.server.create_endpoint(receiver.url, [bench.type], rate=(10, 1.0))
        await bench.server.publish([(bench.type, {"n": n}) for n in range(25)])
        requests = await receiver.count(25, 20)
    times = sorted(request.at for request in requests)
    most = max(sum(start <= at < start + 1 for at in times) for start in times)
    # 10 and a burst; where this process was held up for a moment, what came meanwhile has one time.
    assert most <= 15, f"{most} in one second"
    assert times[-1] - times[0] > 2.0, f"25 in {times[-1] - times[0]:.1f} s"
    return f"at most {most} in any second for 10/s; {len(times)} in {times[-1] - times[0]:.1f} s"


@scenario(ORDER, "A backlog of retries does not delay what is fresh")
async def fresh_first(bench: Bench) -> str:
    async with receiving() as receiver:
        bad = {"on": True}
        receiver.answering(lambda request: Answer(status=400) if bad["on"] else None)
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], schedule=(0, *(1.0,) * 20), concurrency=2)
        events = await bench.server.publish([(bench.type, {"n": n}) for n in range(200)])
        await bench.settled(endpoint.id, events, seconds=30)
        bad["on"] = False
        receiver.requests.clear()
        began = time.time()
        (fresh,) = await bench.server.publish([(bench.type, {"n": -1})])
        accepted = time.time()
        requests = await receiver.until(lambda requests: any(request.id == fresh for request in requests), 20)
        at = next(request.at for request in requests if request.id == fresh)
        before = sum(accepted < request.at < at for request in requests)
    assert before <= 100, f"{before} retries went first"
    return f"{at - began:.2f} s, behind {before} of 200 retries"


# --- knowing and repairing --------------------------------------------------------------------------------------------


@scenario(KNOWING, "A filter decides what is sent, and what it holds back is on record")
async def filtered(bench: Bench) -> None:
    async with receiving() as receiver:
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], filter="event.data.score < 50")
        low, high, none = await bench.server.publish([(bench.type, {"score": 10}), (bench.type, {"score": 90}), (bench.type, {"other": 1})])
        await bench.said(endpoint.id, low, "delivered")
        for held in (high, none):
            assert "filter" in ((await bench.said(endpoint.id, held, "skipped")).reason or "")
        assert [request.id for request in receiver.requests] == [low]


@scenario(KNOWING, "A filter that cannot be meant is refused when it is declared")
async def bad_filter(bench: Bench) -> None:
    for wrong in ("event.data.score <", "evnt.data.score < 5", "event.data.items.all(x, x.all(y, y))", "1 + " * 500 + "1"):
        made = bench.server.create_endpoint("http://127.0.0.1:9/", [bench.type], filter=wrong)
        assert await refused(made) == 422, f"{wrong[:40]} was accepted"


@scenario(KNOWING, "A thin payload has what identifies, and nothing else")
async def thin(bench: Bench) -> None:
    async with receiving() as receiver:
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], thin=True)
        await bench.server.publish([(bench.type, {"documentId": "d1", "text": "secret " * 1000})])
        (request,) = await receiver.count(1)
    assert verified(endpoint.secret, request)
    assert json.loads(request.body)["data"] == {"documentId": "d1"}


@scenario(KNOWING, "“Why did X not get Y?” has an answer in words")
async def explained(bench: Bench) -> None:
    async with receiving() as receiver:
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type], filter="event.data.n == 1")
        other = await bench.server.create_endpoint(receiver.url, [f"{bench.type}.other"])
        one, two = await bench.server.publish([(bench.type, {"n": 1}), (bench.type, {"n": 2})])
        await bench.said(endpoint.id, one, "delivered")
        await bench.said(endpoint.id, two, "skipped")
        assert "delivered" in await bench.server.explain(one, endpoint.id)
        assert "filter" in await bench.server.explain(two, endpoint.id)
        assert "type" in await bench.server.explain(one, other.id)


@scenario(KNOWING, "Each event has one record at each endpoint, and ids are not doubled by retries")
async def one_record(bench: Bench) -> None:
    async with receiving() as receiver:
        receiver.answering(lambda request: Answer(status=500) if len(receiver.requests) % 3 == 0 else None)
        endpoints = [await bench.server.create_endpoint(receiver.url, [bench.type], schedule=(0, *(0.05,) * 9)) for _ in range(3)]
        events = await bench.server.publish([(bench.type, {"n": n}) for n in range(20)])
        for endpoint in endpoints:
            for event in events:
                await bench.said(endpoint.id, event, "delivered", seconds=60)
            assert Counter(one.event for one in await bench.server.deliveries(endpoint.id)) == Counter(events)
