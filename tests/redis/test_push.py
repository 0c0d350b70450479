"""Pushed jobs in a real worker, over sockets: whatever the other service does, the slot comes back and an accepted callback counts."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis
from structlog.testing import capture_logs

from pipeline.config import Config
from pipeline.jobs.callbacks import Callbacks, Links, Verdict
from pipeline.jobs.calls import now_ms
from pipeline.jobs.queues import Queues
from pipeline.jobs.registry import Processor
from pipeline.jobs.runner import Runner
from pipeline.jobs.worker import Worker
from pipeline.processors.push import PushProcessor
from pipeline.store import connection
from pipeline.store.event import Event
from pipeline.store.log import Log
from tests.support.events import count, events_until
from tests.support.receiver import Answer, Receiver, Script, raw_server, receiving
from tests.support.valkey import Valkey
from webhooks.guard import Guard
from webhooks.sender import Sender

QUEUE = "pushed"
LOG = "hookline:log"
LOOPBACK = ("127.0.0.0/8",)


class House:
    """A queue whose jobs are pushed to one URL, and its worker."""

    def __init__(self, valkey: Valkey, **settings: Any) -> None:
        self.config = Config(
            queues={QUEUE: {"processors": {"do": "http://x"}, "concurrency": 1, "backoff": {"type": "fixed", "delay": "20ms"}, **settings}}
        )
        self.redis = connection.connect(valkey.socket_url)
        self.blocking = connection.connect(valkey.socket_url)
        self.queues = Queues(self.redis, self.config)
        self.keys = self.queues.keys(QUEUE)
        self.log = Log(self.redis, LOG)
        self.callbacks = Callbacks(self.redis, prefix="hookline", bull_prefix="bull")
        self.links = Links("http://hookline.example", [b"k" * 32])

    @contextlib.asynccontextmanager
    async def working(
        self, url: str, *, allow: tuple[str, ...] = LOOPBACK, timeout: int = 5_000, callback_timeout: int = 60_000
    ) -> AsyncIterator[Worker]:
        async with Sender(Guard(allow)) as sender:
            push = PushProcessor(url, sender, self.callbacks, self.links, key=b"s" * 24, timeout=timeout, callback_timeout=callback_timeout)

            async def nobody(*_: Any) -> None:
                raise AssertionError

            processor = Processor(path="http://x", name="PushProcessor", kind="push", input=None, timeout=timeout, memory=0, call=nobody)
            runner = Runner({"do": processor}, {"http://x": push}, concurrency=1)
            worker = Worker(self.redis, self.keys, self.config.queues[QUEUE], runner, log_key=LOG, name="w")
            task = asyncio.create_task(worker.run())
            try:
                yield worker
            finally:
                await worker.stop(5)
                await task

    async def add(self, data: Any = None) -> str:
        return (await self.queues.add(QUEUE, "do", data)).job_id

    async def answer(self, asked: dict[str, Any], body: Any) -> Verdict:
        return await self.callbacks.answer(id_of(asked), body, now_ms())

    async def held(self) -> None:
        """Until BullMQ's own stream tells that a job was delayed."""
        after = "0"
        async with asyncio.timeout(10):
            while True:
                for _, entries in await self.blocking.xread({self.keys.key("events"): after}, block=1000):
                    after = entries[-1][0]
                    if any(fields["event"] == "delayed" for _, fields in entries):
                        return

    async def ends(self, number: int = 1) -> list[Event]:
        found = await events_until(
            self.log, lambda events: len([event for event in events if event.type in ("job.completed", "job.failed")]) >= number
        )
        return [event for event in found if event.type in ("job.completed", "job.failed")]


def id_of(asked: dict[str, Any]) -> str:
    return str(asked["callbackUrl"]).partition("?")[0].rpartition("/")[2]


async def next_asked(receiver: Receiver) -> dict[str, Any]:
    return dict((await receiver.next()).event["data"])


@pytest.fixture
async def house(valkey: Valkey, redis: Redis) -> AsyncIterator[House]:
    made = House(valkey, attempts=1)
    yield made
    await made.blocking.aclose()
    await made.redis.aclose()


