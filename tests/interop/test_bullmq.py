"""Node's BullMQ 5 and 6 on our queues: its jobs done by us, ours by it, both on one queue, paused by either, and shown by Bull Board."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pipeline.config import Config
from pipeline.jobs.queues import Queues
from pipeline.store import connection
from pipeline.store.event import Event
from pipeline.store.log import Log
from tests.support.chains import no_libraries, queue
from tests.support.events import events_until
from tests.support.node import MAJORS, Hand, installed, node, told
from tests.support.service import Service
from tests.support.valkey import Valkey

pytestmark = pytest.mark.asyncio(loop_scope="module")
KINDS = {
    "work": queue(),
    "single": queue(concurrency=1),
    "failing": queue("fail", backoff={"type": "fixed", "delay": "50ms"}),
    "nobody": {"backoff": {"type": "fixed", "delay": "50ms"}},
}
QUEUES = {
    **no_libraries(),
    **{f"{kind}-{test}": settings for kind, settings in KINDS.items() for test in (*MAJORS, "all")},
    **{f"paused-{major}-{kind}": queue() for major in MAJORS for kind in ("full", "empty")},
    **{f"repeated-{major}-{kind}": queue() for major in MAJORS for kind in ("every", "cron")},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """One service for all tests, each of which has queues of its own: starting one takes seconds."""

    valkey: Valkey
    service: Service
    queues: Queues
    log: Log

    def hand(self, major: str) -> Hand:
        return Hand(major, self.valkey.port)

    def done(self, *queues: str) -> list[tuple[str, str]]:
        """(queue, job id) of each attempt that a worker of ours began, in order."""
        path = self.service.folder / "ledger"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(line[1], line[2]) for line in lines if line[0] == "begin" and line[1] in queues]

    async def ends(self, number: int, *queues: str) -> dict[tuple[str, str], Event]:
        """The ends of so many jobs of these queues by queue and job, each told once."""

        def of_these(events: list[Event]) -> list[Event]:
            return [event for event in events if event.type in ("job.completed", "job.failed") and event.data["queue"] in queues]

        ends = of_these(await events_until(self.log, lambda events: len(of_these(events)) >= number))
        found = {(event.data["queue"], event.data["jobId"]): event for event in ends}
        assert len(found) == len(ends) == number
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    installed()
    client = connection.connect(valkey.url)
    await client.flushall()
    folder = tmp_path_factory.mktemp("service")
    async with Service(folder, {"queues": QUEUES}, environment={"REDIS_URL": valkey.url}) as service:
        queues = Queues(client, Config.model_validate({"queues": QUEUES}))
        yield House(valkey=valkey, service=service, queues=queues, log=Log(client, "hookline:log"))
    await client.aclose()


async def test_without_node_it_is_skipped_but_fails_in_ci(tmp_path: Path) -> None:
    nowhere = {"PATH": str(tmp_path)}
    for environ in (nowhere, nowhere | {"CI": "false"}):
        with pytest.raises(pytest.skip.Exception, match="not installed"):
            node(environ)
    for environ in (nowhere | {"CI": "true"}, nowhere | {"GITHUB_ACTIONS": "true"}):
        with pytest.raises(pytest.fail.Exception, match="must run"):
            node(environ)


@pytest.mark.parametrize("major", MAJORS)
async def test_node_adds_and_we_process(house: House, major: str) -> None:
    work, failing = f"work-{major}", f"failing-{major}"
    async with house.hand(major) as hand:
        await hand("watch", queue=work)
        plain = await hand("add", queue=work, job="do", data={"text": "Größe 5 €", "n": 1})
        named = await hand("add", queue=work, job="do", data={}, opts={"jobId": "an-id_of-theirs", "removeOnComplete": True})
        many = await hand("bulk", queue=work, jobs=[{"name": "do", "data": {"n": n}} for n in range(20)])
        began = time.time()
        delayed = await hand("add", queue=work, job="do", data={}, opts={"delay": 400})
        unknown = await hand("add", queue=work, job="nobody-knows", data={}, opts={"attempts": 5})
        failed = await hand("add", queue=failing, job="do", data={}, opts={"attempts": 2, "backoff": {"type": "exponential", "delay": 20}})
        ends = await house.ends(25, work, failing)
        good = [plain, named, *many, delayed]
        assert set(ends) == {(failing, failed)} | {(work, job_id) for job_id in (*good, unknown)}
        assert ends[work, plain].data["result"] == {"got": {"text": "Größe 5 €", "n": 1}}
        assert (ends[failing, failed].data["attempts"], ends[failing, failed].data["error"]) == (2, "attempt 2 of 2 failed")
        assert "no processor for job 'nobody-knows'" in ends[work, unknown].data["error"]
        assert 0.35 < ends[work, delayed].timestamp / 1000 - began < 2.0
        assert Counter(house.done(work, failing)) == {(failing, failed): 2} | {(work, job_id): 1 for job_id in good}
        # And what Node sees of it.
        await hand.until(told("event completed", queue=work), 23)
        shown = await hand("job", queue=work, id=plain)
        assert (shown["state"], shown["returnvalue"], shown["attemptsMade"], shown["progress"]) == (
            "completed", {"got": {"text": "Größe 5 €", "n": 1}}, 1, 50,
        )  # fmt: skip
        shown = await hand("job", queue=failing, id=failed)
        assert (shown["state"], shown["failedReason"], len(shown["stacktrace"])) == ("failed", "attempt 2 of 2 failed", 2)
        assert await hand("job", queue=work, id=named) is None


@pytest.mark.parametrize("major", MAJORS)
async def test_nodes_pauses_priorities_and_deduplication_are_honoured(house: House, major: str) -> None:
    single, probe = f"single-{major}", "single-all"
    async with house.hand(major) as hand:
        await hand("pause", queue=single)
        by_priority = {n: await hand("add", queue=single, job="do", data={}, opts={"priority": n}) for n in (9, 3, 6)}
        plain = await hand("add", queue=single, job="do", data={})
        simple = {"deduplication": {"id": "only-once"}}
        once = await hand("add", queue=single, job="do", data={"n": 1}, opts=simple)
        assert await hand("add", queue=single, job="do", data={"n": 2}, opts=simple) == once
        debounced = {"delay": 50, "deduplication": {"id": "the-last", "ttl": 5000, "extend": True, "replace": True}}
        await hand("add", queue=single, job="do", data={"n": 1}, opts=debounced)
        last = await hand("add", queue=single, job="do", data={"n": 2}, opts=debounced)
        # Another queue's job shows that the workers go on, and had every chance to take these.
        before = len(house.done(probe))
        await hand("add", queue=probe, job="do", data={})
        await house.ends(before + 1, probe)
        assert house.done(single) == []
        counts = await house.queues.counts(single)
        assert (counts["waiting"], counts["active"], counts["prioritized"]) == (0, 0, 3)
        assert counts["paused"] + counts["delayed"] == 3
        await hand("resume", queue=single)
        ends = await house.ends(6, single)
        order = [job_id for _, job_id in house.done(single)]
        assert sorted(order) == sorted([plain, once, last, *by_priority.values()])
        assert ends[single, last].data["result"] == {"got": {"n": 2}}
        assert [job_id for job_id in order if job_id in by_priority.values()] == [by_priority[n] for n in (3, 6, 9)]
        assert order.index(plain) < order.index(by_priority[3])
        # Its end freed the id.
        assert await hand("add", queue=single, job="do", data={"n": 3}, opts=simple) != once
        await house.ends(7, single)


@pytest.mark.parametrize("major", MAJORS)
async def test_we_add_and_node_processes(house: House, major: str) -> None:
    nobody = f"nobody-{major}"
    async with house.hand(major) as hand:
        await hand("work", queue=nobody, options={"concurrency": 5})
        asked = ({"result": {"ok": "ä"}, "progress": 40}, None, {"fail": "no luck"}, {"fatal": "never"})
        good, nothing, bad, fatal = [(await house.queues.add(nobody, "do", data)).job_id for data in asked]
        await hand.until(told("completed"), 2)
        await hand.until(told("failed"), 4)
        assert [(said["attempt"], said["reason"]) for said in hand.signals if said["signal"] == "failed" and said["id"] == bad] == [
            (n, "no luck") for n in (1, 2, 3)
        ]
        shown = {}
        for job_id in (good, nothing, bad, fatal):
            found = await house.queues.job(nobody, job_id)
            assert found
            shown[job_id] = (found.state, found.result, found.progress, found.failed_reason, found.attempts_made)
        assert shown == {
            good: ("completed", {"ok": "ä"}, 40, None, 1), nothing: ("completed", None, 0, None, 1),
            bad: ("failed", None, 0, "no luck", 3), fatal: ("failed", None, 0, "never", 1),
        }  # fmt: skip


async def test_workers_of_both_on_one_queue_execute_each_job_once(house: House) -> None:
    work = "work-all"
    async with house.hand("5") as five, house.hand("6") as six:
        for hand in (five, six):
            await hand("work", queue=work, options={"concurrency": 8})
        jobs = [{"name": "do", "data": {"ms": n % 5}, "opts": {"attempts": 3}} for n in range(300)]
        added: list[str] = []
        for ids in await asyncio.gather(five("bulk", queue=work, jobs=jobs), six("bulk", queue=work, jobs=jobs)):
            added += ids
        added += [found.job_id for found in await asyncio.gather(*(house.queues.add(work, "do", {"ms": 2}) for _ in range(100)))]
        begun = Counter[str]()
        async with asyncio.timeout(40):
            while begun.total() < len(added):
                began_there = five.of("began") + six.of("began")
                begun = Counter([job_id for _, job_id in house.done(work)] + began_there)
                await asyncio.wait([asyncio.create_task(side.changed()) for side in (five, six)], timeout=0.1)
        assert begun == dict.fromkeys(added, 1)
        # Each of the three had a share, which is what the test is about.
        ours = [job_id for _, job_id in house.done(work)]
        assert ours
        assert five.of("began")
        assert six.of("began")
        ends = await house.ends(len(ours), work)
        await asyncio.gather(*(side.until(told("completed"), len(side.of("began"))) for side in (five, six)))
        assert {job_id for _, job_id in ends} == set(ours)
        assert Counter([*ours, *five.of("completed"), *six.of("completed")]) == dict.fromkeys(added, 1)
        counts = await house.queues.counts(work)
        assert (counts["waiting"], counts["active"], counts["delayed"], counts["failed"]) == (0, 0, 0, 0)


async def test_bull_board_shows_our_jobs_and_retries_them(house: House) -> None:
    work, failing = "single-all", "failing-all"
    async with house.hand("6") as hand:
        before = len(house.done(work))
        await house.queues.add(work, "do", {"documentId": "d-1"})
        failed = (await house.queues.add(failing, "do", {"documentId": "d-2"})).job_id
        await house.ends(before + 1, work)
        await house.ends(1, failing)

        async def shown(name: str, status: str) -> dict[str, Any]:
            query = {"activeQueue": name, "status": status, "page": "1", "jobsPerPage": "10"}
            answer = await hand("board", queue=name, method="get", route="/api/queues", query=query)
            found: dict[str, Any] = answer["body"]["queues"][0]
            return found

        page = await shown(work, "completed")
        assert (page["counts"]["completed"], page["counts"]["failed"]) == (before + 1, 0)
        job = page["jobs"][0]
        assert (job["name"], job["data"], job["returnValue"], job["isFailed"]) == ("do", {"documentId": "d-1"}, {"got": {"documentId": "d-1"}}, False)
        page = await shown(failing, "failed")
        (job,) = page["jobs"]
        assert (job["id"], job["attempts"], job["failedReason"], len(job["stacktrace"])) == (failed, 3, "attempt 3 of 3 failed", 3)
        params = {"queueName": failing, "jobId": failed}
        answer = await hand("board", queue=failing, method="get", route="/api/queues/:queueName/:jobId", params=params)
        assert answer["body"]["status"] == "failed"
        answer = await hand("board", queue=failing, method="put", route="/api/queues/:queueName/:jobId/retry", params=params)
        assert answer.get("status", 200) < 300, answer
        events = await events_until(house.log, lambda events: sum(event.data.get("queue") == failing for event in events) >= 2)
        ends = [event for event in events if event.data.get("queue") == failing]
        # Another attempt is another event.
        assert ([event.data["attempts"] for event in ends], len({event.id for event in ends})) == ([3, 4], 2)


@pytest.mark.parametrize("resumes", MAJORS)
@pytest.mark.parametrize("backlog", [True, False])
async def test_what_we_add_while_bullmq_5_has_paused_a_queue_is_lost_to_no_resume(house: House, resumes: str, backlog: bool) -> None:
    """Its pause renames `wait`, its resume renames it back over whatever others have put there (reference: A1)."""
    name = f"paused-{resumes}-{'full' if backlog else 'empty'}"
    async with house.hand("5") as five, house.hand(resumes) as other:
        await five("pause", queue=name)
        added = [await five("add", queue=name, job="do", data={})] if backlog else []
        added += [(await house.queues.add(name, "do", {})).job_id for _ in range(2)]
        added.append(await five("add", queue=name, job="do", data={}))
        counts = await house.queues.counts(name)
        assert (counts["waiting"], counts["paused"]) == (0, len(added))
        await other("resume", queue=name)
        ends = await house.ends(len(added), name)
        assert {job_id for _, job_id in ends} == set(added)


@pytest.mark.parametrize("major", MAJORS)
async def test_nodes_job_schedulers_go_on_in_our_worker(house: House, major: str) -> None:
    """Whoever takes a scheduler's job adds the next: a worker that did not would end it at its first (bullmq#4483)."""
    by_interval, by_pattern = f"repeated-{major}-every", f"repeated-{major}-cron"
    async with house.hand(major) as hand:
        template = {"name": "do", "data": {"n": 7}, "opts": {"attempts": 2, "priority": 3}}
        await hand("schedule", queue=by_interval, id="often", repeat={"every": 100, "limit": 4}, template=template)
        await hand("schedule", queue=by_pattern, id="each-second", repeat={"pattern": "* * * * * *", "tz": "Europe/Berlin"}, template=template)
        ends = await house.ends(4, by_interval)
        assert [event.data["result"] for event in ends.values()] == [{"got": {"n": 7}}] * 4
        times = sorted(int(job_id.rpartition(":")[2]) for _, job_id in ends)
        assert all(gap > 0 and gap % 100 == 0 for gap in (later - time for time, later in pairwise(times)))
        await house.ends(3, by_pattern)
        (known,) = await hand("schedulers", queue=by_pattern)
        assert (known["key"], known["iterationCount"] >= 4) == ("each-second", True)
        assert await hand("unschedule", queue=by_pattern, id="each-second")
        counts = await house.queues.counts(by_interval)
        # The limit was reached: there is no fifth.
        assert (counts["completed"], counts["delayed"], counts["prioritized"], counts["waiting"]) == (4, 0, 0, 0)
