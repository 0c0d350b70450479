"""A workflow's step done by Node: its end moves the run, also when Hookline was down meanwhile or BullMQ's stream has lost it."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline.client import Client
from tests.support.chains import no_libraries, queue
from tests.support.node import MAJORS, Hand, installed, told
from tests.support.runs import ended
from tests.support.service import Service, token
from tests.support.valkey import Valkey

CONFIG: dict[str, Any] = {
    "queues": {
        **no_libraries(),
        # One of the original's queues, so that a plain POST goes there as well.
        "notifications": {"processors": {"send-notification": "external"}, "backoff": {"type": "fixed", "delay": "50ms"}},
        "theirs": {"processors": {"do": "external"}, "backoff": {"type": "fixed", "delay": "50ms"}},
        "ours": queue(),
    },
    "workflows": {
        "mixed": {
            "version": 1,
            "steps": {
                "before": {"queue": "ours", "with": {"n": "${{ input.n }}"}},
                "theirs": {"needs": ["before"], "queue": "theirs", "with": "${{ input }}"},
                "after": {"needs": ["theirs"], "queue": "ours", "with": {"value": "${{ steps.theirs.result.value }}"}},
            },
        }
    },
}


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    installed()


def service_on(folder: Path, valkey: Valkey) -> Service:
    return Service(folder, CONFIG, environment={"REDIS_URL": valkey.url})


async def all_events(client: Client, *types: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = None
    while (page := await client.events(after=after, types=types, limit=500))["items"]:
        found += page["items"]
        after = found[-1]["cursor"]
    return found


async def until(client: Client, type: str, number: int, *, seconds: float = 30.0) -> list[dict[str, Any]]:
    """The events of a type, once there are so many."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(seconds):
        async for event in client.follow(after="0-0", types=(type,)):
            found.append(event)
            if len(found) == number:
                return found
    raise AssertionError("the event stream ended")


def once_each(events: list[dict[str, Any]], what: str) -> None:
    assert [pair for pair, times in Counter((event["type"], event["data"][what]) for event in events).items() if times > 1] == []


@pytest.mark.parametrize("major", MAJORS)
async def test_a_step_done_by_node_moves_its_run(valkey: Valkey, redis: Redis, tmp_path: Path, major: str) -> None:
    async with service_on(tmp_path, valkey) as service, Client(service.url, token()) as client:
        inputs: list[dict[str, Any]] = [
            {"n": 1, "result": {"value": "ä"}},
            {"n": 2, "fail": "no luck"},
            {"n": 3, "fatal": "never"},
            {"n": 4, "result": {"value": "x" * 70_000}},
            {"n": 5, "ms": 700, "result": {"value": 5}},
            {"n": 6, "ms": 700, "fail": "late"},
        ]
        runs = [(await client.start_run("mixed", one))["runId"] for one in inputs]
        plain = await client.add_job("notifications", {"userId": "u", "type": "email", "subject": "s", "message": "m"})
        await until(client, "workflow.step.completed", len(runs))
        # Nobody is there for them, and our workers, which have just done the step before, leave them alone.
        stats = await client.stats("theirs")
        assert (stats["waiting"], stats["active"]) == (len(runs), 0)
        async with Hand(major, valkey.port) as hand:
            await hand("watch", queue="theirs")
            # What the worker says of retention is overridden by the jobs' own options.
            for name in ("theirs", "notifications"):
                await hand("work", queue=name, options={"concurrency": 10, "removeOnComplete": {"count": 0}, "removeOnFail": {"count": 0}})
            for run_id in runs[4:]:
                await hand.until(told("began", id=f"{run_id}_theirs_1"))
                await client.cancel(run_id)
            assert await ended(client, len(runs)) == set(runs)
            await hand.until(told("completed", queue="theirs"), 3)
            # A cancelled job's attempt ends as it ends; it gets no other.
            (*_, last) = await hand.until(told("failed", id=f"{runs[5]}_theirs_1"), 2)
            assert (last["reason"], hand.of("began").count(last["id"])) == ("cancelled by tester", 1)
            found = [await client.run(run_id) for run_id in runs]
            assert [run["status"] for run in found] == ["completed", "failed", "failed", "failed", "cancelled", "cancelled"]
            assert found[0]["steps"]["after"]["result"] == {"got": {"value": "ä"}}
            assert [run["steps"]["theirs"]["error"] for run in found[1:3]] == ["no luck", "never"]
            assert found[1]["steps"]["theirs"]["attempts"] == 3
            assert "the limit is 65,536" in found[3]["steps"]["theirs"]["error"]
            # Attempts that are not the last are nobody's business, the late end is told and ignored, and the plain job has its event as well.
            (told_of,) = [event for event in await until(client, "job.completed", 10) if event["data"]["jobId"] == plain["jobId"]]
            assert (told_of["data"]["queue"], told_of["data"]["userId"], told_of["data"]["attempts"]) == ("notifications", "u", 1)
            await until(client, "job.failed", 4)
            events = await all_events(client, "job.*")
            once_each([event for event in events if event["type"] != "job.progress"], "jobId")
            assert sum(event["type"] == "job.failed" for event in events) == 4
            assert [(await client.run(run_id))["status"] for run_id in runs[4:]] == ["cancelled", "cancelled"]
            assert (await client.job("notifications", plain["jobId"]))["state"] == "completed"
            # The engine removes each, that of a late end too.
            removed = await hand.until(told("event removed", queue="theirs"), len(runs))
            assert {said["id"] for said in removed} == {f"{run_id}_theirs_1" for run_id in runs}
        assert {event["data"]["runId"] for event in events if "runId" in event["data"]} == set(runs)


