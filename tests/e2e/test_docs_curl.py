"""Every curl command of the documentation, run as it is written, is answered as the page says: with what was asked for."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.support.api import DOCUMENT, DOCUMENT_UPLOAD, Api, serving

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
SETTINGS = "\n".join(re.findall(r"^(?:auth|json)=.*", (DOCS / "api.md").read_text(), re.MULTILINE))
CURL = """curl() { command curl --max-time 20 -o /dev/null -w '%{http_code} %{method} %{url_effective}\\n' "$@"; }"""


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(redis, tmp_path / "storage", workflows={"document-upload": DOCUMENT_UPLOAD}) as api:
        yield api


@pytest.mark.parametrize("page", ["api.md", "webhooks-events.md", "webhooks-operating.md"])
async def test_a_command_is_answered(api: Api, tmp_path: Path, page: str) -> None:
    (tmp_path / "sample.pdf").write_bytes(b"%PDF-1.4\n")
    text = (DOCS / page).read_text()
    blocks = [block for block in BLOCK.findall(text) if "curl" in block and "/events/stream" not in block]
    assert blocks
    for block in blocks:
        run = (await api.call("POST", "/api/workflows/document-upload/runs", body={"input": DOCUMENT})).json["runId"]
        endpoint = (await api.call("POST", "/api/webhooks/endpoints", as_="admin", body={"url": "http://127.0.0.1:9/hooks"})).json["id"]
        command = re.sub(r"run_01k\w+", run, block)
        command = re.sub(r"ep_3f9c\w+", endpoint, command)
        command = re.sub(r"https://(analysis\.)?example\.com", "http://127.0.0.1:9", command).replace("| jq .graph", "")
        for status, line in await answers(f"id={endpoint}; delivery=dlv_none\n{command}", api, tmp_path):
            # No delivery is made here; a run that goes on cannot be retried, nor its document erased: those are answers, too.
            goes_on = line.endswith("/retry") or (" DELETE " in line and "/api/documents/" in line)
            expected = 404 if re.search(r"/(deliveries|replays)/", line) else 409 if goes_on else 200
            assert status == expected or (expected == 200 and status < 300), f"{status} {line}\n{command}"


async def answers(script: str, api: Api, folder: Path) -> list[tuple[int, str]]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOOKLINE_URL": api.url, "HOOKLINE_TOKEN": api.token("root", "admin")}
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", f"{SETTINGS}\n{CURL}\n{script}", env=environment, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return [(int(line.split()[0]), line) for line in out.decode().splitlines() if line]
