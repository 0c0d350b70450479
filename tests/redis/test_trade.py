"""An exchange leaves what BullMQ's scripts leave, one job after the other; each end and its event are both-or-neither."""

import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline.config.queues import Limiter, Queue
from pipeline.jobs import calls
from pipeline.jobs.attempt import Completed, read_job
from pipeline.jobs.calls import QueueKeys
from pipeline.jobs.closing import FINISH
from pipeline.jobs.ending import ending
from pipeline.jobs.fetched import Fetched
from pipeline.jobs.trade import TRADE, Desk, Ended, Traded, parse
from pipeline.store.scripts import Script, pack, pack_call, stock
from tests.support.contents import contents
from tests.support.jobs import take
from tests.support.valkey import Valkey

QUEUE = "work"
LOCK_MS = 600_000
NOW = 1_764_150_000_000


class Side:
    """A queue below its own prefix, with a log of its own."""

    def __init__(self, redis: Redis, prefix: str, settings: Queue) -> None:
        self.redis = redis
        self.keys = QueueKeys(prefix, QUEUE)
        self.log = f"{prefix}:log"
        self.settings = settings
        self.now = NOW
        self.active: list[Fetched] = []
        self.desk = Desk(self.keys, settings, log_key=self.log, lock_ms=LOCK_MS, worker="w")

    async def add(self, number: int, opts: dict[str, Any], *, id: str = "") -> None:
        keys, args = calls.add_standard(self.keys, name="do", data={"n": number}, opts=opts, job_id=id, now=self.now)
        if opts.get("priority"):
            names = ("marker", "meta", "id", "prioritized", "delayed", "completed", "active", "events", "pc")
            await Script(stock("addPrioritizedJob"))(self.redis, self.keys.keys(*names), args)
        elif opts.get("delay"):
            await Script(stock("addDelayedJob"))(self.redis, self.keys.keys("marker", "meta", "id", "delayed", "completed", "events"), args)
        else:
            await Script(stock("addStandardJob"))(self.redis, keys, args)

    def ends(self, taken: list[Fetched]) -> list[Ended]:
        outcome = Completed(result='{"ok":true}')
        return [self.desk.ended(f, read_job(QUEUE, f), "Doer", outcome, NOW, self.now) for f in taken]

    async def trade(self, done: int, want: int, token: str, *, again: bool = False) -> Traded:
        taken, self.active = self.active[:done], self.active[done:]
        traded = parse(await TRADE(self.redis, *self.desk.call(self.ends(taken), want=want, token=token, now=self.now, again=again)))
        self.active += traded.jobs
        return traded

    async def step_by_step(self, done: int, want: int, token: str) -> None:
        """The same by single calls: each job finished by finish.lua, each fetched by moveToActive."""
        taken, self.active = self.active[:done], self.active[done:]
        for end in self.ends(taken):
            made = ending(
                self.keys, self.settings, end.job, Completed(result=end.result), token=end.fetched.token,
                stacks=None, started=NOW, now=self.now, random=0.0,
            )  # fmt: skip
            assert made.event
            args = [made.kind, pack(pack_call(made.call)), pack(made.event.fields()), end.job.id, end.fetched.token, LOCK_MS]
            code, error = await FINISH(self.redis, [self.log, *self.keys.keys("active", f"{end.job.id}:lock")], args)
            assert (code, error) == (0, None)
        limiter = self.settings.limiter.options() if self.settings.limiter else None
        for number in range(1, want + 1):
            name = f"{token}:{number}"
            fetched = await take(self.redis, self.keys, name, lock_ms=LOCK_MS, now=self.now, limiter=limiter)
            if not fetched:
                break
            self.active.append(fetched)


