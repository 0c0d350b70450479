"""Processes that die at the worst moment: what was accepted arrives all the same."""

import time
from collections import Counter

from tests.faults.receivers import Receiver, receiving
from tests.faults.scenario import Bench, scenario

GROUP = "crashes"
WHOLE_AGAIN = 5.0
"""Seconds from the restart to the first delivery."""


async def _all(receiver: Receiver, events: list[str], seconds: float = 60.0) -> int:
    """How many requests there were beyond one for each event, once each had one."""
    due = set(events)
    await receiver.until(lambda requests: due <= {request.id for request in requests}, seconds)
    return sum(Counter(request.id for request in receiver.requests if request.id in due).values()) - len(due)


@scenario(GROUP, "kill -9 of everything, the store included, right after the answer: all that was accepted arrives", kills=True)
async def right_after_the_answer(bench: Bench) -> str:
    async with receiving() as receiver:
        endpoint = await bench.server.create_endpoint(receiver.url, [bench.type])
        await bench.server.set_paused(endpoint.id, True)
        events = await bench.server.publish([(bench.type, {"n": n}) for n in range(200)])
        await bench.server.kill("all")
        await bench.server.start()
        await bench.server.set_paused(endpoint.id, False)
        await _all(receiver, events)
        more = await bench.server.publish([(bench.type, {"n": n}) for n in range(200)])
        await bench.server.kill("all")
        await bench.server.start()
        again = await _all(receiver, more)
    return f"400 of 400, {again} of them twice"


@scenario(GROUP, "kill -9 of what sends, with requests in flight: each arrives within 5 s of its restart, and only those in flight twice", kills=True)
async def in_flight(bench: Bench) -> str:
    async with receiving() as receiver:
        receiver.free.clear()
        await bench.server.create_endpoint(receiver.url, [bench.type], concurrency=10)
        events = await bench.server.publish([(bench.type, {"n": n}) for n in range(100)])
        unanswered = [request.id for request in await receiver.count(10)]
        await bench.server.kill("sender")
        receiver.free.set()
        began = time.time()
        await bench.server.start()
        ready = time.time()
        due = Counter(events + unanswered)
        await receiver.until(lambda requests: due <= Counter(request.id for request in requests), 60.0)
    last = receiver.requests[-1].at
    more = Counter(request.id for request in receiver.requests) - due
    assert not more, f"sent more often than that: {more}"
    # How long a start takes is the machine's load as well.
    assert last - ready < WHOLE_AGAIN, f"it took {last - ready:.1f} s"
    return f"100 of 100 within {last - began:.1f} s of its start, the 10 in flight twice"


@scenario(GROUP, "kill -9 of the store alone: everything arrives, and it goes on by itself within 5 s", kills=True)
async def the_store(bench: Bench) -> str:
    async with receiving() as receiver:
        await bench.server.create_endpoint(receiver.url, [bench.type], concurrency=10)
        events = await bench.server.publish([(bench.type, {"n": n}) for n in range(300)])
        await receiver.count(50)
        await bench.server.kill("store")
        killed = time.time()
        seen = len(receiver.requests)
        again = await _all(receiver, events)
        late = next((request.at for request in receiver.requests[seen + 10 :]), killed) - killed
    assert late < WHOLE_AGAIN, f"it took {late:.1f} s"
    assert again <= 20, f"{again} were sent twice"
    return f"300 of 300, {again} of them twice; deliveries again {max(late, 0):.1f} s after the kill"


@scenario(GROUP, "A stop and a start lose nothing and repeat nothing", kills=True)
async def stopped(bench: Bench) -> str:
    async with receiving() as receiver:
        await bench.server.create_endpoint(receiver.url, [bench.type], concurrency=5)
        events = await bench.server.publish([(bench.type, {"n": n}) for n in range(300)])
        await receiver.count(20)
        await bench.server.stop()
        await bench.server.start()
        again = await _all(receiver, events)
    assert again == 0, f"{again} were sent twice"
    return "300 of 300, none twice"


@scenario(GROUP, "After kill -9 it is whole again, without help, within 5 s of the restart", kills=True)
async def whole_again(bench: Bench) -> str:
    async with receiving() as receiver:
        await bench.server.create_endpoint(receiver.url, [bench.type])
        slowest = 0.0
        for round in range(2):
            await bench.server.publish([(bench.type, {"n": round})])
            await receiver.count(len(receiver.requests) or 1)
            await bench.server.kill("all")
            await bench.server.start()
            began = time.time()
            (event,) = await bench.server.publish([(bench.type, {"again": round})])
            requests = await receiver.until(lambda requests, event=event: any(request.id == event for request in requests), 30)
            slowest = max(slowest, next(request.at for request in requests if request.id == event) - began)
    assert slowest < WHOLE_AGAIN, f"it took {slowest:.1f} s"
    return f"at most {slowest:.2f} s"
