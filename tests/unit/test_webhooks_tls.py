"""TLS to receivers: to who proves its name, by an authority that is trusted, and not below 1.2."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.support.raw_receiver import Server, ok
from tests.support.sent import GUARD, Run, both_loops, send
from tests.support.tls import Authority
from webhooks.dialer import Dialer
from webhooks.sender import Sender


@both_loops
def test_tls(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path)
        async with Server(ok, authority.server()) as server, Sender(GUARD, dialer=Dialer(GUARD, tls=authority.client())) as sender:
            first, second = [await send(sender, server.url()) for _ in range(2)]
        assert (first.status, first.error, second.status) == (200, None, 200)
        assert first.phases
        assert isinstance(first.phases.tls, float)
        assert (first.reused, second.reused, server.accepted) == (False, True, 1)

    run(scenario())


@both_loops
@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ({"expired": True}, "certificate has expired"),
        ({"name": "other.test"}, "IP address mismatch, certificate is not valid for '127.0.0.1'."),
        ({"own": True}, "self-signed certificate"),
    ],
)
def test_a_certificate_that_proves_nothing(run: Run, tmp_path: Path, certificate: dict[str, Any], reason: str) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path)
        async with Server(ok, authority.server(**certificate)) as server, Sender(GUARD, dialer=Dialer(GUARD, tls=authority.client())) as sender:
            outcome = await send(sender, server.url())
        assert outcome.status is None
        assert outcome.error == f"TLS failed with 127.0.0.1: {reason}"
        assert server.requests == []

    run(scenario())


@both_loops
def test_an_authority_that_nobody_named_is_not_trusted_and_one_of_the_environment_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)

    async def scenario() -> None:
        async with Server(ok, authority.server()) as server:
            async with Sender(GUARD) as sender:
                assert "unable to get local issuer certificate" in str((await send(sender, server.url())).error)
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
            async with Sender(GUARD) as sender:
                assert (await send(sender, server.url())).error is None

    run(scenario())


@both_loops
def test_a_name_is_told_to_the_receiver_and_checked(run: Run, tmp_path: Path) -> None:
    """By SNI, without which many receivers cannot choose their certificate."""
    told: list[str | None] = []

    async def scenario() -> None:
        authority = Authority(tmp_path)
        tls = authority.server(name="localhost")
        tls.sni_callback = lambda _, name, context: told.append(name)
        async with Server(ok, tls) as server, Sender(GUARD, dialer=Dialer(GUARD, tls=authority.client())) as sender:
            outcome = await send(sender, server.url("localhost"))
            assert (outcome.error, told) == (None, ["localhost"])
            assert b"\r\nhost: localhost:%d\r\n" % server.port in server.requests[0]

    run(scenario())


@both_loops
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_tls_is_refused(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path)
        client, tls = authority.client(), authority.server()
        dialer = Dialer(GUARD, tls=client)
        assert client.minimum_version is ssl.TLSVersion.TLSv1_2
        tls.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        tls.maximum_version = ssl.TLSVersion.TLSv1_1
        tls.set_ciphers("ALL:@SECLEVEL=0")
        async with Server(ok, tls) as server, Sender(GUARD, dialer=dialer) as sender:
            assert str((await send(sender, server.url())).error).startswith("TLS failed with 127.0.0.1")

    run(scenario())
