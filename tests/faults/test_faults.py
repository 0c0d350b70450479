"""The harness against Hookline: every promise of the scoreboard holds."""

import ast
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults import hostile
from tests.faults.catalogue import SCENARIOS
from tests.faults.hookline import ROOT, Hookline
from tests.faults.scenario import Bench, Scenario
from tests.support import soak

pytestmark = pytest.mark.timeout(soak.size(120, 400))
STEADY = [scenario for scenario in SCENARIOS if not scenario.kills]
KILLING = [scenario for scenario in SCENARIOS if scenario.kills]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hookline]:
    async with Hookline(tmp_path_factory.mktemp("hookline")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def promises(server: Hookline) -> AsyncIterator[dict[str, asyncio.Task[str | None]]]:
    """Those that need nobody's memory measured, all at once: they have event types and receivers of their own."""
    tasks = {one.id: asyncio.create_task(one.run(Bench(server=server, full=soak.FULL))) for one in STEADY if one.group != hostile.GROUP}
    yield tasks
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("scenario", STEADY, ids=lambda scenario: scenario.id)
async def test_it_holds(scenario: Scenario, server: Hookline, promises: dict[str, asyncio.Task[str | None]]) -> None:
    if scenario.id in promises:
        print(await promises[scenario.id])
    else:
        await asyncio.wait(promises.values())
        print(await scenario.run(Bench(server=server, full=soak.FULL)))


@pytest.mark.parametrize("scenario", KILLING, ids=lambda scenario: scenario.id)
async def test_it_holds_through_crashes(scenario: Scenario, tmp_path: Path) -> None:
    async with Hookline(tmp_path) as server:
        print(await scenario.run(Bench(server=server, full=soak.FULL)))


def test_the_harness_knows_nothing_of_the_modules_that_it_tests() -> None:
    for path in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not [name for name in names if name.split(".")[0] in ("pipeline", "webhooks")], f"{path.name}: {names}"


def test_the_scoreboard_of_the_docs_has_every_promise_and_each_is_kept() -> None:
    page = (ROOT / "docs" / "webhooks.md").read_text()
    table = page.partition("<!-- scoreboard -->")[2].partition("<!-- /scoreboard -->")[0]
    rows = {cells[2].strip(): cells[3].strip() for cells in (line.split("|") for line in table.splitlines()) if len(cells) > 4}
    rows = {promise: verdict for promise, verdict in rows.items() if promise not in ("promise", "---")}
    assert rows == {scenario.promise: "yes" for scenario in SCENARIOS}, "write it with: python -m tests.faults --write"


FEATURES = (
    *("Endpoint management", "Event-type filter", "Payload filter", "Signing", "Rotation overlap", "Asymmetric", "Retry default", "Retry-After"),
    *(
        "410 Gone",
        "Auto-disable",
        "Circuit breaker",
        "Per-endpoint rate",
        "FIFO",
        "Publish idempotency",
        "Replay",
        "Attempt log",
        "Retention",
        "SSRF",
    ),
    *("Redirects", "Timeout", "mTLS / OAuth2", "Proxy / static IP", "Custom headers", "Transformations", "Pull / polling", "Portal UI"),
    *("Local-dev CLI", "Catalogue / schema", "Multi-tenancy", "Metrics", "Operational events", "Other destinations", "Thin / full"),
)
"""Of the comparison of webhook servers."""


def test_each_feature_is_compared() -> None:
    rows = (ROOT / "docs" / "webhooks.md").read_text().partition("\n## Compared\n")[2].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("| ")]
    assert tuple(row[0] for row in cells if row[0]) == FEATURES
    assert all(len(row) == 3 and row[2] for row in cells)
