"""A step done by another service: signed POST, an answer at once or by callback, and every way in which a callback can be wrong."""

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from pipeline.client import Client
from tests.support.chains import no_libraries
from tests.support.receiver import Answer, receiving
from tests.support.runs import ends
from tests.support.service import ROOT, Service, token
from tests.support.subscriber import SECRET
from tests.support.valkey import free_port

pytestmark = pytest.mark.timeout(90)


class Other:
    """The other service: verifies each request with the public package and answers as its script says."""

    def __init__(self) -> None:
        self.script: list[tuple[int, Any]] = []
        self.asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def handle(self, request: web.Request) -> web.Response:
        event = Webhook(SECRET).verify(await request.read(), dict(request.headers))
        self.asked.put_nowait(event["data"])
        status, body = self.script.pop(0) if self.script else (202, None)
        return web.json_response(body, status=status) if body is not None else web.Response(status=status)


@pytest.fixture
async def other() -> AsyncIterator[tuple[Other, str]]:
    made = Other()
    app = web.Application()
    app.add_routes([web.post("/jobs", made.handle)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield made, f"http://127.0.0.1:{runner.addresses[0][1]}/jobs"
    await runner.cleanup()


@pytest.fixture
def port() -> int:
    """Where the API will listen: callback links are made by workers, which must know it beforehand."""
    return free_port()


def config(url: str, port: int, **push: Any) -> dict[str, Any]:
    return {
        "server": {"public_url": f"http://127.0.0.1:{port}"},
        "push": {"secret": SECRET, **push},
        "queues": {
            **no_libraries(),
            "pushed": {"processors": {"analyze": url}, "concurrency": 1, "attempts": 2, "backoff": {"type": "fixed", "delay": "50ms"}},
        },
        "workflows": {"ask": {"version": 1, "steps": {"only": {"queue": "pushed", "with": {"text": "${{ input.text }}"}}}}},
    }


async def start(service: Service, text: str = "t") -> str:
    async with Client(service.url, token()) as client:
        return str((await client.start_run("ask", {"text": text}))["runId"])


async def ended(service: Service, run_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30), Client(service.url, token()) as client:
        async for found in ends(client):
            if found == run_id:
                return await client.run(run_id)
    raise AssertionError


async def call_back(url: str, body: Any) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        return response.status, await response.json()


async def test_an_answer_at_once_is_the_result(tmp_path: Path, other: tuple[Other, str], port: int) -> None:
    service_of_others, url = other
    async with Service(tmp_path, config(url, port), port=port) as service:
        service_of_others.script = [(200, {"risk": "low"}), (503, None), (200, {"risk": "again"}), (422, {"detail": "no"})]
        run = await ended(service, await start(service))
        assert (run["status"], run["steps"]["only"]["result"]) == ("completed", {"risk": "low"})
        asked = await service_of_others.asked.get()
        assert (asked["data"], asked["job"], asked["attempt"], asked["runId"]) == ({"text": "t"}, "analyze", 1, run["runId"])
        run = await ended(service, await start(service))
        assert (run["steps"]["only"]["attempts"], run["steps"]["only"]["result"]) == (2, {"risk": "again"})
        run = await ended(service, await start(service))
        assert (run["status"], run["steps"]["only"]["attempts"]) == ("failed", 1)
        assert "answered 422" in run["error"]


async def test_a_callback_ends_the_step_once_and_holds_no_slot_meanwhile(tmp_path: Path, other: tuple[Other, str], port: int) -> None:
    service_of_others, url = other
    async with Service(tmp_path, config(url, port), port=port) as service:
        first, second = await start(service, "one"), await start(service, "two")
        # One slot, and both are asked for: the first does not hold it while it waits.
        waiting = {asked["runId"]: asked for asked in [await service_of_others.asked.get(), await service_of_others.asked.get()]}
        link = waiting[first]["callbackUrl"]
        forged = link.replace("signature=", "signature=x")
        assert (await call_back(forged, {"result": 1}))[0] == 403
        assert (await call_back(link, {"neither": 1}))[0] == 422
        assert (await call_back(link, {"result": "x" * 70_000}))[0] in (413, 422)
        assert (await call_back(link, {"result": {"risk": "high"}}))[0] == 200
        status, problem = await call_back(link, {"result": "again"})
        assert (status, problem["type"]) == (409, "urn:hookline:problem:conflict")
        run = await ended(service, first)
        assert (run["status"], run["steps"]["only"]["result"], run["steps"]["only"]["attempts"]) == ("completed", {"risk": "high"}, 1)
        async with Client(service.url, token()) as client:
            assert (await client.run(second))["steps"]["only"]["status"] == "waiting"
            told = [event["type"] async for event in client.timeline(second)]
            assert told == ["workflow.started", "workflow.step.waiting"]
            await client.cancel(second)
        assert (await call_back(waiting[second]["callbackUrl"], {"result": 1}))[0] == 410


async def test_a_waiting_step_survives_kill_9_of_everything(tmp_path: Path, other: tuple[Other, str], port: int) -> None:
    service_of_others, url = other
    service = Service(tmp_path, config(url, port), port=port)
    await service.start()
    run_id = await start(service)
    asked = await service_of_others.asked.get()
    async with asyncio.timeout(20), Client(service.url, token()) as client:
        async for event in client.follow(after="0-0", types=["workflow.step.waiting"]):
            assert event["data"]["runId"] == run_id
            break
    await service.kill()
    await service.start()
    assert (await call_back(asked["callbackUrl"], {"error": "not readable", "retry": False}))[0] == 200
    run = await ended(service, run_id)
    assert (run["status"], run["steps"]["only"]["error"]) == ("failed", "not readable")
    assert service_of_others.asked.empty()
    await service.stop()


async def test_a_callback_that_never_comes_is_a_failed_attempt_and_a_late_one_is_refused(tmp_path: Path, other: tuple[Other, str], port: int) -> None:
    service_of_others, url = other
    async with Service(tmp_path, config(url, port, callback_timeout="400ms"), port=port) as service:
        run = await ended(service, await start(service))
        assert (run["status"], run["steps"]["only"]["attempts"]) == ("failed", 2)
        assert run["steps"]["only"]["error"] == "no callback within 400ms"
        first, second = await service_of_others.asked.get(), await service_of_others.asked.get()
        assert first["callbackUrl"] != second["callbackUrl"]
        assert first["idempotencyKey"] == second["idempotencyKey"]
        assert (await call_back(second["callbackUrl"], {"result": 1}))[0] == 410


async def test_a_link_of_an_earlier_execution_is_gone_and_no_log_has_any(tmp_path: Path, other: tuple[Other, str], port: int) -> None:
    service_of_others, url = other
    settings = config(url, port)
    settings["workflows"]["ask"]["steps"]["only"]["timeout"] = "2s"
    async with Service(tmp_path, settings, port=port) as service, Client(service.url, token()) as client:
        run = await ended(service, await start(service))
        assert (run["status"], "timed out" in run["error"] or "timeout" in run["error"]) == ("failed", True), run["error"]
        first = await service_of_others.asked.get()
        assert (await call_back(first["callbackUrl"], {"result": "late"}))[0] == 410
        await client.retry(run["runId"])
        second = await service_of_others.asked.get()
        assert (second["jobId"], second["attempt"]) != (first["jobId"], first["attempt"])
        assert second["idempotencyKey"] != first["idempotencyKey"]
        assert (await call_back(first["callbackUrl"], {"result": "late"}))[0] == 410
        swapped = second["callbackUrl"].partition("?")[0] + "?" + first["callbackUrl"].partition("?")[2]
        assert (await call_back(swapped, {"result": "swapped"}))[0] == 403
        assert (await call_back(second["callbackUrl"], {"result": "in time"}))[0] == 200
        async with asyncio.timeout(20):
            async for event in client.follow(after="0-0", types=["workflow.completed"]):
                assert event["data"]["runId"] == run["runId"]
                break
        assert (await client.run(run["runId"]))["steps"]["only"]["result"] == "in time"
    for asked in (first, second):
        signature = asked["callbackUrl"].partition("signature=")[2]
        assert len(signature) > 40
        assert signature[:20] not in service.log
    assert "/api/callbacks/" in service.log


async def test_a_link_outlives_the_rotation_of_its_key_for_as_long_as_that_is_named(tmp_path: Path, other: tuple[Other, str], port: int) -> None:
    service_of_others, url = other
    old, new = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
    runs, links = [], []
    async with Service(tmp_path, config(url, port), port=port, environment={"HOOKLINE_ENCRYPTION_KEYS": old}) as service:
        for text in ("one", "two"):
            runs.append(await start(service, text))
            links.append((await service_of_others.asked.get())["callbackUrl"])
    async with Service(tmp_path, config(url, port), port=port, environment={"HOOKLINE_ENCRYPTION_KEYS": new}):
        assert (await call_back(links[0], {"result": 1}))[0] == 403
    async with Service(tmp_path, config(url, port), port=port, environment={"HOOKLINE_ENCRYPTION_KEYS": f"{new},{old}"}) as service:
        for run_id, link in zip(runs, links, strict=True):
            assert (await call_back(link, {"result": link[-5:]}))[0] == 200
            assert (await ended(service, run_id))["steps"]["only"]["result"] == link[-5:]


@contextlib.asynccontextmanager
async def example() -> AsyncIterator[tuple[str, asyncio.StreamReader]]:
    """`examples/analysis-service/analyse.py`: its URL, and what it says."""
    app = ROOT / "examples" / "analysis-service" / "analyse.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(app), "--port", "0", stdout=asyncio.subprocess.PIPE, env=os.environ | {"PUSH_SECRET": SECRET}
    )
    assert process.stdout
    try:
        yield json.loads(await asyncio.wait_for(process.stdout.readline(), 20))["listening"], process.stdout
    finally:
        process.terminate()
        await process.wait()


async def test_the_example_service_does_pushed_jobs(tmp_path: Path, port: int) -> None:
    async with example() as (url, said), Service(tmp_path, config(url, port), port=port) as service:
        run = await ended(service, await start(service))
        assert (run["status"], run["steps"]["only"]["result"]) == ("completed", {"risk": "unknown"})
        assert json.loads(await asyncio.wait_for(said.readline(), 20)) == {"jobId": run["steps"]["only"]["jobId"], "callback": 200}


async def test_the_example_service_calls_back_until_it_is_heard_and_does_nothing_for_strangers() -> None:
    job = {"jobId": "1", "idempotencyKey": "k", "data": {"score": 40}, "callbackDeadline": "2999-01-01T00:00:00.000Z"}
    async with example() as (url, said), receiving(Answer(status=409)) as hookline, aiohttp.ClientSession() as session:
        hookline.answer(Answer(status=503))
        body = json.dumps({"type": "job.requested", "data": {**job, "callbackUrl": hookline.url}})
        now = datetime.now(UTC)
        signed = {
            "webhook-id": "job_1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(SECRET).sign("job_1", now, body),
        }
        for headers, status in (({}, 401), ({**signed, "webhook-id": "job_2"}, 401), (signed, 202)):
            async with session.post(url, data=body, headers=headers) as response:
                assert response.status == status
        assert json.loads(await asyncio.wait_for(said.readline(), 20)) == {"jobId": "1", "callback": 409}
    assert [received.event for received in hookline.received] == [{"result": {"risk": "high"}}] * 2
