"""`hookline demo` as `make demo` runs it: every document as expected, every webhook verified, one demo beside another."""

import asyncio
import re
import sys

import pytest

from tests.support.service import ROOT


async def demo() -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipeline.cli", "demo", cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


@pytest.mark.timeout(120)
async def test_two_demos_at_once_each_end_as_expected() -> None:
    for shown in await asyncio.gather(demo(), demo()):
        last = shown.strip().splitlines()[-1]
        found = re.fullmatch(r"6 of 6 as expected · (\d+) webhooks received, (\d+) verified", last)
        assert found, shown
        # 8 for each run that completed (five of them, the original system's own call among them), 6 for each that failed.
        assert found[1] == found[2] == "52"
        assert "quarterly-report.pdf: webhook workflow.completed received, signature verified" in shown
        assert "invoice.pdf is declared as application/pdf, but its bytes are image/png" in shown
        assert "Traceback" not in shown
        assert re.search(r"demo-doc-123 +completed +\d+ \(\d+\) completed completed 8/8", shown)
