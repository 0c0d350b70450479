"""SIGTERM under load, and what the processes of a service owe each other when one of them is killed."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from pipeline.client import Client
from pipeline.store import connection
from pipeline.store.embedded import EmbeddedStore
from tests.support.chains import STEPS, chain, deliver_to
from tests.support.runs import ended, submit
from tests.support.service import Service, token
from tests.support.subscriber import Subscriber

DRAIN = 10.0
QUEUES = ("a", "b", "c")


async def ledger_shows(folder: Path, lines: int) -> None:
    """Wait until so many lines are in the ledger (a file has no signal to wait for)."""
    async with asyncio.timeout(30):
        while not (folder / "ledger").exists() or (folder / "ledger").read_text().count("\n") < lines:  # noqa: ASYNC110  a file has no signal
            await asyncio.sleep(0.01)


@pytest.mark.timeout(180)
async def test_sigterm_under_load_ends_in_time_strands_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    accepted: dict[str, str] = {}
    service = Service(tmp_path, {**chain(), "server": {"drain": f"{DRAIN:.0f}s"}}, workers=2)
    await service.start()
    submitting = asyncio.create_task(submit(service, range(100), accepted, ms=200))
    await ledger_shows(tmp_path, 60)
    began = time.monotonic()
    assert await service.stop() == 0
    took = time.monotonic() - began
    await submitting
    assert took < DRAIN, f"it took {took:.1f} s"
    lines = [tuple(line.split()) for line in (tmp_path / "ledger").read_text().splitlines()]
    begun = {(queue, job) for what, queue, job, _ in lines if what == "begin"}
    finished = {(queue, job) for what, queue, job, _ in lines if what == "end"}
    assert begun == finished, "a job was cut off"
    assert len(begun) < len(accepted) * len(STEPS), "all was done before the signal"
    await nothing_is_active(tmp_path)

    await service.start()
    await submit(service, range(100), accepted, ms=5)
    async with Client(service.url, token()) as client:
        assert set(accepted.values()) <= await ended(client, len(accepted))
    await service.stop()
    times = Counter(tuple(line.split()[1:3]) for line in (tmp_path / "ledger").read_text().splitlines() if line.startswith("begin"))
    assert set(times.values()) == {1}
    assert len(times) == 100 * len(STEPS)


async def nothing_is_active(folder: Path) -> None:
    store = EmbeddedStore(folder / "data")
    redis = connection.connect(store.attach())
    for queue in QUEUES:
        assert await redis.lrange(f"bull:{queue}:active", 0, -1) == []
    await redis.aclose()
    store.detach()


@pytest.mark.timeout(120)
async def test_processes_of_a_killed_supervisor_drain_and_go_and_so_does_the_store(tmp_path: Path) -> None:
    service = Service(tmp_path, chain(), workers=1)
    await service.start()
    everyone = service.processes()
    assert len(everyone) >= 4  # supervisor, API and the rest, worker, store
    os.kill(service.pid, signal.SIGKILL)
    _, alive = await asyncio.to_thread(psutil.wait_procs, everyone, 30)
    assert alive == []


@pytest.mark.timeout(120)
async def test_a_killed_store_is_started_again_and_everything_goes_on(tmp_path: Path) -> None:
    async with Subscriber() as subscriber:
        webhooks = deliver_to(subscriber.endpoint("job.completed", "workflow.*"))
        service = Service(tmp_path, {**chain(concurrency=2), "webhooks": webhooks}, workers=2)
        async with service:
            accepted: dict[str, str] = {}
            submitting = asyncio.create_task(submit(service, range(60), accepted, ms=100))
            await ledger_shows(tmp_path, 60)
            (store,) = [found for found in service.processes() if "valkey-server" in found.name()]
            store.kill()
            await submitting
            await submit(service, range(60), accepted, ms=100)
            assert len(accepted) == 60
            # All may have been accepted before the kill: while the store is away, a question is answered 503.
            redis = connection.connect(EmbeddedStore(tmp_path / "data").url)
            await connection.wait_until_up(redis)
            await redis.aclose()
            async with Client(service.url, token()) as client:
                assert set(accepted.values()) <= await ended(client, 60)
                due = {event["id"] for run_id in accepted.values() for event in [found async for found in client.timeline(run_id)]}
            assert len(due) == 60 * 8
            await subscriber.until(due)
    lines = [tuple(line.split()[:3]) for line in (tmp_path / "ledger").read_text().splitlines()]
    assert len([line for line in lines if line[0] == "begin"]) == 60 * len(STEPS), "a job was run twice, though no worker died"


@pytest.mark.timeout(120)
async def test_the_jobs_of_a_killed_worker_are_done_by_another(tmp_path: Path) -> None:
    service = Service(tmp_path, chain(concurrency=4), workers=2)
    async with service:
        accepted: dict[str, str] = {}
        await submit(service, range(40), accepted, ms=300)
        await ledger_shows(tmp_path, 20)
        *_, worker = [child for child in psutil.Process(service.pid).children() if "spawn_main" in " ".join(child.cmdline())]
        worker.kill()
        async with Client(service.url, token()) as client:
            assert await ended(client, 40) == set(accepted.values())
            for run_id in accepted.values():
                assert (await client.run(run_id))["status"] == "completed"
                told = [(event["type"], event["data"].get("step")) async for event in client.timeline(run_id)]
                assert len(told) == len(set(told)) == 8
        again = Counter(tuple(line.split()[1:3]) for line in (tmp_path / "ledger").read_text().splitlines() if line.startswith("begin"))
        assert 0 < sum(times - 1 for times in again.values()) <= 12, "the killed worker had nothing under way, or others' jobs were run again"
    await nothing_is_active(tmp_path)


@pytest.mark.timeout(120)
async def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    service = Service(tmp_path, chain(), workers=1)
    async with service:
        accepted: dict[str, str] = {}
        children = [child for child in psutil.Process(service.pid).children() if "spawn_main" in " ".join(child.cmdline())]
        assert len(children) == 2
        for child in children:
            child.kill()
        psutil.wait_procs(children, 10)
        async with asyncio.timeout(30):
            while not accepted:
                service.url = port_of(service) or service.url
                await submit(service, range(1), accepted, ms=1)
        async with Client(service.url, token()) as client:
            assert await ended(client, 1) == set(accepted.values())


@pytest.mark.timeout(120)
async def test_what_keeps_a_process_from_starting_again_ends_no_service_that_was_up(tmp_path: Path) -> None:
    """The store being away for long, or set wrongly for a moment, must not take the processes along that still work."""
    service = Service(tmp_path, chain(), workers=1)
    async with service:
        redis = connection.connect(EmbeddedStore(tmp_path / "data").url)
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        (rest, *_) = [child for child in psutil.Process(service.pid).children() if "spawn_main" in " ".join(child.cmdline())]
        rest.kill()
        await log_shows(service, '"cannot start"')
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.aclose()
        began = service.log.count('"listening"')
        async with asyncio.timeout(30):
            while service.log.count('"listening"') == began and psutil.Process(service.pid).is_running():  # noqa: ASYNC110  nor has what a process has written
                await asyncio.sleep(0.05)
        service.url = port_of(service) or ""
        accepted: dict[str, str] = {}
        await submit(service, range(1), accepted, ms=1)
        async with Client(service.url, token()) as client:
            assert await ended(client, 1) == set(accepted.values())


async def log_shows(service: Service, text: str) -> None:
    async with asyncio.timeout(30):
        while text not in service.log:  # noqa: ASYNC110  likewise
            await asyncio.sleep(0.05)


def port_of(service: Service) -> str | None:
    """Where the API listens now: port 0 takes another one at each start, and the log tells which."""
    urls = [json.loads(line).get("url") for line in service.log.splitlines() if line.startswith("{") and '"listening"' in line]
    return urls[-1] if urls else None
