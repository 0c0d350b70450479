"""`python -m tests.faults [--full] [--write]`: the scoreboard, at the terminal and into docs/webhooks.md."""

import argparse
import asyncio
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.faults.catalogue import Finding, find_all, scoreboard
from tests.faults.hookline import ROOT, Hookline

PAGE = ROOT / "docs" / "webhooks.md"
MARKS = re.compile(r"(<!-- scoreboard -->\n).*?(<!-- /scoreboard -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs every scenario against a server and shows which promises held.")
    parser.add_argument("--full", action="store_true", help="with the shipped time limits of 15 s (CI: 1 s)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/webhooks.md")
    asked = parser.parse_args()
    console = Console()

    def told(finding: Finding) -> None:
        verdict = {True: "[green]yes[/]", False: "[bold red]no[/] ", None: "–  "}[finding.held]
        console.print(f"{verdict} {finding.scenario.group}: {finding.scenario.promise} [dim]{finding.seen} ({finding.seconds:.1f} s)[/]")

    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(1_000))
        findings = asyncio.run(find_all(lambda: Hookline(Path(folder) / str(next(numbers))), told, full=asked.full))
    if asked.write:
        table = scoreboard(findings, Hookline.name)
        PAGE.write_text(MARKS.sub(lambda found: found[1] + table + found[2], PAGE.read_text()))
    held = sum(finding.held is True for finding in findings)
    console.print(f"[bold]{held} of {len(findings)} promises held[/]")
    return 0 if held == len(findings) else 1


if __name__ == "__main__":
    sys.exit(main())
