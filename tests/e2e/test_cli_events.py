"""`hookline events` against a running service and a real receiver."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import commands
from pipeline.client import Client
from tests.e2e.test_cli import hookline
from tests.support.receiver import receiving
from tests.support.service import Service, token

DATA = {"invoiceId": "i-1", "total": 90.5, "note": "[bold]ünlike"}
SCHEMA = {"type": "object", "required": ["invoiceId"], "properties": {"total": {"type": "number", "minimum": 0}}}


@pytest.mark.timeout(180)
async def test_a_type_of_ones_own_is_registered_sent_and_forgotten_from_the_terminal(tmp_path: Path) -> None:
    async with Service(tmp_path, {"events": {"strict": True}}) as service, receiving() as receiver:

        async def run(*arguments: str, code: int = 0, role: Any = "admin", said: bool = False) -> str:
            """What is shown; where it fails, or if `said`, what is said beside it."""
            environment = {"HOOKLINE_URL": service.url, "HOOKLINE_TOKEN": token(role=role)}
            done = await asyncio.to_thread(hookline, "events", *arguments, folder=tmp_path, **environment)
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr
            return done.stdout if code == 0 and not said else " ".join(done.stderr.replace("│", " ").split())

        async with Client(service.url, token()) as client:
            await client.create_endpoint(receiver.url, ["invoice.*"])
        assert re.search(r"job\.completed +hookline +A job is done", await run("types"))
        (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
        register = ["register", "invoice.paid", "--description", "An invoice was paid.", "--schema", "@schema.json"]
        assert "example.total: " in await run(*register, "--example", '{"total": -1}', code=1)
        shown = await run(*register, "--example", json.dumps(DATA))
        assert '"minimum": 0' in shown
        assert '"[bold]ünlike"' in shown
        assert await run("show", "invoice.paid") == shown
        assert re.search(r"^ *invoice\.paid +registered +\S+Z +An invoice was paid\.", (await run("types", "--own")).splitlines()[1])

        sent = (await run("send", "invoice.paid", json.dumps(DATA), "--key", "paid-i-1", role="service")).strip()
        received = await receiver.next(30)
        assert (received.id, received.event["data"]) == (sent, DATA)
        (tmp_path / "data.json").write_text(json.dumps(DATA))
        assert (await run("send", "invoice.paid", "@data.json", "--key", "paid-i-1", role="service")).strip() == sent
        assert " data.total: " in await run("send", "invoice.paid", '{"invoiceId": "i-1", "total": "many"}', code=1)
        suggested = "'invoice.payed' is not registered, which `events.strict` asks for; did you mean 'invoice.paid'?"
        assert suggested in await run("send", "invoice.payed", code=1)
        assert "needs a token of the role admin" in await run("forget", "invoice.paid", code=1, role="service")
        assert "forgotten" in await run("forget", "invoice.paid")
        assert "none is registered" in await run("types", "--own", said=True)


@pytest.mark.parametrize(
    ("arguments", "input", "said"),
    [
        (["send", "a.b", "{invoiceId: i-1}"], "", "this is not JSON (Expecting property name"),
        (["send", "a.b", "{invoiceId: i-1}"], "", """write it in single quotes: '{"invoiceId": "i-1", "total": 90.5}'"""),
        (["send", "a.b", "-"], "[1]", "should be an object such as"),
        (["register", "a.b", "--schema", "@nowhere.json"], "", "cannot read nowhere.json: No such file"),
    ],
)
def test_what_is_no_object_is_refused_before_anything_is_sent(arguments: list[str], input: str, said: str) -> None:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(commands("events"), ["events", *arguments], input=input)
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())
