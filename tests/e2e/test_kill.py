"""kill -9 of the whole service in the middle of its work, at random instants: nothing accepted is lost, nothing moves twice."""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.client import Client
from pipeline.errors import Unavailable
from tests.support.service import Service, token
from tests.support.subscriber import Subscriber

SOAK = bool(os.environ.get("HOOKLINE_SOAK"))
KILLS = 20 if SOAK else 3
RUNS = 200
STEPS = ("one", "two", "three")
CONFIG: dict[str, Any] = {
    "queues": {
        name: {"processors": {"do": "tests.support.processors:work"}, "concurrency": 8, "backoff": {"type": "fixed", "delay": "100ms"}}
        for name in ("a", "b", "c")
    },
    "workflows": {
        "chain": {
            "version": 1,
            "steps": {
                "one": {"queue": "a", "with": {"documentId": "${{ input.documentId }}", "ms": "${{ input.ms }}"}},
                "two": {"needs": ["one"], "queue": "b", "with": {"ms": "${{ steps.one.result.got.ms }}"}},
                "three": {"needs": ["two"], "queue": "c", "with": {"ms": "${{ steps.two.result.got.ms }}"}},
            },
        }
    },
}


@pytest.mark.timeout(900 if SOAK else 240)
async def test_kill_9_of_everything_loses_no_run_and_repeats_no_transition(tmp_path: Path) -> None:
    seed = int(os.environ.get("HOOKLINE_SEED", random.randrange(1 << 32)))
    print(f"HOOKLINE_SEED={seed}")
    dice = random.Random(seed)
    async with Subscriber() as subscriber:
        webhooks = {
            "allow_networks": ["127.0.0.0/8"],
            "endpoints": [subscriber.endpoint("job.completed", "workflow.*")],
            "schedule": ["0s", *["1s"] * 30],
        }
        service = Service(tmp_path, {**CONFIG, "webhooks": webhooks}, workers=2)
        await service.start()
        try:
            accepted: dict[str, str] = {}
            for kill in range(KILLS):
                batch = range(kill * RUNS // KILLS, (kill + 1) * RUNS // KILLS)
                submitting = asyncio.create_task(submit(service, batch, accepted, dice.randrange(40, 120)))
                await asyncio.sleep(dice.uniform(0.3, 1.5))  # the random instant is the test
                await service.kill()
                await submitting
                lines = (tmp_path / "ledger").read_text().splitlines()
                begun, ended = (sum(line.startswith(word) for line in lines) for word in ("begin", "end"))
                assert begun > ended or ended < len(accepted) * len(STEPS), "nothing was under way at the kill"
                print(f"kill {kill + 1}: {len(accepted)} runs accepted, {begun} attempts begun, {ended} ended")
                await service.start()
                await submit(service, batch, accepted, 50)
            assert len(accepted) == RUNS
            await check(service, subscriber, accepted)
        finally:
            await service.stop()
    assert subscriber.refused == 0


async def submit(service: Service, batch: range, accepted: dict[str, str], ms: int) -> None:
    """Start these runs, each under its own Idempotency-Key; what is not answered is not accepted and is sent again later."""
    async with Client(service.url, token(), timeout=5) as client:
        for number in batch:
            key = f"run-{number}"
            if key in accepted:
                continue
            try:
                answer = await client.start_run("chain", {"documentId": f"doc-{number}", "ms": ms}, user_id="u", idempotency_key=key)
            except Unavailable:
                return
            accepted[key] = answer["runId"]


async def check(service: Service, subscriber: Subscriber, accepted: dict[str, str]) -> None:
    assert len(set(accepted.values())) == len(accepted)
    async with Client(service.url, token()) as client:
        await all_ended(client, len(accepted))
        due: set[str] = set()
        for run_id in accepted.values():
            run = await client.run(run_id)
            assert run["status"] == "completed", run
            timeline = [event async for event in client.timeline(run_id)]
            kinds = Counter((event["type"], event["data"].get("step")) for event in timeline)
            assert kinds == Counter(
                [("workflow.started", None), ("workflow.completed", None)]
                + [(type, step) for step in STEPS for type in ("job.completed", "workflow.step.completed")]
            )
            due |= {event["id"] for event in timeline}
        assert len(due) == len(accepted) * 8
        await subscriber.until(due)
        for counts in (await client.stats())["queues"].values():
            assert (counts["active"], counts["waiting"], counts["delayed"]) == (0, 0, 0)
    again = sum(times - 1 for times in subscriber.deliveries.values())
    print(f"{len(due)} events delivered, {again} of them more than once")


async def all_ended(client: Client, runs: int, *, seconds: float = 90.0) -> None:
    """Wait on the event stream until so many runs have ended."""
    ended: set[str] = set()
    async with asyncio.timeout(seconds):
        after = None
        while True:
            page = await client.events(after=after, types=["workflow.completed", "workflow.failed"], limit=500)
            ended |= {event["data"]["runId"] for event in page["items"]}
            after = page["nextCursor"] or after
            if len(ended) >= runs:
                return
            if not page["items"]:
                break
        async for event in client.follow(after=after, types=["workflow.completed", "workflow.failed"]):
            ended.add(event["data"]["runId"])
            if len(ended) >= runs:
                return
