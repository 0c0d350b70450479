"""Workflows on the whole service: retries, timeouts, cancelling, limits of processors, and what its operator is told."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pipeline.client import Client, RequestFailed
from tests.support.chains import no_libraries, queue
from tests.support.events import check_told
from tests.support.runs import ends, outcome
from tests.support.service import Service, token

NAMES = ("work", "fail", "fail_once", "never_end", "eat_memory", "block", "wait_for_ever")


def one_step(processor: str, **settings: Any) -> dict[str, Any]:
    return {"version": 1, "steps": {"only": {"queue": processor.replace("_", "-"), "with": {"ms": 1}, **settings}}}


CONFIG: dict[str, Any] = {
    "queues": {**no_libraries(), **{name.replace("_", "-"): queue(name, attempts=2) for name in NAMES}},
    "workflows": {
        **{name: one_step(name) for name in NAMES},
        "too_slow": one_step("wait_for_ever", timeout="500ms"),
        "whole_too_slow": one_step("wait_for_ever") | {"timeout": "500ms"},
        "diamond": {
            "version": 1,
            "steps": {
                "top": {"queue": "work", "with": {"ms": 1}},
                "left": {"needs": ["top"], "queue": "work", "with": {"ms": "${{ steps.top.result.got.ms + 1 }}"}},
                "right": {"needs": ["top"], "queue": "work", "if": "${{ input.right }}", "with": {"ms": 1}},
                "bottom": {"needs": ["left", "right"], "queue": "work", "with": {"text": "left ${{ steps.left.result.got.ms }}"}},
            },
            "output": {"text": "${{ steps.bottom.result.got.text }}"},
        },
        "owned": {
            "version": 1,
            "steps": {
                "one": {"queue": "work", "with": {"ms": 1}},
                "two": {"needs": ["one"], "queue": "work", "with": {"ms": 1, "userId": "${{ input.userId }}"}},
            },
        },
        "rescue": {
            "version": 1,
            "steps": {
                "risky": {"queue": "fail", "with": {}},
                "after": {"needs": ["risky"], "queue": "work", "with": {}},
                "alarm": {"needs": ["risky"], "run_on": ["failed"], "queue": "work", "with": {"reason": "${{ steps.risky.error }}"}},
            },
        },
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("service"))


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(folder: Path) -> AsyncIterator[Service]:
    async with Service(folder, CONFIG) as started:
        yield started


async def test_a_diamond_joins_and_a_skipped_need_counts_as_satisfied(service: Service) -> None:
    both = await outcome(service, "diamond", {"right": True})
    assert (both["status"], both["output"]) == ("completed", {"text": "left 2"})
    assert {step["status"] for step in both["steps"].values()} == {"completed"}
    one = await outcome(service, "diamond", {"right": False})
    assert (one["status"], one["steps"]["right"]["status"], one["steps"]["bottom"]["status"]) == ("completed", "skipped", "completed")


async def test_every_event_of_a_run_belongs_to_its_user_and_document_whatever_its_steps_are_given(service: Service) -> None:
    alice, bob = token("alice", "user"), token("bob", "user")
    async with Client(service.url, alice) as client, Client(service.url, bob) as other:
        run_id = (await client.start_run("owned", {"documentId": "doc-1", "userId": "bob"}))["runId"]
        async for ended in ends(client):
            if ended == run_id:
                break
        told = (await client.events(types=("job.*", "job.progress", "workflow.*"), limit=500))["items"]
        assert Counter(event["type"] for event in told) == {
            "workflow.started": 1, "job.progress": 2, "job.completed": 2, "workflow.step.completed": 2, "workflow.completed": 1,
        }  # fmt: skip
        assert {(event["data"]["runId"], event["data"]["userId"], event["data"]["documentId"]) for event in told} == {(run_id, "alice", "doc-1")}
        assert (await other.events(limit=500))["items"] == []
        for step in (await client.run(run_id))["steps"].values():
            assert (await client.job("work", step["jobId"]))["state"] == "completed"
            with pytest.raises(RequestFailed) as refused:
                await other.job("work", step["jobId"])
            assert refused.value.status == 404


async def test_a_failed_attempt_is_tried_again(service: Service) -> None:
    run = await outcome(service, "fail_once")
    assert (run["status"], run["steps"]["only"]["attempts"], run["steps"]["only"]["result"]) == ("completed", 2, {"attempt": 2})


async def test_a_failure_blocks_what_needs_it_and_runs_what_waits_for_it(service: Service) -> None:
    run = await outcome(service, "rescue")
    assert {name: step["status"] for name, step in run["steps"].items()} == {"risky": "failed", "after": "blocked", "alarm": "completed"}
    assert (run["status"], run["error"]) == ("failed", "step risky failed: attempt 2 of 2 failed")
    assert run["steps"]["alarm"]["result"] == {"got": {"reason": "attempt 2 of 2 failed"}}


@pytest.mark.parametrize(
    ("workflow", "reason"),
    [
        ("never_end", "never_end exceeded its time limit of 1s and was killed"),
        ("eat_memory", "eat_memory exceeded its memory limit of 300 MiB"),
    ],
)
async def test_an_isolated_processor_beyond_its_limits_fails_its_job_with_the_reason(service: Service, workflow: str, reason: str) -> None:
    run = await outcome(service, workflow)
    assert run["status"] == "failed"
    assert reason in run["steps"]["only"]["error"]
    assert run["steps"]["only"]["attempts"] == 1


async def test_an_async_processor_that_blocks_the_loop_is_reported_by_name(service: Service) -> None:
    run = await outcome(service, "block")
    reports = [json.loads(line) for line in service.log.splitlines() if '"event loop blocked"' in line]
    assert [(report["processor"], report["jobId"]) for report in reports] == [("block", run["steps"]["only"]["jobId"])]


@pytest.mark.parametrize(("workflow", "status"), [("too_slow", "failed"), ("whole_too_slow", "cancelled")])
async def test_a_timeout_ends_the_run_and_stops_the_job(service: Service, folder: Path, workflow: str, status: str) -> None:
    run = await outcome(service, workflow)
    assert (run["status"], run["steps"]["only"]["status"]) == ("failed", status)
    assert "timed out" in run["error"]
    await stopped(folder, run["steps"]["only"]["jobId"])


async def test_cancelling_stops_the_job_and_retrying_starts_it_anew(service: Service, folder: Path) -> None:
    async with Client(service.url, token()) as client:
        run_id = (await client.start_run("wait_for_ever", {}))["runId"]
        await in_ledger(folder, f"begin wait-for-ever {run_id}_only_1")
        assert (await client.cancel(run_id))["status"] == "cancelled"
        await stopped(folder, f"{run_id}_only_1")
        retried = await client.retry(run_id)
        assert (retried["status"], retried["steps"]["only"]["jobId"]) == ("running", f"{run_id}_only_2")
        await client.cancel(run_id)
        stats = await client.stats("wait-for-ever")
        assert stats["waiting"] == 0


async def stopped(folder: Path, job_id: str) -> None:
    """The job's processor was told to stop: at the next renewal of its lock, within some seconds."""
    await in_ledger(folder, f"stopped wait-for-ever {job_id}")


