"""Endpoints in the store: by API, by config.yaml, under concurrent change."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from tests.support.hooks import T0, Clock, Hooks
from tests.support.mailboxes import claim, filled
from webhooks import Conflict, Declared, InvalidInput, MissingKey, NotFound, ReadOnly, RefusedAddress
from webhooks.requests import Requests
from webhooks.service import RETENTION_MS
from webhooks.signing import Key, generate_secret, key_of

SECRET = generate_secret()
HOUR = 3_600_000


def declared(id: str = "analysis", **more: object) -> Declared:
    return Declared(**{"id": id, "url": "http://127.0.0.1:8000/hooks", "types": ("job.*",), "secret": SECRET, **more})  # type: ignore[arg-type]


async def everything(redis: Redis) -> str:
    """All that the store holds, as text."""
    read = {"hash": redis.hgetall, "zset": lambda key: redis.zrange(key, 0, -1), "list": lambda key: redis.lrange(key, 0, -1), "string": redis.get}
    return "".join([str(await read[await redis.type(key)](key)) for key in await redis.keys()])


async def test_created_shown_listed_changed_deleted(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoints = hooks.webhooks.endpoints
    made, secret = await endpoints.create({"url": "http://127.0.0.1:1/?key=s3cret", "types": ["job.*"], "headers": {"X-Key": "pass-word"}})
    assert secret.startswith("whsec_")
    assert made.document() == {
        "id": made.id, "url": "http://127.0.0.1:1/?key=s3cret", "types": ["job.*"], "status": "enabled",
        "statusSince": "2026-01-01T00:00:00.000Z", "reason": None, "description": "",
        "schedule": None, "timeout": "15s", "concurrency": 10, "rate": None, "ordering": None, "filter": None, "payload": "full",
        "asymmetric": False, "publicKey": None, "formerPublicKeys": [], "formerSecrets": [],
        "health": {"state": "closed", "failures": 0, "failingSince": None, "lastSuccessAt": None, "openUntil": None, "heldUntil": None},
        "headers": {"x-key": "(hidden)"}, "source": "api", "createdAt": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip
    assert await endpoints.get(made.id) == made
    assert endpoints.keyring.headers(made) == {"x-key": "pass-word"}
    changed = await endpoints.patch(made.id, {"types": ["*"], "schedule": ["0s", "90s"], "headers": {}, "concurrency": 2})
    assert (changed.types, changed.schedule, changed.concurrency, changed.timeout) == (("*",), (0, 90_000), 2, 15_000)
    assert changed.document()["schedule"] == ["0s", "90s"]
    assert endpoints.keyring.headers(changed) == {}
    assert (await endpoints.patch(made.id, {"schedule": None})).schedule is None
    await endpoints.delete(made.id)
    for call in (endpoints.get, endpoints.delete, endpoints.enable, endpoints.pause, endpoints.rotate_secret):
        with pytest.raises(NotFound):
            await call(made.id)


async def test_no_secret_is_stored_or_shown_in_the_clear(redis: Redis) -> None:
    hooks = Hooks(redis)
    made, secret = await hooks.webhooks.endpoints.create({"url": "http://127.0.0.1:1/?key=s3cret", "headers": {"X-Key": "pass-word"}})
    assert hooks.webhooks.endpoints.keyring.secrets(made, T0) == [secret]
    stored = await everything(redis)
    assert made.id in stored
    for text in (secret, secret.removeprefix("whsec_"), "pass-word"):
        assert text not in stored
        assert text not in repr(made)
    assert "s3cret" not in repr(made)
    with pytest.raises(MissingKey):
        Hooks(redis, encryption_keys=[b"x" * 32]).webhooks.endpoints.keyring.secrets(made, T0)
    later = Hooks(redis, encryption_keys=[b"x" * 32, b"k" * 32])
    assert later.webhooks.endpoints.keyring.secrets(made, T0) == [secret]


async def test_refused_addresses(redis: Redis) -> None:
    endpoints = Hooks(redis, allow_networks=[]).webhooks.endpoints
    with pytest.raises(RefusedAddress, match="loopback"):
        await endpoints.create({"url": "http://127.0.0.1/"})
    made, _ = await endpoints.create({"url": "http://1.1.1.1/"})
    with pytest.raises(RefusedAddress, match="metadata"):
        await endpoints.patch(made.id, {"url": "http://169.254.169.254/"})
    assert (await endpoints.get(made.id)).url == "http://1.1.1.1/"


async def test_pages(redis: Redis) -> None:
    hooks = Hooks(redis)
    made = []
    for _ in range(5):
        made.append(await hooks.endpoint())
        hooks.clock.forward(1)
    seen: list[str] = []
    cursor = None
    while True:
        page = await hooks.webhooks.endpoints.list(cursor=cursor, limit=2)
        assert len(page.items) <= 2
        seen += [endpoint.id for endpoint in page.items]
        cursor = page.next_cursor
        if not cursor:
            break
    assert seen == made
    with pytest.raises(InvalidInput, match="cursor"):
        await hooks.webhooks.endpoints.list(cursor="nonsense")


async def test_rotation_overlaps_for_a_day(redis: Redis) -> None:
    clock = Clock()
    endpoints = Hooks(redis, clock).webhooks.endpoints
    made, first = await endpoints.create({"url": "http://127.0.0.1/"})
    _, second = await endpoints.rotate_secret(made.id)
    clock.forward(HOUR)
    rotated, third = await endpoints.rotate_secret(made.id)
    assert endpoints.keyring.secrets(rotated, clock.now) == [third, second, first]
    assert endpoints.keyring.secrets(rotated, T0 + 24 * HOUR) == [third, second]
    assert endpoints.keyring.secrets(rotated, T0 + 25 * HOUR) == [third]
    changed = await endpoints.patch(made.id, {"description": "d"})
    assert len(changed.secrets) == 3, "all of them sign still"
    clock.forward(23 * HOUR)
    assert len((await endpoints.patch(made.id, {"description": "e"})).secrets) == 2, "what has ceased to sign goes with the next change"


async def test_rotation_to_a_secret_of_ones_own_with_an_overlap_of_ones_own(redis: Redis) -> None:
    clock = Clock()
    endpoints = Hooks(redis, clock).webhooks.endpoints
    made, first = await endpoints.create({"url": "http://127.0.0.1/"})
    rotated, second = await endpoints.rotate_secret(made.id, {"secret": SECRET, "overlap": "7d"})
    assert second == SECRET
    assert endpoints.keyring.secrets(rotated, T0 + 7 * 24 * HOUR - 1) == [SECRET, first]
    rotated, third = await endpoints.rotate_secret(made.id, {"overlap": "1h"})
    assert endpoints.keyring.secrets(rotated, T0 + HOUR - 1) == [third, SECRET, first]
    assert endpoints.keyring.secrets(rotated, T0 + HOUR) == [third], "a former one never outlives the one that replaced it"
    rotated, _ = await endpoints.rotate_secret(made.id, {"secret": first.removeprefix("whsec_")})
    assert [secret.removeprefix("whsec_") for secret in endpoints.keyring.secrets(rotated, T0)] == [
        secret.removeprefix("whsec_") for secret in (first, third, SECRET)
    ], "a former one may come back"
    rotated, fifth = await endpoints.rotate_secret(made.id, {"overlap": "0s"})
    assert endpoints.keyring.secrets(rotated, T0) == [fifth], "in an emergency nothing overlaps"
    for wrong, says in (
        ({"overlap": "8d"}, "0s to 7d"),
        ({"overlap": "-1s"}, "duration"),
        ({"secret": "whsec_x"}, "openssl"),
        ({"secrets": []}, "known"),
    ):
        with pytest.raises(InvalidInput, match=says):
            await endpoints.rotate_secret(made.id, wrong)


async def test_no_overlap_is_cut_short_by_more_rotations(redis: Redis) -> None:
    endpoints = Hooks(redis).webhooks.endpoints
    made, first = await endpoints.create({"url": "http://127.0.0.1/"})
    for _ in range(4):
        await endpoints.rotate_secret(made.id)
    with pytest.raises(Conflict, match="5 secrets"):
        await endpoints.rotate_secret(made.id)
    assert endpoints.keyring.secrets(await endpoints.get(made.id), T0)[-1] == first
    back, _ = await endpoints.rotate_secret(made.id, {"secret": first})
    assert (len(back.secrets), endpoints.keyring.secrets(back, T0)[0]) == (5, first), "one of the five may come back"
    assert len((await endpoints.rotate_secret(made.id, {"overlap": "0s"}))[0].secrets) == 1


async def test_a_key_pair_is_made_when_first_asked_for_and_rotates_with_the_secret(redis: Redis) -> None:
    clock = Clock()
    hooks = Hooks(redis, clock)
    endpoints = hooks.webhooks.endpoints
    made, _ = await endpoints.create({"url": "http://127.0.0.1/"})
    assert (made.pairs, made.document()["publicKey"]) == ((), None)
    made = await endpoints.patch(made.id, {"asymmetric": True})
    public = made.document()["publicKey"]
    assert public.startswith("whpk_")
    assert (await endpoints.patch(made.id, {"asymmetric": False})).document()["publicKey"] is None
    made = await endpoints.patch(made.id, {"asymmetric": True})
    assert made.document()["publicKey"] == public, "it was kept"
    assert [type(key).__name__ for _, key in endpoints.keyring.keys(made, T0)] == ["bytes", "Ed25519PrivateKey"]
    rotated, _ = await endpoints.rotate_secret(made.id, {"overlap": "1h"})
    shown = rotated.document(T0)
    assert shown["publicKey"] not in (public, None)
    assert shown["formerPublicKeys"] == [{"publicKey": public, "until": "2026-01-01T01:00:00.000Z"}]
    assert shown["formerSecrets"] == [{"until": "2026-01-01T01:00:00.000Z"}]
    assert len(endpoints.keyring.keys(rotated, T0)) == 4
    assert len(endpoints.keyring.keys(rotated, T0 + HOUR)) == 2
    assert "whsk_" not in await everything(redis) + repr(rotated)
    clock.forward(HOUR)
    for later in (rotated, await endpoints.patch(made.id, {"description": "d"})):
        shown = later.document(clock.now)
        assert (shown["formerPublicKeys"], shown["formerSecrets"]) == ([], [])


async def test_no_overlap_of_a_key_pair_is_cut_short_either(redis: Redis) -> None:
    endpoints = Hooks(redis).webhooks.endpoints
    made, first = await endpoints.create({"url": "http://127.0.0.1/", "asymmetric": True})
    for _ in range(4):
        await endpoints.rotate_secret(made.id)
    with pytest.raises(Conflict):
        await endpoints.rotate_secret(made.id, {"secret": first})
    assert (await endpoints.get(made.id)).pairs[-1].public == made.pairs[0].public


async def test_a_declared_endpoint_keeps_its_key_pair(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.webhooks.declare([declared(asymmetric=True)])
    first = (await hooks.webhooks.endpoints.get("analysis")).document()["publicKey"]
    version = await redis.get(hooks.keys.version)
    await hooks.webhooks.declare([declared(asymmetric=True)])
    assert await redis.get(hooks.keys.version) == version
    await hooks.webhooks.declare([declared(asymmetric=True, secret=generate_secret())])
    shown = (await hooks.webhooks.endpoints.get("analysis")).document(T0)
    assert [former["publicKey"] for former in shown["formerPublicKeys"]] == [first]


async def test_concurrent_changes_are_all_kept(redis: Redis) -> None:
    endpoints = Hooks(redis).webhooks.endpoints
    made, _ = await endpoints.create({"url": "http://127.0.0.1/"})
    await asyncio.gather(
        endpoints.patch(made.id, {"types": ["a"]}),
        endpoints.patch(made.id, {"timeout": "7s"}),
        endpoints.patch(made.id, {"concurrency": 3}),
        endpoints.patch(made.id, {"description": "d"}),
        endpoints.pause(made.id),
    )
    found = await endpoints.get(made.id)
    assert (found.types, found.timeout, found.concurrency, found.description, found.status) == (("a",), 7000, 3, "d", "paused")
    assert found.version == 6


async def test_a_repeated_save_is_one_change(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoints = hooks.webhooks.endpoints
    made = await endpoints.get(await hooks.endpoint())
    script, calls = endpoints._script, []

    async def twice(keys: list[str], arguments: list[object]) -> object:
        first = await script(keys, arguments)  # type: ignore[arg-type]
        calls.append((first, await script(keys, arguments)))  # type: ignore[arg-type]
        return calls[-1][1]

    endpoints._script = twice  # type: ignore[assignment]
    await endpoints.patch(made.id, {"types": ["a"]})
    assert calls == [(2, 2)]


async def test_declared_endpoints_are_as_config_says(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoints = hooks.webhooks.endpoints
    await hooks.webhooks.declare([declared(), declared("other", schedule=(0, 5), timeout=2000, concurrency=1, headers={"X": "y"})])
    other = await endpoints.get("other")
    assert (other.source, other.schedule, other.timeout, other.concurrency, endpoints.keyring.headers(other)) == (
        "config",
        (0, 5),
        2000,
        1,
        {"x": "y"},
    )
    assert endpoints.keyring.secrets(other, T0) == [SECRET]
    version = await redis.get(hooks.keys.version)
    await hooks.webhooks.declare([declared(), declared("other", schedule=(0, 5), timeout=2000, concurrency=1, headers={"X": "y"})])
    assert await redis.get(hooks.keys.version) == version, "the same declaration is no change"


async def test_declared_endpoints_are_read_only(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoints = hooks.webhooks.endpoints
    await hooks.webhooks.declare([declared()])
    with pytest.raises(ReadOnly):
        await endpoints.patch("analysis", {"types": ["*"]})
    with pytest.raises(ReadOnly):
        await endpoints.delete("analysis")
    with pytest.raises(ReadOnly):
        await endpoints.rotate_secret("analysis")
    assert (await endpoints.pause("analysis")).status == "paused"
    await hooks.webhooks.declare([declared()])
    assert (await endpoints.get("analysis")).status == "paused", "a restart does not undo what a person decided"
    assert (await endpoints.enable("analysis")).status == "enabled"


async def test_removed_from_config_is_paused_and_back_again_enabled(redis: Redis) -> None:
    hooks = Hooks(redis)
    endpoints = hooks.webhooks.endpoints
    own = await hooks.endpoint()
    await hooks.webhooks.declare([declared()])
    await hooks.webhooks.declare([])
    removed = await endpoints.get("analysis")
    assert (removed.status, removed.reason) == ("paused", "it was removed from config.yaml")
    assert (await endpoints.get(own)).status == "enabled"
    with pytest.raises(Conflict, match="add it there again"):
        await endpoints.enable("analysis")
    await hooks.webhooks.declare([declared()])
    assert (await endpoints.get("analysis")).status == "enabled"
    await hooks.webhooks.declare([])
    await endpoints.delete("analysis")
    with pytest.raises(NotFound):
        await endpoints.get("analysis")


async def test_a_secret_changed_in_config_overlaps(redis: Redis) -> None:
    hooks = Hooks(redis)
    await hooks.webhooks.declare([declared()])
    new = generate_secret()
    await hooks.webhooks.declare([declared(secret=new)])
    assert hooks.webhooks.endpoints.keyring.secrets(await hooks.webhooks.endpoints.get("analysis"), T0) == [new, SECRET]
    for _ in range(5):
        await hooks.webhooks.declare([declared(secret=generate_secret())])
    assert len((await hooks.webhooks.endpoints.get("analysis")).secrets) == 5, "the file is never refused for it"


async def test_one_that_is_deleted_and_declared_again_signs_with_its_new_secret(redis: Redis) -> None:
    """Also where a process goes on that knew it before."""
    hooks = Hooks(redis)
    requests = Requests(hooks.webhooks.endpoints)
    await hooks.webhooks.declare([declared()])
    await hooks.event()
    await hooks.spread()
    (claim,) = (await hooks.mailbox.claim(1, T0)).claims

    async def signing() -> tuple[int, Sequence[Key]]:
        await hooks.directory.refresh()
        endpoint = hooks.directory.get("analysis")
        assert endpoint
        return endpoint.version, requests.of(claim, endpoint, T0).keys

    assert await signing() == (1, [key_of(SECRET)])
    await hooks.webhooks.declare([])
    await hooks.webhooks.endpoints.delete("analysis")
    new = generate_secret()
    await hooks.webhooks.declare([declared(secret=new)])
    assert await signing() == (1, [key_of(new)])


async def test_a_wrong_declaration_changes_nothing(redis: Redis) -> None:
    hooks = Hooks(redis)
    for wrong in (declared("b", url="http://10.0.0.1/"), declared("b", secret="x"), declared("b", url="ftp://x"), declared("a")):
        with pytest.raises(InvalidInput, match=r"endpoint b|same id"):
            await hooks.webhooks.declare([declared("a"), wrong])
    assert (await hooks.webhooks.endpoints.list()).items == []


async def test_the_directory_reads_only_what_changed(redis: Redis) -> None:
    hooks = Hooks(redis)
    first, second = await hooks.endpoint(types=["a"]), await hooks.endpoint(types=["b"])
    await hooks.directory.refresh()
    assert [one.id for one in hooks.directory.route("a")] == [first]
    before = hooks.directory.get(second)
    await hooks.webhooks.endpoints.patch(first, {"types": ["b"]})
    await hooks.directory.refresh()
    assert {one.id for one in hooks.directory.route("b")} == {first, second}
    assert hooks.directory.get(second) is before
    await hooks.webhooks.endpoints.delete(first)
    await hooks.directory.refresh()
    assert [one.id for one in hooks.directory.route("b")] == [second]
    await redis.flushall()
    await hooks.directory.refresh()
    assert hooks.directory.route("b") == []


async def test_deletions_are_forgotten_without_anybody_missing_one(redis: Redis) -> None:
    hooks, away = Hooks(redis), Hooks(redis)
    endpoints = hooks.webhooks.endpoints
    recorded = await hooks.endpoint()
    event = await hooks.event()
    await hooks.spread()
    forgotten, last, kept = [await hooks.endpoint() for _ in range(3)]
    for one in (hooks, away):
        await one.directory.refresh()
    for endpoint in (recorded, forgotten):
        await endpoints.delete(endpoint)
    await hooks.directory.refresh()
    await redis.zadd(hooks.keys.deleted, {f"ep_{n}": T0 + 1 for n in range(999)})
    hooks.clock.forward(2)
    await endpoints.delete(last)
    assert set(await redis.zrange(hooks.keys.changes, 0, -1)) == {"", recorded, last, kept}
    assert (await redis.zscore(hooks.keys.deleted, forgotten), await redis.zcard(hooks.keys.deleted)) == (None, 1001)
    assert [one.event for one in (await hooks.webhooks.deliveries.list(event=event)).items] == [event], "as long as there are records of it"
    unchanged = hooks.directory.get(kept)
    assert await hooks.directory.refresh() == {last}
    assert hooks.directory.get(kept) is unchanged, "who saw it go reads on"
    assert await away.directory.refresh() >= {recorded, forgotten, last}
    assert [one.id for one in away.directory.route("a")] == [kept]
    hooks.clock.forward(RETENTION_MS + 1)
    await hooks.webhooks.deliveries.sweep()
    await endpoints.delete(kept)
    assert recorded not in await redis.zrange(hooks.keys.changes, 0, -1)


async def test_a_former_secret_ceases_to_sign_though_its_endpoint_is_not_read_again(redis: Redis) -> None:
    hooks, endpoint = await filled(redis, 1)
    await hooks.webhooks.endpoints.rotate_secret(endpoint, {"overlap": "1h"})
    (one,) = await claim(hooks)
    present, requests = await hooks.webhooks.endpoints.get(endpoint), Requests(hooks.webhooks.endpoints)
    assert [len(requests.of(one, present, hooks.clock.now + ms).keys) for ms in (0, 3_599_999, 3_600_000)] == [2, 2, 1]
