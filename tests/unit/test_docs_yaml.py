"""Every YAML block of the documentation is loaded as a reader would load it, so that no example can rot."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline import configfile

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
OUTLINE = "{…}"
"""Stands in a block that shows the shape of a file and not a file."""


def blocks() -> list[tuple[str, str]]:
    pages = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if page.exists()]
    return [
        (f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}", match[1])
        for page in pages
        for text in (page.read_text(),)
        for match in BLOCK.finditer(text)
        if OUTLINE not in match[1] and configuration(match[1])
    ]


def configuration(text: str) -> bool:
    """Whether a block is of config.yaml: pages about other things (Compose, CI) show YAML of theirs."""
    return bool(re.search(r"^(workflows|queues|webhooks|notifications|storage|retention|uploads|redis|auth|server|compliance):", text, re.MULTILINE))


def test_the_documentation_has_examples() -> None:
    assert {place.split(":")[0] for place, _ in blocks()} >= {"workflows.md", "configuration.md"}


@pytest.mark.parametrize(("place", "text"), blocks(), ids=[place for place, _ in blocks()])
def test_an_example_is_valid(place: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / place.replace(":", "-")
    path.write_text(text)
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)", text), "x" * 44)
    config = configfile.load(path, variables)
    assert set(config.workflows) == set((yaml.safe_load(text) or {}).get("workflows") or {})
