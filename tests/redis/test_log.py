"""The event log on a real store: cursors, consumer groups, trimming that never drops what a group still needs."""

import pytest
from redis.asyncio import Redis

from pipeline.errors import Gone, InvalidInput
from pipeline.store.event import Event, event_id
from pipeline.store.group import Group
from pipeline.store.log import Log

KEY = "hookline:log"
HOUR = 3_600_000


def event(number: int) -> Event:
    return Event(id=event_id("test.done", number), type="test.done", timestamp=number, data={"number": number})


async def fill(redis: Redis, *times: int) -> list[str]:
    """Entries whose cursors say that they were appended at these times (ms)."""
    return [await redis.xadd(KEY, dict(zip(event(at).fields()[::2], event(at).fields()[1::2], strict=True)), id=f"{at}-0") for at in times]


async def test_events_are_read_after_a_cursor(redis: Redis) -> None:
    log = Log(redis, KEY)
    cursors = await log.append([event(1), event(2), event(3)])
    assert [found.data["number"] for found in await log.after("", limit=2)] == [1, 2]
    assert [found.data["number"] for found in await log.after(cursors[1], limit=10)] == [3]
    assert await log.after(cursors[2], limit=10, block_ms=10) == []
    assert (await log.earliest(), await log.last()) == (cursors[0], cursors[2])


async def test_a_cursor_before_what_is_kept_is_gone_and_says_what_is_left(redis: Redis) -> None:
    log = Log(redis, KEY)
    cursors = await fill(redis, 1, 2, HOUR, HOUR + 1)
    await log.trim(max_age_ms=HOUR, max_bytes=1 << 30, now=2 * HOUR)
    with pytest.raises(Gone) as gone:
        await log.after(cursors[0], limit=10)
    assert gone.value.earliest == cursors[2]
    # What was trimmed lay before this one: nothing was missed.
    assert len(await log.after(cursors[2], limit=10)) == 1
    assert len(await log.after("", limit=10)) == 2


async def test_who_had_read_all_that_was_trimmed_missed_nothing(redis: Redis) -> None:
    log = Log(redis, KEY)
    cursors = await fill(redis, 1, 2)
    await log.trim(max_age_ms=HOUR, max_bytes=1 << 30, now=10 * HOUR)
    assert await redis.xlen(KEY) == 0
    assert await log.after(cursors[1], limit=10) == []
    (later,) = await fill(redis, 10 * HOUR)
    assert [found.cursor for found in await log.after(cursors[1], limit=10)] == [later]
    with pytest.raises(Gone) as gone:
        await log.after(cursors[0], limit=10)
    assert gone.value.earliest == later


async def test_a_cursor_that_is_none_is_refused(redis: Redis) -> None:
    with pytest.raises(InvalidInput, match="not a cursor"):
        await Log(redis, KEY).after("yesterday", limit=1)


async def test_trimming_keeps_what_a_group_has_not_acknowledged_and_names_it(redis: Redis) -> None:
    log = Log(redis, KEY)
    cursors = await fill(redis, 1, 2, 3)
    slow, fast = Group(redis, KEY, "slow", "s"), Group(redis, KEY, "fast", "f")
    await slow.create()
    await fast.create()
    assert len(await slow.read(count=2, block_ms=10)) == 2
    await slow.ack([cursors[0]])
    assert len(await fast.read(count=10, block_ms=10)) == 3
    await fast.ack(cursors)
    assert await log.trim(max_age_ms=HOUR, max_bytes=1 << 30, now=2 * HOUR) == "slow"
    assert [found.cursor for found in await log.after("", limit=10)] == cursors[1:]
    assert (await log.behind(now=HOUR))["slow"] == HOUR - 2
    assert (await log.behind(now=HOUR))["fast"] == 0
    assert not await log.acknowledged("slow", cursors[1])
    assert await log.acknowledged("fast", cursors[2])


async def test_an_unread_group_holds_everything(redis: Redis) -> None:
    log = Log(redis, KEY)
    await fill(redis, 1, 2)
    await Group(redis, KEY, "new", "n").create()
    assert await log.trim(max_age_ms=HOUR, max_bytes=1 << 30, now=2 * HOUR) == "new"
    assert len(await log.after("", limit=10)) == 2


async def test_a_group_that_holds_nothing_back_is_not_named(redis: Redis) -> None:
    log = Log(redis, KEY)
    await Group(redis, KEY, "new", "n").create()
    assert await log.trim(max_age_ms=HOUR, max_bytes=1 << 30, now=2 * HOUR) is None


