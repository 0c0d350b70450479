"""What the store's scripts get in msgpack, as the store reads it."""

import msgpack
import pytest

from pipeline.store.scripts import pack_each


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_values_are_packed_one_after_the_other(count: int) -> None:
    values = [number % 300 for number in range(count)]
    unpacker = msgpack.Unpacker()
    unpacker.feed(pack_each(values))
    assert list(unpacker) == values
