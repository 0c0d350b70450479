"""All scenarios, and the scoreboard that they make."""

import time
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from tests.faults import crashes, hostile, promises
from tests.faults.scenario import SCENARIOS, Bench, Scenario
from tests.faults.server import Server, Unsupported

MODULES = (promises, hostile, crashes)
"""Which, by being imported, have noted their scenarios."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    scenario: Scenario
    held: bool | None
    """None: the server has no such feature."""
    seen: str
    seconds: float


async def find(scenario: Scenario, server: Server, *, full: bool) -> Finding:
    began = time.monotonic()
    try:
        seen = await scenario.run(Bench(server=server, full=full))
        held: bool | None = True
    except Unsupported:
        held, seen = None, "no such feature"
    except AssertionError as error:
        held, seen = False, str(error).split("\n")[0] or traceback.format_exc().strip().splitlines()[-2].strip()
    except Exception as error:
        held, seen = False, f"{type(error).__name__}: {error}"
    return Finding(scenario=scenario, held=held, seen=seen or "", seconds=time.monotonic() - began)


async def find_all(open_: Callable[[], AbstractAsyncContextManager[Server]], told: Callable[[Finding], None], *, full: bool) -> list[Finding]:
    """Every scenario against a server; those that kill it get one of their own."""
    findings = []

    def note(finding: Finding) -> None:
        findings.append(finding)
        told(finding)

    async with open_() as server:
        for scenario in SCENARIOS:
            if not scenario.kills:
                note(await find(scenario, server, full=full))
    for scenario in SCENARIOS:
        if scenario.kills:
            async with open_() as server:
                note(await find(scenario, server, full=full))
    return findings


def scoreboard(findings: list[Finding], name: str) -> str:
    """As a table in Markdown."""
    lines = [f"| | promise | {name} | seen |", "|---|---|---|---|"]
    group = ""
    for one in sorted(findings, key=lambda finding: SCENARIOS.index(finding.scenario)):
        first = one.scenario.group if one.scenario.group != group else ""
        group = one.scenario.group
        verdict = {True: "yes", False: "**no**", None: "–"}[one.held]
        lines.append(f"| {first} | {one.scenario.promise} | {verdict} | {one.seen} |")
    return "\n".join(lines) + "\n"
