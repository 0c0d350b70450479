"""`make bench` at its smallest: every part runs against real Node, counts what was done, and writes its table and its picture."""

import asyncio
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.node import node
from tests.support.service import ROOT

WORK = ("no-op jobs/s", "worker CPU per job", "3-step chained runs/s", "accepted `POST /api/jobs`", "deliveries/s, 1 KiB")
PARTS = "worker,enqueue,chains,api,deliveries,waiting"
"""`durable` is `worker` again, on a store with other settings."""
SANE = (0.02, 50.0)
"""So small a benchmark on a busy machine says nothing of speed; beyond this, something else was counted on one side."""


async def bench(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode is not None
    return process.returncode, said


@pytest.mark.timeout(400)  # the first time, npm fetches the opponents
async def test_each_part_runs_and_the_results_are_written(tmp_path: Path) -> None:
    node()
    code, said = await bench("--smoke", "--only", PARTS, "--out", str(tmp_path))
    assert code == 0, said[-4000:]
    ratios = json.loads((tmp_path / "bench.json").read_text())["ratios"]
    page = (tmp_path / "bench.md").read_text()
    for work in WORK:
        found = [ratio for ratio in ratios if ratio["work"].startswith(work)]
        assert found, f"{work} is not among the ratios"
        for ratio in found:
            assert SANE[0] < ratio["found"]["median"] < SANE[1], ratio
            assert ratio["work"] in page
    bars = ElementTree.parse(tmp_path / "bench.svg").getroot().iter("{http://www.w3.org/2000/svg}rect")
    assert all(float(bar.attrib["width"].rstrip("%")) > 0 for bar in bars)


async def test_an_unknown_part_is_refused() -> None:
    code, said = await bench("--only", "worker,nonsense")
    assert (code, "no such part: nonsense" in said) == (2, True), said