async def in_ledger(folder: Path, line: str) -> None:
    ledger = folder / "ledger"
    async with asyncio.timeout(20):
        while not ledger.exists() or line not in ledger.read_text():  # noqa: ASYNC110 -- a file has no signal
            await asyncio.sleep(0.02)


async def test_what_is_told_is_as_the_catalogue_says(service: Service) -> None:
    await outcome(service, "diamond", {"right": False})
    async with Client(service.url, token()) as client:
        failed = (await outcome(service, "rescue"))["runId"]
        await client.retry(failed)
        cancelled = (await client.start_run("wait_for_ever", {}))["runId"]
        await client.cancel(cancelled)
        awaited = Counter({failed: 2, cancelled: 1})
        async for ended in ends(client):
            awaited -= Counter([ended])
            if not awaited:
                break
        told, after = Counter[str](), None
        while (page := await client.events(after=after, types=("*", "job.progress"), limit=500))["items"]:
            after = page["nextCursor"]
            for event in page["items"]:
                check_told(event["type"], event["data"])
                told[event["type"]] += 1
    steps = {f"workflow.step.{status}" for status in ("completed", "failed", "skipped", "blocked")}
    runs = {f"workflow.{status}" for status in ("started", "retried", "completed", "failed", "cancelled")}
    assert {"job.completed", "job.failed", "job.progress", *steps, *runs} <= told.keys()
