"""The embedded store: shared by processes, survives kill -9 with all that was acknowledged, ends with the last one out."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.config import Config
from pipeline.dev import with_dev_secrets
from pipeline.errors import ConfigError
from pipeline.store import connection, embedded
from pipeline.store.embedded import EmbeddedStore
from tests.support.valkey import Valkey


def servers(store: EmbeddedStore) -> list[psutil.Process]:
    return [found for found in psutil.process_iter(["cmdline"]) if str(store.socket) in " ".join(found.info["cmdline"] or [])]


async def test_attach_use_and_detach(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    redis = connection.connect(store.attach())
    await connection.wait_until_up(redis)
    assert await connection.check(redis, owner="hookline", bull_prefix="bull") == []
    await redis.set("kept", "yes")
    await redis.aclose()
    assert store.detach()
    assert servers(store) == []
    assert not store.answers()


async def test_data_survives_kill_9_of_the_store(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    redis = connection.connect(store.attach())
    for number in range(200):
        await redis.rpush("kept", number)
    (server,) = servers(store)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    assert not store.answers()
    store.attach()
    assert await redis.llen("kept") == 200
    await redis.aclose()
    store.detach()


def test_the_last_process_out_shuts_it_down_however_the_others_ended(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    store.attach()
    hold = "import sys; from pathlib import Path; from pipeline.store.embedded import EmbeddedStore as S; "
    hold += "s = S(Path(sys.argv[1])); s.attach(); print('up', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout
    assert other.stdout.readline() == b"up\n"
    assert len(servers(store)) == 1
    assert not store.detach()
    assert store.answers()
    store.attach()
    other.kill()
    other.communicate()
    assert store.detach()
    assert servers(store) == []


def test_a_folder_with_a_long_path_gets_its_socket_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    store = EmbeddedStore(tmp_path / ("deep/" * 20))
    store.attach()
    try:
        assert len(str(store.socket)) < 100
        assert (store.folder / "socket.path").read_text().strip() == str(store.socket)
        assert store.socket.parent.stat().st_mode & 0o777 == 0o700
    finally:
        store.detach()


def test_a_store_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "store" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "store" / "appendonlydir" / "appendonly.aof.manifest").write_text("garbage\n")
    with pytest.raises(ConfigError, match=r"(?s)did not start.*manifest.*valkey\.log"):
        EmbeddedStore(tmp_path).attach()


@pytest.mark.parametrize(("policy", "message"), [("allkeys-lru", "maxmemory-policy allkeys-lru"), ("volatile-ttl", "maxmemory-policy volatile-ttl")])
async def test_an_eviction_policy_is_refused(redis: connection.Store, policy: str, message: str) -> None:
    await redis.config_set("maxmemory-policy", policy)
    try:
        with pytest.raises(ConfigError, match=message):
            await connection.check(redis, owner="hookline", bull_prefix="bull")
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")


async def test_a_second_deployment_on_the_same_queues_is_refused(redis: connection.Store) -> None:
    await connection.check(redis, owner="hookline", bull_prefix="bull")
    await connection.check(redis, owner="hookline", bull_prefix="bull")
    with pytest.raises(ConfigError, match=r"bullmq\.prefix 'bull' is used by another Hookline deployment \(redis\.prefix 'hookline'\)"):
        await connection.check(redis, owner="other", bull_prefix="bull")


async def test_a_full_store_is_no_reason_not_to_start(redis: connection.Store) -> None:
    """What runs in it can only end if the processes come up."""
    await connection.check(redis, owner="hookline", bull_prefix="bull")
    await redis.config_set("maxmemory", 1)
    try:
        await connection.check(redis, owner="hookline", bull_prefix="bull")
    finally:
        await redis.config_set("maxmemory", 0)


async def test_a_store_that_may_lose_data_says_so(redis: connection.Store) -> None:
    (warning,) = await connection.check(redis, owner="hookline", bull_prefix="bull")
    assert "no append-only file" in warning


async def test_a_store_that_is_not_there_is_a_clear_error() -> None:
    redis = connection.connect("redis://127.0.0.1:1", retries=0)
    with pytest.raises(ConfigError, match=r"redis\.url: the store did not answer"):
        await asyncio.wait_for(connection.wait_until_up(redis, seconds=0.2), 10)
    await redis.aclose()


async def test_refused_credentials_are_said_at_once(valkey: Valkey) -> None:
    redis = connection.connect(valkey.url.replace("://", "://nobody:wrong@"), retries=0)
    with pytest.raises(ConfigError, match=r"redis\.url: the store refused the credentials"):
        await asyncio.wait_for(connection.wait_until_up(redis, seconds=60), 10)
    await redis.aclose()


async def test_something_else_that_listens_there_is_a_clear_error() -> None:
    async with TestServer(web.Application()) as other:
        redis = connection.connect(f"redis://127.0.0.1:{other.port}", retries=0)
        with pytest.raises(ConfigError, match=r"redis\.url: what answers there is no Redis"):
            await asyncio.wait_for(connection.wait_until_up(redis, seconds=60), 10)
        await redis.aclose()


@pytest.mark.parametrize("use", [lambda folder: EmbeddedStore(folder).attach(), lambda folder: with_dev_secrets(Config(data_dir=str(folder)))])
def test_a_data_folder_that_cannot_be_used_is_a_clear_error(tmp_path: Path, use: Callable[[Path], object]) -> None:
    folder = tmp_path / "data"
    folder.write_text("a file, where a folder should be")
    with pytest.raises(ConfigError, match=rf"data_dir: {folder} cannot be used: .*HOOKLINE_DATA_DIR"):
        use(folder)


def test_a_store_that_is_alive_but_does_not_answer_gets_no_second_server_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers on one append-only file would each lose what the other accepted; a stalled disk or a long load is no death."""
    store = EmbeddedStore(tmp_path)
    store.attach()
    monkeypatch.setattr(embedded, "START_SECONDS", 0.2)
    (server,) = servers(store)
    server.suspend()
    try:
        with pytest.raises(ConfigError, match="alive but does not answer"):
            EmbeddedStore(tmp_path).attach()
        assert servers(store) == [server]
    finally:
        server.resume()
        for left in servers(store):
            left.kill()
            left.wait()