async def test_ends_that_came_while_hookline_was_down_and_the_stream_was_trimmed(valkey: Valkey, redis: Redis, tmp_path: Path) -> None:
    service = service_on(tmp_path, valkey)
    runs: list[str] = []
    async with Hand("5", valkey.port) as five, Hand("6", valkey.port) as six:
        async with service, Client(service.url, token()) as client:
            runs += [(await client.start_run("mixed", {"n": n, "result": {"value": n}}))["runId"] for n in range(150)]
            plain = [(await client.add_job("notifications", {"userId": "u", "type": "email", "subject": "s", "message": "m"})) for _ in range(120)]
            await until(client, "workflow.step.completed", len(runs))
            # kill -9 at a moment when Node is at work.
            for hand in (five, six):
                await hand("work", queue="theirs", options={"concurrency": 3})
                await hand("work", queue="notifications", options={"concurrency": 3})
            await five.until(told("completed", queue="theirs"), 3)
            await service.kill()
        async with asyncio.timeout(30):
            while len([said for hand in (five, six) for said in hand.signals if said["signal"] == "completed"]) < len(runs) + len(plain):
                await asyncio.wait([asyncio.create_task(hand.changed()) for hand in (five, six)], timeout=0.5)
        # What a `new Queue(…, {streams: {events: {maxLen: 100}}})` of Node leaves, and worse.
        await redis.xtrim("bull:theirs:events", maxlen=100, approximate=False)
        await redis.delete("bull:notifications:events")
        began = time.monotonic()
        async with service, Client(service.url, token()) as client:
            assert await ended(client, len(runs), seconds=60) == set(runs)
            assert time.monotonic() - began < 40
            events = await until(client, "job.completed", len(runs) * 3 + len(plain))
            once_each(events, "jobId")
            assert {job["jobId"] for job in plain} <= {event["data"]["jobId"] for event in events}
            steps = await all_events(client, "workflow.step.completed")
            assert len(steps) == len(runs) * 3
            assert len({(event["data"]["runId"], event["data"]["step"]) for event in steps}) == len(steps)
            began_there = Counter(
                said["id"] for hand in (five, six) for said in hand.signals if said["signal"] == "began" and said["queue"] == "theirs"
            )
            assert began_there == {f"{run_id}_theirs_1": 1 for run_id in runs}
            assert (await client.stats("theirs"))["completed"] == 0
            assert (await client.stats("notifications"))["completed"] == 100
