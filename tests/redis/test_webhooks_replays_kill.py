"""A replay of more than 10,000 deliveries whose process is killed at the borders of its steps, while new ones come: each once."""

import asyncio
import random
import sys
from collections import Counter

import pytest
from redis.asyncio import Redis

from pipeline.store.event import Event, event_id
from tests.redis.test_webhooks_replays import begin, settle
from tests.support import soak
from tests.support.hooks import Hooks
from tests.support.valkey import Valkey
from webhooks.backoff import Verdict

RECORDS = soak.size(12_000, 100_000)


async def fill(hooks: Hooks, name: str, count: int) -> set[str]:
    """So many events, each with a delivery; returns their ids."""
    ids = [event_id("job.failed", name, n) for n in range(count)]
    for start in range(0, count, 500):
        part = ids[start : start + 500]
        await hooks.log.append([Event(id=id, type="job.failed", timestamp=hooks.clock(), data={"n": id}) for id in part])
    await hooks.spread()
    return set(ids)


@pytest.mark.soak
@pytest.mark.timeout(soak.size(120, 600))
async def test_killed_at_the_borders_of_its_steps(redis: Redis, valkey: Valkey) -> None:
    hooks = Hooks(redis)
    endpoint = await hooks.endpoint(concurrency=1000)
    ids = await fill(hooks, "old", RECORDS)
    failed: list[str] = []
    while len(failed) < RECORDS:
        failed += await settle(hooks, Verdict.EXHAUSTED)
    replay = await begin(hooks, endpoint)
    hooks.clock.forward(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.replayer", valkey.socket_url, replay.id, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    dice = random.Random(6)
    sent: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    new: set[str] = set()
    while (await hooks.webhooks.replays.get(replay.id)).status == "running":
        process.stdin.write(f"{hooks.clock.now} {dice.randrange(4)} {dice.choice(('before', 'after'))}\n".encode())
        ends[(await process.stdout.readline()).decode().strip()] += 1
        new |= await fill(hooks, f"new {sum(ends.values())}", 3)
        # Exhausted again, as before: it must not be sent a third time.
        while batch := await settle(hooks, Verdict.EXHAUSTED):
            sent.update(batch)
    process.stdin.close()
    await process.wait()
    done = await hooks.webhooks.replays.get(replay.id)
    assert (done.status, done.matched, done.replayed, done.skipped) == ("done", RECORDS, RECORDS, 0)
    assert sent == Counter(ids | new), "each old one again, each new one, and none twice"
    assert ends["killed"] > 10
    assert set(ends) <= {"killed", "exit 0"}
    soak.report("kill -9 of a replay", [f"{RECORDS} deliveries replayed over {ends['killed']} kills, each once; {len(new)} new ones came meanwhile"])
