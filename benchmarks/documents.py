"""What each hostile document costs: measured in the real child process, written into the table of docs/documents.md."""

import asyncio
import platform
import tempfile
from pathlib import Path

from tests.support.attempts import Attempt, attempts

PAGE = Path(__file__).parents[1] / "docs" / "documents.md"
HEAD = "| name | document | what happened | seconds | MiB |\n|---|---|---|---|---|\n"
BEGIN, END = "<!-- begin: make bench-documents -->\n", "<!-- end -->\n"


def row(attempt: Attempt) -> str:
    # As the reason names the file, and the table has that in its first column.
    reason = (attempt.reason or "").replace(attempt.document.filename, "…").replace("|", "\\|")
    warnings = "; ".join((attempt.result or {}).get("warnings", []))[:150].replace("|", "\\|")
    outcome = f"failed: {reason}" if attempt.reason else "completed" + (f", with the warning {warnings}" if warnings else "")
    return f"| `{attempt.document.name}` | {attempt.document.what} | {outcome} | {attempt.seconds:.2f} | {attempt.mib} |\n"


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(attempt) async for attempt in attempts(Path(folder))]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    where = f"Measured on {platform.machine()} with Python {platform.python_version()}.\n\n"
    PAGE.write_text(before + BEGIN + where + HEAD + "".join(rows) + END + after)
    print(f"{len(rows)} documents; the table is in {PAGE}")


if __name__ == "__main__":
    asyncio.run(main())