SETTINGS = {
    "as shipped": (Queue(), {}),
    "keeps three": (Queue(keep={"completed": 3}), {}),
    "keeps none": (Queue(keep={"completed": 0}), {}),
    "keeps all": (Queue(keep={"completed": -1}), {}),
    "keeps by age": (Queue(), {"removeOnComplete": {"age": 1, "limit": 5}}),
    "keeps by age and count": (Queue(), {"removeOnComplete": {"age": 2, "count": 4}}),
    "removes on completion": (Queue(), {"removeOnComplete": True}),
    "limits itself": (Queue(limiter=Limiter(max=7, duration="10m")), {}),
    "limited for all": (Queue(), {"meta": {"max": 9, "duration": 600_000}}),
    "a concurrency for all": (Queue(), {"meta": {"concurrency": 4}}),
    "paused": (Queue(), {"meta": {"paused": 1}}),
    "events cut": (Queue(), {"meta": {"opts.maxLenEvents": 100_000}}),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", SETTINGS)
async def test_a_batch_leaves_the_keys_fields_and_events_of_single_calls(redis: Redis, case: str, seed: int) -> None:
    settings, more = SETTINGS[case]
    meta = more.get("meta", {})
    sides = [Side(redis, name, settings) for name in ("batch", "single")]
    print("seed", seed)
    chance = random.Random(f"{case}{seed}")
    opts: list[dict[str, Any]] = []
    for _ in range(60):
        one: dict[str, Any] = {"attempts": 3, **{key: value for key, value in more.items() if key != "meta"}}
        match chance.randrange(10):
            case 0:
                one["priority"] = chance.randrange(1, 4)
            case 1:
                one["delay"] = chance.choice([500, 3_000, 3_600_000])
            case 2:
                one["lifo"] = True
        opts.append(one)
    steps = [(chance.randrange(9), chance.randrange(9), chance.randrange(12)) for _ in range(25)]
    waiting, handed_out = iter(enumerate(opts)), 0
    for number, (adds, done, want) in enumerate(steps):
        added = [each for _, each in zip(range(adds), waiting, strict=False)]
        for side in sides:
            side.now = NOW + number * 400
            for which, one in added:
                await side.add(which, one)
            if meta and number == 5:
                await redis.hset(side.keys.key("meta"), mapping=meta)
        done = min(done, len(sides[0].active))
        await sides[0].trade(done, want, f"t{number}")
        await sides[1].step_by_step(done, want, f"t{number}")
        assert [fetched.job_id for fetched in sides[0].active] == [fetched.job_id for fetched in sides[1].active]
        assert [fetched.token for fetched in sides[0].active] == [fetched.token for fetched in sides[1].active]
        handed_out += done
        assert await contents(redis, "batch") == await contents(redis, "single")
    assert handed_out > 5


async def _gone(side: Side, fetched: Fetched) -> None:
    await side.redis.delete(side.keys.key(fetched.job_id))


async def _put_back(side: Side, fetched: Fetched) -> None:
    await side.redis.delete(side.keys.key(f"{fetched.job_id}:lock"))
    await side.redis.lrem(side.keys.key("active"), 0, fetched.job_id)


async def _not_active(side: Side, fetched: Fetched) -> None:
    await side.redis.lrem(side.keys.key("active"), 0, fetched.job_id)


async def _children_pending(side: Side, fetched: Fetched) -> None:
    await side.redis.sadd(side.keys.key(f"{fetched.job_id}:dependencies"), "bull:other:1")


async def _children_failed(side: Side, fetched: Fetched) -> None:
    await side.redis.zadd(side.keys.key(f"{fetched.job_id}:unsuccessful"), {"bull:other:1": 1})


async def _taken(side: Side, fetched: Fetched) -> None:
    await side.redis.set(side.keys.key(f"{fetched.job_id}:lock"), "another")


REFUSALS = [(_gone, -1), (_put_back, -2), (_not_active, -3), (_children_pending, -4), (_taken, -6), (_children_failed, -9)]


async def working(redis: Redis, jobs: int, **settings: Any) -> Side:
    side = Side(redis, "bull", Queue(**settings))
    for number in range(jobs):
        await side.add(number, {"attempts": 3})
    assert len((await side.trade(0, jobs, "t")).jobs) == jobs
    return side


@pytest.mark.parametrize("where", [0, 1, 2], ids=["first", "middle", "last"])
@pytest.mark.parametrize(("spoil", "code"), REFUSALS)
async def test_a_job_that_is_refused_takes_no_other_along(
    redis: Redis, spoil: Callable[[Side, Fetched], Awaitable[None]], code: int, where: int
) -> None:
    side = await working(redis, 3)
    spoilt = side.active[where]
    ids = [fetched.job_id for fetched in side.active]
    await spoil(side, spoilt)
    expected = [0, 0, 0]
    expected[where] = code
    assert (await side.trade(3, 0, "u")).answers == expected
    assert await redis.xlen(side.log) == 2
    assert set(await redis.zrange(side.keys.key("completed"), 0, -1)) == set(ids) - {spoilt.job_id}


async def test_a_lock_that_ran_out_while_nobody_took_the_job_keeps_no_outcome_from_being_recorded(redis: Redis) -> None:
    side = await working(redis, 2)
    await redis.delete(side.keys.key(f"{side.active[0].job_id}:lock"))
    assert (await side.trade(2, 0, "u")).answers == [0, 0]
    assert await redis.xlen(side.log) == 2


async def test_a_call_whose_reply_was_lost_is_repeated_with_the_same_jobs_and_no_second_event(redis: Redis) -> None:
    side = await working(redis, 4)
    for number in range(9):
        await side.add(number, {"attempts": 3})
    before = list(side.active)
    first = await side.trade(4, 3, "u")
    side.active = before
    second = await side.trade(4, 3, "u", again=True)
    assert second.answers == [-2] * 4
    assert sorted((job.job_id, job.token) for job in second.jobs) == sorted((job.job_id, job.token) for job in first.jobs)
    assert await redis.xlen(side.log) == 4
    assert await redis.llen(side.keys.key("active")) == 3
    assert await redis.llen(side.keys.key("wait")) == 6


async def test_a_call_that_was_never_made_is_made_by_its_repetition(redis: Redis) -> None:
    side = await working(redis, 2)
    await side.add(9, {"attempts": 3})
    traded = await side.trade(2, 2, "u", again=True)
    assert (traded.answers, len(traded.jobs)) == ([0, 0], 1)


@pytest.mark.parametrize("key", ["delayed", "prioritized", "wait"])
async def test_a_fetch_that_raises_leaves_the_ends_and_their_events(redis: Redis, key: str) -> None:
    side = await working(redis, 2)
    await redis.hset(side.keys.key(key), "not", "what it should be")
    traded = await side.trade(2, 2, "u")
    assert (traded.answers, traded.jobs) == ([0, 0], [])
    assert "WRONGTYPE" in (traded.error or "")
    assert await redis.xlen(side.log) == 2


@pytest.mark.parametrize("key", ["stalled", "completed"])
async def test_what_raises_after_jobs_left_active_still_tells_of_their_ends(redis: Redis, key: str) -> None:
    side = await working(redis, 2)
    await redis.delete(side.keys.key(key))
    await redis.set(side.keys.key(key), "not what it should be")
    traded = await side.trade(2, 0, "u")
    assert traded.answers == [0, 0]
    assert "WRONGTYPE" in (traded.unsettled or "")
    assert traded.error is None
    assert await redis.xlen(side.log) == 2
    assert await redis.llen(side.keys.key("active")) == 0


async def test_a_store_that_dies_at_any_byte_of_an_exchange_has_each_end_with_its_event_or_neither(tmp_path: Path) -> None:
    """The append-only file cut at many places of the exchange: what a kill -9 of the store can leave."""
    jobs = 3
    with Valkey(tmp_path / "whole", appendfsync="always") as server:
        redis = Redis(unix_socket_path=str(server.socket), decode_responses=True, socket_timeout=None)
        side = await working(redis, jobs)
        for number in range(jobs):
            await side.add(number, {"attempts": 3})
        (written,) = server.folder.glob("appendonlydir/*.incr.aof")
        before = written.stat().st_size
        assert (await side.trade(jobs, jobs, "u")).answers == [0] * jobs
        after = written.stat().st_size
        server.kill()
        await redis.aclose()
    text = written.read_bytes()
    borders = [at for at in range(before, after) if text[at : at + 1] == b"*" and text[at - 2 : at] == b"\r\n"]
    assert len(borders) > 15
    outcomes = set()
    for cut in [*borders[::3], (borders[1] + borders[2]) // 2, after - 3, after]:
        folder = tmp_path / f"cut-{cut}"
        shutil.copytree(written.parent, folder / "appendonlydir")
        (folder / "appendonlydir" / written.name).write_bytes(text[:cut])
        with Valkey(folder, appendfsync="always") as server:
            redis = Redis(unix_socket_path=str(server.socket), decode_responses=True, socket_timeout=None)
            completed, told = await redis.zcard(side.keys.key("completed")), await redis.xlen(side.log)
            active, waiting = await redis.llen(side.keys.key("active")), await redis.llen(side.keys.key("wait"))
            await redis.aclose()
        assert completed == told, f"cut at {cut - before} of {after - before} bytes"
        assert completed + active + waiting == 2 * jobs
        outcomes.add((completed, active))
        shutil.rmtree(folder)
    assert outcomes == {(0, jobs), (jobs, jobs)}


@pytest.mark.parametrize("listed", [64, 128], ids=["as the store is", "longer members in a list"])
async def test_no_jobs_id_is_that_which_makes_a_tree(redis: Redis, listed: int) -> None:
    side, odd = Side(redis, "side", Queue()), ["-" * 65, "." * 65, "_" * 65]
    await redis.config_set("zset-max-listpack-value", listed)
    for id in odd:
        await side.add(0, {}, id=id)
    await side.trade(0, 3, "t")
    await side.trade(3, 0, "t")
    await redis.config_set("zset-max-listpack-value", 64)
    assert sorted(await redis.zrange(side.keys.key("completed"), 0, -1)) == sorted(odd)


async def test_ended_jobs_that_are_kept_are_a_tree_in_the_store(redis: Redis) -> None:
    side = Side(redis, "side", Queue())
    for number in range(6):
        await side.add(number, {"removeOnComplete": {"count": 3}})
    await side.trade(0, 6, "t")
    for done in (2, 4):
        await side.trade(done, 0, "t")
        completed = side.keys.key("completed")
        assert await redis.object("encoding", completed) == "skiplist", "a list would be looked through for each end"
        assert await redis.zrange(completed, 0, -1) == [str(number) for number in ((1, 2) if done == 2 else (4, 5, 6))]
