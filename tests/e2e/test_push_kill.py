"""kill -9 at each border between two steps of a push: the job ends once, by its one accepted callback, and each transition is told once."""

import asyncio
import contextlib
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline.client import Client
from pipeline.errors import Unavailable
from tests.e2e.test_push import Other, config, other, port  # noqa: F401  (two of them are fixtures)
from tests.support import soak
from tests.support.runs import ENDS
from tests.support.service import ROOT, Service, token

# At CI size, every second one for the variant in which all must start again each time.
BORDERS = (
    "before the request", "after the request", "before the hold", "after the hold",
    "before the callback", "after the callback", "after the end", "before the end",
)  # fmt: skip
TOLD = ("workflow.started", "workflow.step.waiting", "job.completed", "workflow.step.completed", "workflow.completed")


class Story:
    """The runs, one for each border, and what the other service hears and says of them."""

    def __init__(self, service: Service, listening: Other, borders: Sequence[str]) -> None:
        self.service = service
        self.listening = listening
        self.borders = borders
        self.runs: dict[str, str] = {}
        """By border."""
        self.asked: dict[str, list[dict[str, Any]]] = {border: [] for border in borders}
        self.answered: dict[str, int] = {}
        self.died: list[str] = []
        self.calls: dict[str, asyncio.Task[None]] = {}

    async def hear(self) -> None:
        while True:
            asked = await self.listening.asked.get()
            self.asked[asked["data"]["text"]].append(asked)

    async def call_back(self, border: str) -> None:
        """As a good client: until there is an answer."""
        link = self.asked[border][-1]["callbackUrl"]
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.post(link, json={"result": {"text": border}}) as response:
                        if response.status < 500:
                            self.answered[border] = response.status
                            return
                await asyncio.sleep(0.1)  # as such clients do

    async def until_all_ended(self) -> None:
        after, left = "0-0", set(self.runs.values())
        of = {run_id: border for border, run_id in self.runs.items()}
        while left:
            with contextlib.suppress(Unavailable):
                async with Client(self.service.url, token()) as client:
                    async for event in client.follow(after=after, types=["workflow.step.waiting", *ENDS]):
                        after = event["cursor"]
                        if event["type"] in ENDS:
                            left.discard(event["data"]["runId"])
                        else:
                            border = of[event["data"]["runId"]]
                            self.calls.setdefault(border, asyncio.create_task(self.call_back(border)))
                        if not left:
                            return
            await asyncio.sleep(0.1)


@pytest.mark.soak
@pytest.mark.timeout(240)
@pytest.mark.parametrize("whole", [False, True], ids=["that process", "everything, the store included"])
async def test_kill_9_at_each_border_of_a_push(tmp_path: Path, other: tuple[Other, str], port: int, whole: bool) -> None:  # noqa: F811
    listening, url = other
    # A socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        halts = f"{folder}/halts"
        environment = {"HALTS": halts, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "support" / "halting"), str(ROOT)])}
        settings = config(url, port)
        settings["queues"]["pushed"]["concurrency"] = 4
        # Several, because one process that dies again and again is started again ever later.
        service = Service(tmp_path, settings, port=port, workers=1 if whole else 3, environment=environment)
        story = Story(service, listening, BORDERS[soak.size(1, 0) :: soak.size(2, 1)] if whole else BORDERS)
        one_at_a_time = asyncio.Lock()

        async def halted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            border, pid = (await reader.readline()).decode().rsplit(" ", 1)
            async with one_at_a_time:
                if border in story.died:
                    writer.write(b"g")  # it died there once
                elif whole:
                    story.died.append(border)
                    await service.kill()
                    await service.start()
                else:
                    story.died.append(border)
                    os.kill(int(pid), signal.SIGKILL)
            writer.close()

        async with await asyncio.start_unix_server(halted, halts):
            await service.start()
            hearing = asyncio.create_task(story.hear())
            try:
                # The lock: nobody dies before all are accepted, and each run has its name here.
                async with one_at_a_time, Client(service.url, token()) as client:
                    for border in story.borders:
                        story.runs[border] = (await client.start_run("ask", {"text": border}))["runId"]
                async with asyncio.timeout(120):
                    await story.until_all_ended()
                    await asyncio.gather(*story.calls.values())
                assert not hearing.done()
                async with one_at_a_time:
                    pass  # the last of them may be starting again
                assert sorted(story.died) == sorted(story.borders)
                await check(story)
            finally:
                hearing.cancel()
                await service.stop()


async def until_all_read(url: str) -> None:
    """What a killed engine had read is handed to another after 5 s."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/health/ready") as response:
                if (await response.json())["parts"]["engine"]["behindMs"] == 0:
                    return
            await asyncio.sleep(0.1)


async def check(story: Story) -> None:
    async with asyncio.timeout(20):
        await until_all_read(story.service.url)
    assert story.answered.keys() == set(story.borders)
    # 409 where the answer to the one that was accepted was lost with its sender.
    assert set(story.answered.values()) <= {200, 409}
    assert story.answered["after the callback"] == 409
    async with Client(story.service.url, token()) as client:
        for border, run_id in story.runs.items():
            run = await client.run(run_id)
            assert (run["status"], run["steps"]["only"]["result"], run["steps"]["only"]["attempts"]) == ("completed", {"text": border}, 1), border
            assert Counter([event["type"] async for event in client.timeline(run_id)]) == Counter(TOLD), border
            # Asked again or not, it is the same question.
            assert len({(asked["callbackUrl"], asked["idempotencyKey"], asked["attempt"]) for asked in story.asked[border]}) == 1, border
        log = (await client.events(after="0-0", limit=500))["items"]
        counts = (await client.stats())["queues"]["pushed"]
    assert (counts["active"], counts["waiting"], counts["delayed"], counts["completed"]) == (0, 0, 0, len(story.borders))
    # In the log itself, whose readers deduplicate, each transition was written once, too.
    assert Counter(event["type"] for event in log) == Counter({type: len(story.borders) for type in TOLD})
