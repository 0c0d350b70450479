"""The examples of docs/webhooks-*.md: every type has one, in the form that subscribers receive, and the Python ones verify."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pipeline.catalogue import OWN
from webhooks.explain import Verdict
from webhooks.matching import check_pattern
from webhooks.selecting import thin
from webhooks.service import now_ms
from webhooks.signing import key_of, signature_header

DOCS = Path(__file__).parents[2] / "docs"
RECEIVING, EVENTS, OPERATING = ((DOCS / f"webhooks-{page}.md").read_text() for page in ("receiving", "events", "operating"))
EXAMPLES = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", EVENTS, re.DOTALL | re.MULTILINE)]


def test_the_examples_are_those_of_the_catalogue() -> None:
    assert [event.body() for event in OWN] == EXAMPLES


def test_the_thin_examples_are_what_is_sent() -> None:
    for event in OWN:
        assert f"| `{event.type}` | `{json.dumps(thin(event.example))}` |" in EVENTS


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["type"])
def test_an_example_has_the_form_of_an_event(example: dict[str, Any]) -> None:
    assert list(example) == ["type", "timestamp", "data"]
    check_pattern(example["type"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", example["timestamp"])
    assert isinstance(example["data"], dict)


@pytest.mark.parametrize(("tampered", "status"), [(False, 204), (True, 401)])
@pytest.mark.parametrize("library", ["standardwebhooks", "webhooks.receiver"])
async def test_a_python_example_runs(library: str, tampered: bool, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (source,) = [block for block in re.findall(r"^```python\n(.*?)^```", RECEIVING, re.DOTALL | re.MULTILINE) if f"from {library} import" in block]
    names: dict[str, Any] = {}
    exec(source, names)
    (secret,) = set(re.findall(r"whsec_[A-Za-z0-9+/]{32}", source))
    app = web.Application()
    app.router.add_post("/", names["hook"])
    body = json.dumps(EXAMPLES[0]).encode()
    timestamp = now_ms() // 1000
    signature = signature_header([key_of(secret)], "evt_1", timestamp, body)
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(timestamp), "webhook-signature": signature}
    async with TestClient(TestServer(app)) as client:
        answers = [await client.post("/", data=body + b" " * tampered, headers=headers) for _ in range(2)]
    assert [answer.status for answer in answers] == [status] * 2
    if database := names.get("database"):
        assert database.execute("SELECT count(*) FROM results").fetchone() == (0 if tampered else 1,)
        database.close()


def test_each_verdict_of_an_explanation_is_in_the_table() -> None:
    (table,) = re.findall(r"^\| verdict \|.*?\n\n", OPERATING, re.DOTALL | re.MULTILINE)
    named = {verdict for row in table.strip().splitlines()[2:] for verdict in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    assert named == set(Verdict)
