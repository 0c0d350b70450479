"""Times as the wire carries them."""

import pytest

from pipeline.units import iso


@pytest.mark.parametrize(
    ("ms", "written"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_769_851_800_007, "2026-01-31T09:30:00.007Z"),
        (1_769_851_800_999, "2026-01-31T09:30:00.999Z"),
        (1_769_851_801_000, "2026-01-31T09:30:01.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_is_written_to_the_millisecond(ms: int, written: str) -> None:
    assert iso(ms) == written
