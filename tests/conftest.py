"""Fixtures that every suite shares: a real Valkey for each pytest process and a clean store for each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from pipeline.store.connection import connect
from tests.support.valkey import Valkey


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
