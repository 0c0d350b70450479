"""Fixtures that every suite shares: a real Valkey for each pytest process and a clean store for each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
from redis.asyncio import Redis

from pipeline.store.connection import connect
from tests.support.valkey import Valkey

# How long an example takes is the machine's: its default of 200 ms is one pause of a process.
hypothesis.settings.register_profile("any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A private Valkey on a unix socket and a free port, without persistence; tests of durability start their own."""
    with Valkey(Path(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    """A client of the emptied store, as the service itself makes it."""
    client = connect(valkey.socket_url)
    await client.flushall()
    yield client
    await client.aclose()