async def test_a_hundred_that_wait_hold_none_of_one_slot(house: House) -> None:
    async with receiving(Answer(status=202)) as receiver, house.working(receiver.url):
        for n in range(100):
            await house.add({"n": n})
        asked = [await next_asked(receiver) for _ in range(100)]
        assert receiver.most_at_once == 1
        # The slot is free for one that is answered at once, while all hundred wait.
        receiver.default = Answer(body=b'"at once"')
        await house.add({"n": "last"})
        (end,) = await house.ends()
        assert (end.type, end.data["result"]) == ("job.completed", "at once")
        counts = await house.queues.counts(QUEUE)
        assert (counts["delayed"], counts["active"], counts["waiting"]) == (100, 0, 0)
        for one in reversed(asked):
            assert await house.answer(one, {"result": one["data"]["n"]}) == "accepted"
        ends = await house.ends(101)
        assert sorted(end.data["result"] for end in ends[1:]) == list(range(100))
        assert len(receiver.received) == 101


async def test_a_callback_before_the_202_is_the_end_and_the_job_is_never_held(house: House) -> None:
    async def eager(request: web.Request) -> web.Response:
        assert await house.answer((await request.json())["data"], {"result": "quick"}) == "accepted"
        return web.Response(status=202)

    async with receiving(eager) as receiver, house.working(receiver.url):
        await house.add()
        (end,) = await house.ends()
        assert (end.type, end.data["result"], len(receiver.received)) == ("job.completed", "quick", 1)


@pytest.mark.parametrize("status", [200, 422, 500, None])
async def test_an_accepted_callback_counts_whatever_the_request_comes_to(house: House, status: int | None) -> None:
    async def then(request: web.Request) -> web.StreamResponse:
        assert await house.answer((await request.json())["data"], {"result": "accepted"}) == "accepted"
        if status is None:
            assert request.transport
            request.transport.abort()
        return web.json_response("another", status=status or 200)

    async with receiving(then) as receiver, house.working(receiver.url):
        await house.add()
        (end,) = await house.ends()
        assert (end.type, end.data["result"], len(receiver.received)) == ("job.completed", "accepted", 1)


@pytest.mark.parametrize("status", [200, 422])
async def test_a_callback_after_an_answer_at_once_is_told_that_it_is_not_needed(house: House, status: int) -> None:
    async with receiving(Answer(status=status, body=b'"at once"')) as receiver, house.working(receiver.url):
        await house.add()
        await house.ends()
        assert await house.answer(await next_asked(receiver), {"result": "late"}) == "over"


async def test_a_callback_for_an_attempt_that_timed_out_is_told_so_and_the_next_one_counts(valkey: Valkey, redis: Redis) -> None:
    house = House(valkey, attempts=2)
    async with receiving() as receiver, house.working(receiver.url, timeout=1000):
        receiver.answer(receiver.hang, Answer(status=202))
        await house.add()
        first, second = await next_asked(receiver), await next_asked(receiver)
        assert (first["attempt"], second["attempt"]) == (1, 2)
        assert first["callbackUrl"] != second["callbackUrl"]
        assert await house.answer(first, {"result": "of the first"}) == "over"
        assert await house.answer(second, {"result": "of the second"}) == "accepted"
        assert await house.answer(first, {"result": "of the first"}) == "over"
        (end,) = await house.ends()
        assert (end.data["result"], end.data["attempts"]) == ("of the second", 2)
    await house.blocking.aclose()
    await house.redis.aclose()


