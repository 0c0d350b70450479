"""The guard: every address and URL of the vectors is judged as they say, on the sender's own way to the socket."""

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from webhooks.dialer import Dialer
from webhooks.errors import InvalidInput, RefusedAddress
from webhooks.guard import Guard
from webhooks.resolver import AddrInfo
from webhooks.sender import Request, Sender
from webhooks.signing import generate_secret, key_of

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/ssrf.json").read_text())
URLS = [vector for vector in VECTORS["url"] if vector["url"].startswith("http://") and vector["strict"] == "block"]


class Recorder:
    """Stands where sockets are made: notes the address and ends the attempt before a packet leaves."""

    def __init__(self) -> None:
        self.dialled: list[str] = []

    def __call__(self, info: AddrInfo) -> socket.socket:
        self.dialled.append(info[4][0])
        raise OSError("recorded instead of dialled")


def request(url: str) -> Request:
    return Request(url=url, event="evt_1", body=b"{}", keys=[key_of(generate_secret())], headers={}, timeout=5.0, trace="t")


def literal(address: str) -> str:
    return f"http://[{address}]/" if ":" in address else f"http://{address}/"


@pytest.mark.parametrize("vector", VECTORS["ip"], ids=lambda vector: vector["address"])
async def test_addresses(vector: dict[str, Any]) -> None:
    address, refused = vector["address"], vector["strict"] == "block"
    recorder = Recorder()
    guard = Guard(make_socket=recorder)
    assert bool(guard.refusal(address)) is refused
    async with Sender(guard) as sender:
        outcome = await sender.send(request(literal(address)), 0)
    assert outcome.status is None
    if refused:
        assert recorder.dialled == []
        assert "is refused" in str(outcome.error)
        with pytest.raises(RefusedAddress):
            await guard.check_url(literal(address))
    else:
        assert len(recorder.dialled) == 1
        assert await guard.check_url(literal(address))


@pytest.mark.parametrize("vector", URLS, ids=lambda vector: vector["note"])
async def test_urls(vector: dict[str, Any]) -> None:
    recorder = Recorder()
    guard = Guard(make_socket=recorder)
    async with Sender(guard) as sender:
        outcome = await sender.send(request(vector["url"]), 0)
    assert recorder.dialled == []
    assert outcome.status is None
    assert outcome.error
    with pytest.raises(RefusedAddress):
        await guard.check_url(vector["url"])


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "/hook", "ftp://example.com/", "file:///etc/passwd", "gopher://x/", "http://", "http:///x", "http://user@example.com/",
     "http://user:password@example.com/", "http://:password@example.com/", "http://example.com:99999/", "http://example.com:0/",
     "http://example.com/#part", "http://[::1", "http://1.1.1.1/" + "x" * 2048, "javascript:alert(1)"],
)  # fmt: skip
async def test_what_is_no_url_for_a_webhook(url: str) -> None:
    with pytest.raises(RefusedAddress) as caught:
        await Guard().check_url(url)
    assert "password@" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["168.63.129.16", "100.100.100.200", "192.0.0.192", "fe80::1%eth0", "::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "4000::1", "::", "not an address"],
)
def test_more_that_is_refused(address: str) -> None:
    assert Guard().refusal(address)


def test_the_operator_may_allow_networks() -> None:
    guard = Guard(["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "127.0.0.1", "fd12::1", "8.8.8.8"):
        assert guard.refusal(address) is None
    for address in ("127.0.0.2", "192.168.0.1", "fe80::1", "::1", "169.254.169.254"):
        assert guard.refusal(address)


@pytest.mark.parametrize("network", ["10.0.0.0/40", "10.0.0.1/8", "internal", ""])
def test_what_is_no_network(network: str) -> None:
    with pytest.raises(InvalidInput, match="not a network"):
        Guard([network])


class Names:
    """Resolves every name to given addresses; each look-up to the next of several lists, and the last one for good."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self._answers = list(answers)

    async def resolve(self, host: str, port: int) -> list[AddrInfo]:
        addresses = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [info for one in addresses for info in socket.getaddrinfo(one, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)]

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("addresses", "dials"),
    [(("8.8.8.8",), True), (("8.8.8.8", "10.0.0.1"), False), (("10.0.0.1", "8.8.8.8"), False), (("2606:4700:4700::1111", "::1"), False)],
)
async def test_a_name_with_any_refused_address_is_refused(addresses: tuple[str, ...], dials: bool) -> None:
    recorder = Recorder()
    guard = Guard(make_socket=recorder)
    async with Sender(guard, dialer=Dialer(guard, resolver=Names(addresses))) as sender:
        outcome = await sender.send(request("http://rebinding.test/"), 0)
    assert bool(recorder.dialled) is dials
    assert dials or "is refused" in str(outcome.error)


async def test_a_name_that_changes_its_addresses_is_judged_at_each_dial() -> None:
    recorder = Recorder()
    guard = Guard(make_socket=recorder)
    async with Sender(guard, dialer=Dialer(guard, resolver=Names(("8.8.8.8",), ("169.254.169.254",)))) as sender:
        first, second = [await sender.send(request("http://rebinding.test/"), 0) for _ in range(2)]
    assert recorder.dialled == ["8.8.8.8"]
    assert "cannot connect" in str(first.error)
    assert "169.254.169.254 is refused" in str(second.error)


class Blind(Guard):
    """Believes what the resolver says."""

    def require(self, addresses: Sequence[str]) -> None: ...


@pytest.mark.parametrize("addresses", [("10.0.0.1",), ("169.254.169.254", "10.0.0.1", "::1")])
async def test_an_address_that_passed_the_resolver_is_judged_again_at_the_socket(addresses: tuple[str, ...]) -> None:
    recorder = Recorder()
    guard = Blind(make_socket=recorder)
    async with Sender(guard, dialer=Dialer(guard, resolver=Names(addresses))) as sender:
        outcome = await sender.send(request("http://rebinding.test/"), 0)
    assert recorder.dialled == []
    assert "is refused" in str(outcome.error)


LAST = "ffff:ffff:ffff:ffff:ffff:ffff"


@pytest.mark.parametrize(
    ("before", "first", "last", "after"),
    [
        (None, "0.0.0.0", "0.255.255.255", "1.0.0.0"),
        ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
        ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
        ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
        ("168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17"),
        ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
        ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
        ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"),
        ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"),
        ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"),
        ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
        ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"),
        ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"),
        ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"),
        ("223.255.255.255", "224.0.0.0", "255.255.255.255", None),
        (None, "::", f"1fff:ffff:{LAST}", "2000::"),
        (f"2000:ffff:{LAST}", "2001::", f"2001:1ff:{LAST}", "2001:200::"),
        (f"2001:db7:{LAST}", "2001:db8::", f"2001:db8:{LAST}", "2001:db9::"),
        (f"2001:ffff:{LAST}", "2002::", f"2002:ffff:{LAST}", "2003::"),
        (f"3ffe:ffff:{LAST}", "3fff::", f"3fff:fff:{LAST}", "3fff:1000::"),
        (f"3fff:ffff:{LAST}", "4000::", f"ffff:ffff:{LAST}", None),
    ],
)
def test_each_network_is_refused_from_its_first_address_to_its_last(before: str | None, first: str, last: str, after: str | None) -> None:
    guard = Guard()
    for refused in (first, last):
        assert guard.refusal(refused), refused
        if "." in refused:
            assert guard.refusal(f"::ffff:{refused}"), refused
    for allowed in (before, after):
        assert allowed is None or guard.refusal(allowed) is None, allowed
