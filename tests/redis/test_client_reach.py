"""Each way to the store (TLS, ACL users, a unix socket, Sentinel), for what shares a connection and for what has one of its own."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.asyncio import Redis

from pipeline.store import sentinel
from pipeline.store.connection import STORE_ERRORS, Store, connect
from pipeline.store.scripts import Script
from pipeline.store.wire import NotSent, Refused, ReplyLost
from tests.support.proxy import Proxy
from tests.support.sentinel import SERVICE, Watched
from tests.support.valkey import Valkey, free_port

COUNT = Script("return redis.call('INCR', KEYS[1])")


async def all_ways(redis: Store) -> None:
    """Commands, scripts, pipelines, blocking commands and pub/sub work."""
    assert await redis.set("k", "v")
    assert await asyncio.gather(*(redis.get("k") for _ in range(100))) == ["v"] * 100
    assert sorted(await asyncio.gather(*(COUNT(redis, ["count"], []) for _ in range(5)))) == [1, 2, 3, 4, 5]
    assert await redis.pipeline().get("k").get("k").execute() == ["v", "v"]
    await redis.rpush("list", "x")
    assert await redis.blpop("list", 5) == ("list", "x")
    async with redis.pubsub() as subscriber:
        await subscriber.subscribe("channel")
        assert (await subscriber.get_message(timeout=5))["type"] == "subscribe"


async def test_a_unix_socket(redis: Redis, valkey: Valkey) -> None:
    client = connect(f"{valkey.socket_url}?db=3")
    await all_ways(client)
    await client.set("only here", 1)
    assert await redis.exists("only here") == 0
    await client.aclose()


async def test_an_acl_user_of_another_database(redis: Redis, valkey: Valkey) -> None:
    await redis.acl_setuser("hook@line", enabled=True, passwords=["+p/ss:word"], keys=["*"], channels=["*"], categories=["+@all"])
    client = connect(f"redis://hook%40line:p%2Fss%3Aword@127.0.0.1:{valkey.port}/2")
    await all_ways(client)
    assert await client.acl_whoami() == "hook@line"
    assert {(one["user"], one["db"]) for one in await client.client_list() if one["user"] != "default"} == {("hook@line", "2")}
    await client.aclose()
    wrong = connect(f"redis://hook%40line:wrong@127.0.0.1:{valkey.port}/2")
    with pytest.raises(Refused):
        await wrong.get("k")
    await wrong.aclose()
    await redis.acl_deluser("hook@line")


# --- TLS -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of localhost and 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.fixture
async def secured(redis: Redis, valkey: Valkey, authority: Path) -> AsyncIterator[Proxy]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority)
    async with Proxy(valkey.port, tls=context) as proxy:
        yield proxy


async def test_tls(secured: Proxy, authority: Path) -> None:
    client = connect(f"rediss://127.0.0.1:{secured.port}?ssl_ca_certs={authority}")
    await all_ways(client)
    large = "x" * (3 << 20)
    assert await asyncio.gather(*(client.echo(large) for _ in range(5))) == [large] * 5
    secured.drop()
    assert await client.get("k") == "v"
    await client.aclose()


async def test_tls_with_a_certificate_that_nobody_vouches_for_is_refused(secured: Proxy) -> None:
    client = connect(f"rediss://127.0.0.1:{secured.port}", retries=0)
    with pytest.raises(NotSent, match="certificate verify failed"):
        await client.get("k")
    await client.aclose()


# --- Sentinel ------------------------------------------------------------------------------------------------------------


async def test_sentinel_names_the_primary_and_its_successors(tmp_path: Path) -> None:
    password = "s3cret"
    with Watched(tmp_path, password=password) as watched:
        places = f"127.0.0.1:{free_port()},127.0.0.1:{watched.port}"  # the first is away
        redis = connect(f"redis+sentinel://:{password}@{places}/{SERVICE}/1?sentinel_password={password}")
        await all_ways(redis)
        assert (await redis.config_get("port"))["port"] == str(watched.primary.port)

        # Handed over: the old primary lives on as a replica.
        await redis.set("n", 0)
        await redis.execute_command("WAIT", 1, 5000)
        await asyncio.to_thread(watched.fail_over)
        await until_on(redis, watched.replica.port)
        assert (await redis.blmove("a", "b", 0.01)) is None
        await all_ways_again(redis)

        # Killed: the sentinel finds out by itself.
        await until_replicated(redis)
        watched.replica.kill()
        await until_on(redis, watched.primary.port)
        await all_ways_again(redis)
        await redis.aclose()


async def until_on(redis: Store, port: int) -> None:
    """Write until it is that server that takes the writes."""
    async with asyncio.timeout(40):
        while True:
            with contextlib.suppress(NotSent, ReplyLost, *STORE_ERRORS):
                await redis.incr("n")
                if (await redis.config_get("port"))["port"] == str(port):
                    return
            await asyncio.sleep(0.05)


async def until_replicated(redis: Store) -> None:
    async with asyncio.timeout(40):
        while not await redis.execute_command("WAIT", 1, 1000):
            pass


async def all_ways_again(redis: Store) -> None:
    await redis.delete("count", "list")
    await all_ways(redis)


async def test_sentinels_that_are_away_or_know_nothing_are_a_clear_error(tmp_path: Path) -> None:
    with Watched(tmp_path) as watched:
        for places, service, said in (
            (f"127.0.0.1:{free_port()}", SERVICE, "Connect call failed"),
            (f"127.0.0.1:{watched.port}", "other", "knows no such service"),
        ):
            redis = connect(f"redis+sentinel://{places}/{service}", retries=0)
            with pytest.raises(NotSent, match=said):
                await redis.get("k")
            with pytest.raises(NotSent, match=said):
                await redis.blpop("list", 1)
            await redis.aclose()


def test_what_a_sentinel_url_says() -> None:
    found = sentinel.settings("rediss+sentinel://us%40er:p%2Fw@a,b:1,[::1]:2/main/3?sentinel_username=s&sentinel_password=q&ssl_ca_certs=/ca")
    primary = found.pop("connection_pool")
    assert found == {
        "username": "us@er",
        "password": "p/w",
        "db": 3,
        "ssl_ca_certs": "/ca",
        "connection_class": sentinel.SentinelManagedSSLConnection,
    }
    assert primary._sentinels == [("a", 26379), ("b", 1), ("::1", 2)]
    asked = {"username": "s", "password": "q", "ssl_ca_certs": "/ca", "ssl": True}
    assert asked.items() <= primary._settings.items()
    for wrong in ("redis+sentinel://a:1", "redis+sentinel:///main", "redis+sentinel://a:x/main", "redis+sentinel://a,,b/main"):
        with pytest.raises(ValueError, match=r"."):
            sentinel.settings(wrong)