async def test_answers_around_the_deadline_are_accepted_and_count_or_are_refused_and_do_not(house: House) -> None:
    async with receiving(Answer(status=202)) as receiver, house.working(receiver.url, callback_timeout=1000):
        for _ in range(20):
            await house.add()

        async def until_told(one: dict[str, Any], before: int) -> tuple[str, Verdict]:
            record = house.callbacks.key(id_of(one))
            deadline = int(await house.redis.hget(record, "deadline"))
            await asyncio.sleep((deadline - before - now_ms()) / 1000)  # the instant is what is tested
            # The clock of this machine is behind: by it every one is in time.
            return one["jobId"], await house.callbacks.answer(id_of(one), {"result": "in time"}, deadline)

        # Each as soon as it is asked: while the last one is, the first one's time may be over.
        telling = [asyncio.create_task(until_told(await next_asked(receiver), 10 - n)) for n in range(20)]
        told = dict(await asyncio.gather(*telling))
        ends = {end.data["jobId"]: end for end in await house.ends(20)}
        assert set(told.values()) <= {"accepted", "over"}
        for job_id, verdict in told.items():
            assert (ends[job_id].type == "job.completed") == (verdict == "accepted"), (job_id, verdict)


async def test_a_202_whose_body_drips_has_been_said(house: House) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with raw_server(drip) as url, house.working(url, timeout=1000):
        job_id = await house.add()
        await house.held()
        (record,) = [key async for key in house.redis.scan_iter("hookline:callback:*")]
        assert await house.redis.zscore(house.keys.key("delayed"), job_id) is not None
        assert await house.callbacks.answer(record.rpartition(":")[2], {"result": 1}, now_ms()) == "accepted"
        (end,) = await house.ends()
        assert end.data["result"] == 1


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Answer(status=302, headers={"location": "http://169.254.169.254/latest/meta-data/"}), "answered 302: redirects are not followed"),
        (Answer(status=307, headers={"location": "/elsewhere"}), "answered 307: redirects are not followed"),
        (Answer(body=b"<html>"), "answered 200 with a body that is not JSON: '<html>'"),
        (Answer(body=b"[" * 60_000), "answered 200 with a body that is not JSON"),
        (Answer(body=b"NaN"), "answered 200 with a body that is not JSON"),
        (Answer(body=b"1e999"), "answered 200 with a body that is not JSON"),
        (Answer(body=b'"' + b"x" * 100_000 + b'"'), "the answer is larger than 65,536 bytes"),
        (Answer(body=b"[" * 200 + b"]" * 200), "nested more than 100 deep"),
    ],
)  # fmt: skip
async def test_answers_that_are_none_fail_for_good(house: House, script: Script, reason: str) -> None:
    async with receiving(script) as receiver, house.working(receiver.url):
        await house.add()
        (end,) = await house.ends()
        assert end.type == "job.failed"
        assert reason in end.data["error"]
        assert len(receiver.received) == 1


async def test_an_address_that_may_not_be_dialled_gets_no_request(house: House) -> None:
    async with receiving() as receiver, house.working(receiver.url, allow=()):
        await house.add()
        (end,) = await house.ends()
        assert end.type == "job.failed"
        assert "127.0.0.1 is refused (loopback)" in end.data["error"]
        assert receiver.received == []


async def test_the_link_is_in_no_reason_no_event_and_no_log(house: House) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response({"input": (await request.json())["data"]["callbackUrl"]}, status=422)

    with capture_logs() as lines:
        async with receiving(echo) as receiver, house.working(receiver.url):
            job_id = await house.add()
            (end,) = await house.ends()
            asked = await next_asked(receiver)
    signature = asked["callbackUrl"].partition("signature=")[2]
    assert "signature=…" in end.data["error"]
    job = await house.redis.hgetall(house.keys.key(job_id))
    for said in (lines, end.data, job):
        assert signature[:20] not in str(said)
    assert [line for line in lines if line["event"] == "job failed"]


async def test_a_worker_that_is_stopped_hands_the_job_back_and_the_next_one_asks_under_the_same_link(house: House) -> None:
    async with receiving() as receiver:
        receiver.answer(receiver.hang, Answer(body=json.dumps("done").encode()))
        async with house.working(receiver.url) as worker:
            await house.add()
            first = await next_asked(receiver)
            await worker.stop(0)
        async with house.working(receiver.url):
            second = await next_asked(receiver)
            await events_until(house.log, count("job.completed", 1))
        assert (first["callbackUrl"], first["attempt"]) == (second["callbackUrl"], second["attempt"])
        assert receiver.received[0].id == receiver.received[1].id
