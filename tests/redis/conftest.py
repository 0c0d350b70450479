"""Fixtures of the tests that need a store and no service."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.support.bench import Bench, opened
from tests.support.valkey import Valkey


@pytest.fixture
async def bench(valkey: Valkey, redis: Redis) -> AsyncIterator[Bench]:
    async with opened(valkey) as made:
        yield made
