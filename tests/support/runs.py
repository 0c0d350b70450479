"""Starting many runs and waiting for their ends through the HTTP API."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from pipeline.client import Client
from pipeline.errors import Unavailable
from tests.support.service import Service, token

ENDS = ("workflow.completed", "workflow.failed", "workflow.cancelled")


async def submit(service: Service, numbers: Iterable[int], accepted: dict[str, str], *, ms: int, at_once: int = 8) -> None:
    """Start a `chain` run for each number under an Idempotency-Key of its own, until the service is gone.

    `accepted` takes key → run id: what is not answered is not accepted, and may be sent again.
    """
    waiting = iter([number for number in numbers if f"run-{number}" not in accepted])
    async with Client(service.url, token(), timeout=10) as client:

        async def one_by_one() -> None:
            for number in waiting:
                try:
                    answer = await client.start_run("chain", {"documentId": f"doc-{number}", "ms": ms}, user_id="u", idempotency_key=f"run-{number}")
                except Unavailable:
                    return
                accepted[f"run-{number}"] = answer["runId"]

        await asyncio.gather(*(one_by_one() for _ in range(at_once)))


async def ends(client: Client) -> AsyncIterator[str]:
    """The id of each run that has ended, and then of each that ends."""
    after = None
    while (page := await client.events(after=after, types=ENDS, limit=500))["items"]:
        for event in page["items"]:
            after = event["cursor"]
            yield event["data"]["runId"]
    async for event in client.follow(after=after or "0-0", types=ENDS):
        yield event["data"]["runId"]


async def ended(client: Client, runs: int, *, seconds: float = 90.0) -> set[str]:
    """Wait until so many runs have ended; returns their ids. Raises TimeoutError saying how many did."""
    found: set[str] = set()
    try:
        async with asyncio.timeout(seconds):
            async for run_id in ends(client):
                found.add(run_id)
                if len(found) >= runs:
                    return found
    except TimeoutError:
        pass
    raise TimeoutError(f"{len(found)} of {runs} runs ended within {seconds} s")


async def outcome(service: Service, workflow: str, input: Any = None, *, seconds: float = 30.0) -> dict[str, Any]:
    """Start a run and wait for its end; returns it as the API shows it."""
    async with Client(service.url, token()) as client:
        run_id = (await client.start_run(workflow, input or {}))["runId"]
        async with asyncio.timeout(seconds):
            async for ended_run in ends(client):
                if ended_run == run_id:
                    return await client.run(run_id)
    raise AssertionError("the event stream ended")
