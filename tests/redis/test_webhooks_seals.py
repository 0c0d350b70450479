"""The encryption key of the endpoints' secrets is replaced, and the former one dropped, whatever happens meanwhile."""

import asyncio
import json
import sys
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.support.hooks import PREFIX, T0, Hooks
from tests.support.valkey import Valkey
from webhooks import MissingKey

OLD, NEW = b"k" * 32, b"n" * 32
OVERLAP = 24 * 3_600_000


def process(redis: Redis, *keys: bytes) -> Hooks:
    return Hooks(redis, encryption_keys=list(keys))


async def fill(hooks: Hooks, count: int) -> dict[str, tuple[str, str | None]]:
    """Endpoint → its secret and its public key."""
    made = {}
    for n in range(count):
        endpoint, secret = await hooks.webhooks.endpoints.create(
            {"url": "http://127.0.0.1:9/", "asymmetric": n % 2 == 0, "headers": {"x-key": f"pass-{n}"}}
        )
        made[endpoint.id] = (secret, endpoint.document()["publicKey"])
    return made


async def opens(hooks: Hooks, made: dict[str, tuple[str, str | None]]) -> None:
    for n, (id, (secret, public)) in enumerate(made.items()):
        endpoint, keyring = await hooks.webhooks.endpoints.get(id), hooks.webhooks.endpoints.keyring
        assert keyring.secrets(endpoint, T0)[0] == secret
        assert (endpoint.document()["publicKey"], len(keyring.keys(endpoint, T0 + OVERLAP))) == (public, 2 if public else 1)
        assert keyring.headers(endpoint) == {"x-key": f"pass-{n}"}


async def test_the_former_key_can_be_dropped(redis: Redis) -> None:
    made = await fill(process(redis, OLD), 5)
    both = process(redis, NEW, OLD)
    rotated = next(iter(made))
    _, secret = await process(redis, OLD).webhooks.endpoints.rotate_secret(rotated)
    made[rotated] = (secret, (await both.webhooks.endpoints.get(rotated)).document()["publicKey"])
    (warning,) = await both.webhooks.seals.warnings()
    assert warning.startswith("secrets of 5 endpoints are encrypted with the former key ")
    assert await both.webhooks.seals.renew() == 5
    assert await both.webhooks.seals.renew() == 0
    assert await both.webhooks.seals.warnings() == []
    alone = process(redis, NEW)
    await opens(alone, made)
    assert len(alone.webhooks.endpoints.keyring.secrets(await alone.webhooks.endpoints.get(rotated), T0)) == 2
    assert await alone.webhooks.seals.warnings() == []


async def test_the_loops_do_it_at_their_start(redis: Redis) -> None:
    made = await fill(process(redis, OLD), 3)
    both = process(redis, NEW, OLD)
    renew, renewed = both.webhooks.seals.renew, asyncio.Event()

    async def heard() -> int:
        count = await renew()
        renewed.set()
        return count

    both.webhooks.seals.renew = heard  # type: ignore[method-assign]
    async with both.running():
        await asyncio.wait_for(renewed.wait(), 10)
    await opens(process(redis, NEW), made)


async def test_it_is_no_change_that_anybody_notices(redis: Redis) -> None:
    hooks = process(redis, OLD)
    (id,) = await fill(hooks, 1)
    record = hooks.keys.endpoint(id)
    await redis.hset(record, "heldUntil", "123")
    stored = json.loads(await redis.hget(record, "definition"))
    await redis.hset(record, "definition", json.dumps(stored | {"later": "what a newer version wrote"}))
    before, version = await redis.hgetall(record), await redis.get(hooks.keys.version)
    assert await process(redis, NEW, OLD).webhooks.seals.renew() == 1
    after = await redis.hgetall(record)
    assert await redis.get(hooks.keys.version) == version
    assert {name for name in before if before[name] != after[name]} == {"definition"}
    assert json.loads(after["definition"])["later"] == "what a newer version wrote"


async def test_a_change_at_the_same_time_is_not_lost(redis: Redis) -> None:
    made = await fill(process(redis, OLD), 1)
    (id,) = made
    both = process(redis, NEW, OLD)
    script = both.webhooks.seals._script

    async def overtaken(keys: list[str], arguments: list[str]) -> Any:
        await process(redis, OLD).webhooks.endpoints.patch(id, {"description": "changed"})
        return await script(keys, arguments)

    both.webhooks.seals._script = overtaken  # type: ignore[assignment]
    assert await both.webhooks.seals.renew() == 0
    assert (await both.webhooks.endpoints.get(id)).description == "changed"
    both.webhooks.seals._script = script
    assert await both.webhooks.seals.renew() == 1
    await opens(process(redis, NEW), made)


