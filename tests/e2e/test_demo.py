"""`hookline demo` as `make demo` runs it: as expected it exits 0, one demo beside another; anything else it names, and exits 1."""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from pipeline.client import Client
from pipeline.errors import Unavailable
from tests.support.events import check_told
from tests.support.service import ROOT


async def demo(checkout: Path = ROOT) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipeline.cli", "demo",
        cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode, out.decode()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """This checkout, with examples that a test may change."""
    for name in ("pipeline", "webhooks", "config.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


@pytest.mark.timeout(120)
async def test_two_demos_at_once_each_end_as_expected() -> None:
    for code, shown in await asyncio.gather(demo(), demo()):
        assert code == 0, shown
        last = shown.strip().splitlines()[-1]
        found = re.fullmatch(r"6 of 6 as expected · (\d+) webhooks received, (\d+) verified", last)
        assert found, shown
        # 8 for each run that completed (five of them, the original system's own call among them), 6 for each that failed.
        assert found[1] == found[2] == "52"
        assert "quarterly-report.pdf: webhook workflow.completed received, signature verified" in shown
        assert "invoice.pdf is declared as application/pdf, but its bytes are image/png" in shown
        assert "Traceback" not in shown
        assert re.search(r"demo-doc-123 +completed +\d+ \(\d+\) completed completed 8/8", shown)


@pytest.mark.timeout(120)
async def test_one_that_is_kept_stays_up_until_it_is_interrupted() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipeline.cli", "demo", "--keep", cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        # Commands that a shell has put into the background ignore Ctrl-C, and so do their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout
    shown = ""
    while "HOOKLINE_TOKEN=" not in shown:
        line = await process.stdout.readline()
        assert line, shown
        shown += line.decode()
    url, key = re.search(r"Still up: (\S+)", shown)[1], re.search(r"HOOKLINE_TOKEN=(\S+)", shown)[1]  # type: ignore[index]  # where nothing is found the test fails here
    async with Client(url, key) as client:
        assert len([run async for run in client.runs()]) == 7
        told = (await client.events(types=("*", "job.progress"), limit=500))["items"]
        assert len(told) > 50
        for event in told:
            check_told(event["type"], event["data"])
        process.send_signal(signal.SIGINT)
        rest, _ = await process.communicate()
        assert (process.returncode, "Traceback" in rest.decode()) == (0, False)
        with pytest.raises(Unavailable):
            await client.ready()


@pytest.mark.timeout(120)
async def test_a_document_that_does_not_end_as_expected_is_named(checkout: Path) -> None:
    file = checkout / "examples" / "documents" / "expected.json"
    expected = json.loads(file.read_text())
    expected["quarterly-report.pdf"]["score"] = [0, 10]
    expected["customer-export.docx"]["findings"] = 1000
    expected["meeting-notes.txt"]["run"] = "failed"
    expected["contract.docx"]["reason"] = "another reason"
    file.write_text(json.dumps(expected))
    code, shown = await demo(checkout)
    assert code == 1
    assert shown.strip().splitlines()[-1] == "2 of 6 as expected · 52 webhooks received, 52 verified"
    assert re.search(r"✗ quarterly-report.pdf: its score is \d+, not 0 to 10", shown)
    assert re.search(r"✗ customer-export.docx: \d+ findings, fewer than 1000", shown)
    assert "✗ meeting-notes.txt: the run is completed, not failed" in shown
    assert "✗ contract.docx: it failed for another reason than 'another reason'" in shown


async def test_a_subscriber_that_does_not_start_is_a_sentence(checkout: Path) -> None:
    (checkout / "examples" / "analysis-service" / "app.py").write_text("raise SystemExit('no such library')")
    code, shown = await demo(checkout)
    assert code == 1
    assert "no such library" in shown
    assert "\nerror: the subscriber did not start (" in shown
    assert "Traceback" not in shown


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("line", "instead", "reason", "last"),
    [
        ("app[SECRET] = Webhook(secret)", "app[SECRET] = Webhook('whsec_' + 'QUFB' * 8)", "answered 401", r"(\d+) webhooks received, 0 verified"),
        ("    body = await request.read()", "    return web.Response(status=503)", "answered 503", r"0 webhooks received, 0 verified"),
        ("    body = await request.read()", "    return web.Response(status=410)", "(answered 410|gone)", r"0 webhooks received, 0 verified"),
    ],
    ids=["another-secret", "unavailable", "gone"],
)
async def test_a_subscriber_that_does_not_take_its_webhooks_is_a_failure(checkout: Path, line: str, instead: str, reason: str, last: str) -> None:
    app = checkout / "examples" / "analysis-service" / "app.py"
    text = app.read_text()
    assert line in text
    app.write_text(text.replace(line, instead))
    code, shown = await demo(checkout)
    assert code == 1
    assert re.search(rf"✗ the subscriber did not take [a-z.]+: .*{reason}", shown), shown
    assert re.fullmatch(rf"6 of 6 as expected · {last}", shown.strip().splitlines()[-1])
