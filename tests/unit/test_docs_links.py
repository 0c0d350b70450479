"""Every link of the documentation leads to a page, and to a heading of it, that is there."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for pattern in ("*.md", "docs/*.md", "docker/*.md", "examples/*/*.md") for page in ROOT.glob(pattern))
BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


@cache
def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_somewhere(page: Path) -> None:
    links = LINK.findall(BLOCK.sub("", page.read_text()))
    dead = []
    for path, anchor in links:
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in headings(target)):
            dead.append(f"{path}#{anchor}")
    assert not dead


def test_a_page_that_the_sources_name_is_there() -> None:
    sources = [source for folder in ("pipeline", "webhooks", "tests", "benchmarks") for source in (ROOT / folder).rglob("*.py")]
    named = {(source.name, page) for source in sources for page in re.findall(r"docs/[\w-]+\.md", source.read_text())}
    assert named
    assert not {(name, page) for name, page in named if not (ROOT / page).exists()}
