"""The resolver: one question per name at a time, answers kept for a moment, silent name servers that hold up nobody else."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from webhooks import resolver
from webhooks.resolver import Resolver

_real = socket.getaddrinfo


class Names:
    """Stands for getaddrinfo: knows names below `.test`; those that are `silent` answer when let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let_go = threading.Event()

    def __call__(self, host: str, port: int, **options: Any) -> Any:
        if options["flags"] & socket.AI_NUMERICHOST:
            return _real(host, port, **options)
        self.asked.append(host)
        if host.startswith("silent"):
            self.let_go.wait(10)
        if host.startswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return _real("127.0.0.1", port, type=socket.SOCK_STREAM)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    yield names
    names.let_go.set()


async def test_a_name_is_asked_once_at_a_time_and_then_remembered(names: Names) -> None:
    found = Resolver()
    asking = [asyncio.create_task(found.resolve("silent.test", 80)) for _ in range(3)]
    await found.resolve("other.test", 80)
    asking[0].cancel()
    names.let_go.set()
    assert [info[4] for one in await asyncio.gather(*asking[1:]) for info in one] == [("127.0.0.1", 80)] * 2
    await found.resolve("silent.test", 80)
    assert names.asked.count("silent.test") == 1
    found.close()


async def test_it_is_forgotten_again(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "TTL", 0.0)
    found = Resolver()
    for _ in range(2):
        await found.resolve("other.test", 80)
    assert names.asked == ["other.test"] * 2
    found.close()


async def test_names_without_an_address_are_asked_for_again(names: Names) -> None:
    found = Resolver()
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await found.resolve("unknown.test", 80)
    assert names.asked == ["unknown.test"] * 2
    found.close()


async def test_silent_names_hold_up_no_other(names: Names) -> None:
    found = Resolver()
    silent = [asyncio.create_task(found.resolve(f"silent{n}.test", 80)) for n in range(resolver.THREADS - 1)]
    assert await found.resolve("other.test", 80)
    names.let_go.set()
    await asyncio.gather(*silent)
    found.close()


@pytest.mark.parametrize(("host", "address"), [("127.1", "127.0.0.1"), ("2130706433", "127.0.0.1"), ("::1", "::1"), ("10.0.0.1", "10.0.0.1")])
async def test_what_is_an_address_is_asked_of_nobody(names: Names, host: str, address: str) -> None:
    found = Resolver()
    assert [info[4][0] for info in await found.resolve(host, 80)] == [address]
    assert names.asked == []
    found.close()