async def test_several_processes_do_it_together(redis: Redis) -> None:
    made = await fill(process(redis, OLD), 20)
    done = await asyncio.gather(*(process(redis, NEW, OLD).webhooks.seals.renew() for _ in range(4)))
    assert sum(done) == 20
    await opens(process(redis, NEW), made)


async def test_what_a_process_with_the_former_key_still_writes_is_noticed(redis: Redis) -> None:
    both = process(redis, NEW, OLD)
    await fill(process(redis, OLD), 1)
    await both.webhooks.seals.renew()
    made = await fill(process(redis, OLD, NEW), 1)
    assert len(await both.webhooks.seals.warnings()) == 1
    assert await both.webhooks.seals.renew() == 1
    await opens(process(redis, NEW), made)


async def test_a_key_that_is_gone_is_told_and_hurts_no_other_endpoint(redis: Redis) -> None:
    await fill(process(redis, b"g" * 32), 1)
    made = await fill(process(redis, OLD), 1)
    both = process(redis, NEW, OLD)
    assert await both.webhooks.seals.renew() == 1
    (warning,) = await both.webhooks.seals.warnings()
    assert "secrets of 1 endpoints" in warning
    assert "is not configured: nothing can be sent to them" in warning
    await opens(process(redis, NEW), made)
    assert await process(redis, NEW, OLD, b"g" * 32).webhooks.seals.renew() == 1
    assert await both.webhooks.seals.warnings() == []


async def test_a_secret_whose_key_is_lost_is_replaced_without_overlap(redis: Redis) -> None:
    (id,) = await fill(process(redis, OLD), 1)
    alone = process(redis, NEW)
    with pytest.raises(MissingKey):
        await alone.webhooks.endpoints.rotate_secret(id)
    _, secret = await alone.webhooks.endpoints.rotate_secret(id, {"overlap": "0s"})
    await alone.webhooks.endpoints.patch(id, {"headers": {}})
    assert await alone.webhooks.seals.warnings() == []
    assert alone.webhooks.endpoints.keyring.secrets(await alone.webhooks.endpoints.get(id), T0) == [secret]


async def test_what_has_ceased_to_sign_needs_no_key(redis: Redis) -> None:
    (id,) = await fill(process(redis, OLD), 1)
    both = process(redis, NEW, OLD)
    await both.webhooks.endpoints.rotate_secret(id)
    await both.webhooks.endpoints.patch(id, {"headers": {}})
    alone = process(redis, NEW)
    assert len(await alone.webhooks.seals.warnings()) == 1
    alone.clock.forward(OVERLAP)
    assert await alone.webhooks.seals.warnings() == []
    assert len(alone.webhooks.endpoints.keyring.keys(await alone.webhooks.endpoints.get(id), alone.clock())) == 2


async def test_an_emptied_store_is_looked_at_anew(redis: Redis) -> None:
    both = process(redis, NEW, OLD)
    await fill(process(redis, OLD), 5)
    await both.webhooks.seals.look()
    await redis.flushall()
    assert await both.webhooks.seals.look() == {}
    await fill(process(redis, OLD), 2)
    assert sum((await both.webhooks.seals.look()).values()) == 2


RENEW = f"""
import asyncio, sys
from pipeline.store.connection import connect
from webhooks import Webhooks

async def main():
    seals = Webhooks(redis=connect(sys.argv[1]), prefix={PREFIX!r}, encryption_keys=[{NEW!r}, {OLD!r}]).seals
    script = seals._script
    async def step(keys, arguments):
        # The test says when to go on.
        sys.stdin.readline()
        done = await script(keys, arguments)
        print(done, flush=True)
        return done
    seals._script = step
    await seals.renew()

asyncio.run(main())
"""


async def test_killed_between_two_endpoints(redis: Redis, valkey: Valkey) -> None:
    made = await fill(process(redis, OLD), 6)
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RENEW, valkey.socket_url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert killed.stdin
    assert killed.stdout
    for _ in range(2):
        killed.stdin.write(b"\n")
        assert (await asyncio.wait_for(killed.stdout.readline(), 30)).strip() == b"1"
    killed.kill()
    await killed.wait()
    both = process(redis, NEW, OLD)
    assert list((await both.webhooks.seals.look()).values()) == [4]
    await opens(both, made)
    assert await both.webhooks.seals.renew() == 4
    await opens(process(redis, NEW), made)
