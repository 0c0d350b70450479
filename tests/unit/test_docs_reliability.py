"""docs/reliability.md: each test that it names exists, and each row of its hazards names one or says why it needs none."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text()
TESTS = {name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)}


def test_each_test_that_it_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 60
    assert named - TESTS == set()


def test_each_hazard_has_a_test_or_a_reason() -> None:
    rows = [line.split(" | ") for line in PAGE.splitlines() if re.match(r"\| [HPMLN]\d+ \|", line)]
    assert [cells[0].removeprefix("| ") for cells in rows if not ("`test_" in cells[-1] or cells[-1].startswith("none: "))] == []
    for group, least in {"H": 7, "P": 12, "M": 8, "L": 12, "N": 9}.items():
        numbers = [int(cells[0][3:]) for cells in rows if cells[0].startswith(f"| {group}")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= least