async def test_a_log_beyond_its_size_is_trimmed(redis: Redis) -> None:
    log = Log(redis, KEY)
    await log.append([event(number) for number in range(25_000)])
    size = await redis.memory_usage(KEY)
    await log.trim(max_age_ms=HOUR, max_bytes=size // 5, now=1)
    assert 4000 < await redis.xlen(KEY) < 6000


async def test_a_full_store_can_still_be_trimmed(redis: Redis) -> None:
    log = Log(redis, KEY)
    cursors = await fill(redis, 1, 2, HOUR)
    await redis.config_set("maxmemory", 1)
    try:
        await log.trim(max_age_ms=HOUR, max_bytes=1 << 30, now=2 * HOUR)
    finally:
        await redis.config_set("maxmemory", 0)
    assert await log.earliest() == cursors[2]
    with pytest.raises(Gone):
        await log.after(cursors[0], limit=10)


async def test_a_group_outlives_an_emptied_store(redis: Redis) -> None:
    group = Group(redis, KEY, "engine", "e")
    assert await group.read(count=1, block_ms=10) == []
    await redis.flushall()
    assert await group.read(count=1, block_ms=10) == []
    (cursor,) = await fill(redis, 1)
    assert [found.cursor for found in await group.read(count=1, block_ms=10)] == [cursor]


async def test_entries_of_a_dead_consumer_are_handed_to_another(redis: Redis) -> None:
    cursors = await fill(redis, 1, 2)
    dead, alive = Group(redis, KEY, "engine", "dead"), Group(redis, KEY, "engine", "alive")
    await dead.create()
    await dead.create()
    assert len(await dead.read(count=10, block_ms=10)) == 2
    assert await alive.read(count=10, block_ms=10) == []
    alive.CLAIM_AFTER_MS = 0
    alive._claimed_at = float("-inf")
    assert [found.cursor for found in await alive.read(count=10, block_ms=10)] == cursors
    assert await alive.deliveries(cursors[0]) == 2
    await alive.ack(cursors)
    await Log(redis, KEY).forget_consumers(idle_ms=HOUR)
    assert [row["name"] for row in await redis.xinfo_consumers(KEY, "engine")] == ["alive", "dead"]
    await Log(redis, KEY).forget_consumers(idle_ms=-1)
    assert await redis.xinfo_consumers(KEY, "engine") == []


def test_the_id_of_an_event_depends_on_what_happened_alone() -> None:
    assert event_id("job.completed", "run", "step", 1) == event_id("job.completed", "run", "step", 1)
    assert event_id("job.completed", "run", "step", 1) != event_id("job.completed", "run", "step", 2)
    assert event_id("a", "bc") != event_id("a", "b", "c")


async def test_an_event_is_found_by_its_id_among_the_newest(redis: Redis) -> None:
    log = Log(redis, KEY)
    assert await log.find("evt_none", most=10) is None
    cursors = await log.append([event(number) for number in range(1_200)])
    for number in (0, 499, 500, 501, 1_199):
        found = await log.find(event(number).id, most=10_000)
        assert found
        assert (found.id, found.cursor, found.document()) == (event(number).id, cursors[number], event(number).document())
    assert await log.find("evt_none", most=10_000) is None
    assert await log.find(event(0).id, most=500) is None, "it is further back than was asked for"


async def test_entries_of_before_2026_11_26_are_read_as_they_are(redis: Redis) -> None:
    log, new = Log(redis, KEY), event(2)
    old = {"id": "evt_old", "type": "test.done", "ts": "1", "data": '{"number":1}'}
    cursor = await redis.xadd(KEY, old)
    await redis.xadd(KEY, old | {"id": "evt_other", "type": "test.other"})
    await log.append([new])
    expected = [("evt_old", "test.done", 1, {"number": 1}), (new.id, "test.done", 2, {"number": 2})]
    group = Group(redis, KEY, "g", "c", types={"test.done"})
    await group.create()
    assert [(found.id, found.type, found.timestamp, found.data) for found in await group.read(count=10, block_ms=1)] == expected
    assert (await redis.xpending(KEY, "g"))["pending"] == 2, "what is of another type is acknowledged"
    found = await log.find("evt_old", most=10)
    assert found
    assert (found.cursor, found.data) == (cursor, {"number": 1})
    assert (await log.find(new.id, most=10)) is not None
    assert await log.find(new.id[:-1], most=10) is None
