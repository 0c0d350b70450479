"""The same scenarios at two sizes: CI's, and the whole (`make soak`), which also writes down what it saw."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

FULL = bool(os.environ.get("HOOKLINE_SOAK"))
REPORT = Path(__file__).parents[2] / "benchmarks" / "results" / "soak.md"


def size(ci: int, full: int) -> int:
    return full if FULL else ci


def report(scenario: str, lines: list[str]) -> None:
    """Print what was seen; at full size also put it into benchmarks/results/soak.md, in the place of an earlier run's."""
    print("\n".join(lines))
    if not FULL:
        return
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    text = REPORT.read_text() if REPORT.exists() else "# Soak\n\nWhat `make soak` saw when it was last run, scenario by scenario.\n"
    head, *sections = text.split("\n## ")
    kept = [section for section in sections if not section.startswith(f"{scenario}\n")]
    when = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    kept.append(f"{scenario}\n\n{when}\n\n" + "\n".join(f"- {line}" for line in lines) + "\n")
    REPORT.write_text("\n## ".join([head.rstrip() + "\n", *(section.rstrip() + "\n" for section in kept)]))
