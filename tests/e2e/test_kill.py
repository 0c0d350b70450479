"""kill -9 of the whole service in the middle of its work, at random instants: nothing accepted is lost, nothing moves twice."""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from pipeline.client import Client
from tests.support import soak
from tests.support.chains import STEPS, chain, deliver_to
from tests.support.runs import ended, submit
from tests.support.service import Service, token
from tests.support.subscriber import Subscriber

KILLS = soak.size(3, 20)
RUNS = soak.size(200, 1000)


@pytest.mark.soak
@pytest.mark.timeout(soak.size(300, 1500))
async def test_kill_9_of_everything_loses_no_run_and_repeats_no_transition(tmp_path: Path) -> None:
    seed = int(os.environ.get("HOOKLINE_SEED") or random.randrange(1 << 32))
    print(f"HOOKLINE_SEED={seed}")
    seen = [f"seed {seed}"]
    dice = random.Random(seed)
    accepted: dict[str, str] = {}
    async with Subscriber() as subscriber:
        endpoint = subscriber.endpoint("job.completed", "workflow.*")
        service = Service(tmp_path, {**chain(concurrency=2), "webhooks": deliver_to(endpoint)}, workers=2)
        await service.start()
        try:
            for kill in range(KILLS):
                batch = range(kill * RUNS // KILLS, (kill + 1) * RUNS // KILLS)
                # The same the second time: a run of which only the answer was lost is there, under its key.
                ms = dice.randrange(200, 400)
                submitting = asyncio.create_task(submit(service, batch, accepted, ms=ms))
                await ledger_grows(tmp_path)
                await asyncio.sleep(dice.uniform(0.2, 1.5))  # the random instant is what is tested
                await service.kill()
                await submitting
                seen.append(f"kill {kill + 1}: {len(accepted)} runs accepted, {under_way(tmp_path, accepted)}")
                await service.start()
                await submit(service, batch, accepted, ms=ms)
            assert len(accepted) == RUNS
            seen += await check(service, subscriber, accepted)
        finally:
            await service.stop()
    assert subscriber.refused == 0
    soak.report("kill -9 of the whole service", seen)


async def ledger_grows(folder: Path) -> None:
    """Until one more attempt has begun or ended: with nothing under way, there is nothing to kill."""
    ledger = folder / "ledger"
    before = ledger.stat().st_size if ledger.exists() else 0
    async with asyncio.timeout(30):
        while not ledger.exists() or ledger.stat().st_size == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def under_way(folder: Path, accepted: dict[str, str]) -> str:
    """What the ledger says of the moment of the kill; fails if nothing was being done then."""
    lines = [line.split() for line in (folder / "ledger").read_text().splitlines()]
    begun = sum(what == "begin" for what, *_ in lines)
    finished = sum(what == "end" for what, *_ in lines)
    assert finished < len(accepted) * len(STEPS), "all was done before the kill"
    return f"{begun} attempts begun, {finished} ended"


async def check(service: Service, subscriber: Subscriber, accepted: dict[str, str]) -> list[str]:
    assert len(set(accepted.values())) == len(accepted)
    async with Client(service.url, token()) as client:
        assert set(accepted.values()) <= await ended(client, len(accepted))
        due: set[str] = set()
        for run_id in accepted.values():
            assert (await client.run(run_id))["status"] == "completed"
            timeline = [event async for event in client.timeline(run_id)]
            told = Counter((event["type"], event["data"].get("step")) for event in timeline)
            steps = [(type, step) for step in STEPS for type in ("job.completed", "workflow.step.completed")]
            assert told == Counter([("workflow.started", None), ("workflow.completed", None), *steps])
            due |= {event["id"] for event in timeline}
        assert len(due) == len(accepted) * 8
        await subscriber.until(due)
        for counts in (await client.stats())["queues"].values():
            assert (counts["active"], counts["waiting"], counts["delayed"]) == (0, 0, 0)
    again = sum(times - 1 for times in subscriber.deliveries.values())
    return [f"all {len(accepted)} runs completed, each transition once", f"{len(due)} events delivered, {again} of them twice, none lost"]
