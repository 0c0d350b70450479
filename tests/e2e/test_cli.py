"""The commands as people type them: what they print, and their exit codes (0 done, 1 failed, 2 usage or configuration)."""

import asyncio
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import jwt
import pytest
import typer
import yaml
from redis.asyncio import Redis
from typer.core import TyperGroup

from pipeline.cli import COMMANDS
from tests.support.api import NOTIFICATION, serving
from tests.support.service import JWT_SECRET, ROOT

SHIPPED = (ROOT / "config.yaml").read_text()


def hookline(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOOKLINE_", "REDIS_", "BULLMQ_"))}
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=folder, env=kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_shipped_configuration_is_valid(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(SHIPPED)
    done = hookline("validate", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "document-upload" in done.stdout
    assert "process → analyze → notify" in done.stdout


def test_each_mistake_is_shown_with_its_place_and_a_suggestion(tmp_path: Path) -> None:
    wrong = SHIPPED.replace("needs: [process]", "needs: [proces]").replace("queue: notifications", "queue: notification").replace("server:", "sever:")
    (tmp_path / "config.yaml").write_text(wrong)
    done = hookline("validate", folder=tmp_path)
    assert done.returncode == 2
    lines = wrong.splitlines()
    for text, hint in (("proces]", "process"), ("queue: notification", "notifications"), ("sever:", "server")):
        line = next(number for number, found in enumerate(lines, 1) if text in found and not found.lstrip().startswith("#"))
        (complaint,) = [found for found in done.stderr.splitlines() if f"config.yaml:{line}:" in found]
        assert f"did you mean '{hint}'" in complaint.replace('"', "'"), complaint
    assert "Traceback" not in done.stderr


def test_a_processor_that_is_not_there_is_found_before_the_service_runs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"queues": {"mine": {"processors": {"do": "nowhere:Doer"}}}}))
    for command in (["validate"], ["serve", "--dev", "--port", "0"]):
        done = hookline(*command, folder=tmp_path)
        assert done.returncode == 2
        assert "queues.mine.processors.do: processor 'nowhere:Doer': cannot import 'nowhere'" in done.stderr


@pytest.mark.parametrize(
    ("module", "path", "said"),
    [
        ("def draw(job, context): ...\n", "mine:drew", "has no callable 'drew'; did you mean 'draw'?"),
        ("def draw(:\n", "mine:draw", "importing 'mine' raised SyntaxError: invalid syntax (mine.py, line 1)"),
        ("\nlimit = 1 / 0\n", "mine:draw", "importing 'mine' raised ZeroDivisionError: division by zero (mine.py, line 2)"),
    ],
)
def test_a_mistake_in_a_processor_is_shown_where_the_file_names_it(tmp_path: Path, module: str, path: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(module)
    (tmp_path / "config.yaml").write_text(f"queues:\n  pictures:\n    processors: {{draw: '{path}'}}\n")
    done = hookline("validate", folder=tmp_path)
    assert done.returncode == 2
    assert "config.yaml:3:25: queues.pictures.processors.draw: processor" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_in_a_rule_pack_is_shown_in_the_pack(tmp_path: Path) -> None:
    (tmp_path / "house.yaml").write_text("framework: HOUSE\nrules:\n  - {id: a, article: x, title: t, kindz: [A], severity: low, advice: q}\n")
    (tmp_path / "config.yaml").write_text("compliance: {packs: [house.yaml]}\n")
    done = hookline("validate", folder=tmp_path)
    assert done.returncode == 2
    assert "house.yaml:3:35: rules[0].kindz: unknown key 'kindz'; did you mean 'kinds'?" in done.stderr


@pytest.mark.parametrize("command", [["validate"], ["serve", "--port", "0"]])
def test_mistakes_of_every_kind_are_shown_in_one_round(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "config.yaml").write_text("""\
sever: {port: 3000}
notifications: {templates: {sms: {text: "{mesage}"}}}
queues:
  mine: {processors: {do: "nowhere:Doer"}, limiter: {max: 1}}
compliance: {packs: [house.yaml]}
webhooks:
  endpoints:
    - {id: a, url: https://a.example.com/, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, concurrency: 0, types: ["job.*.x"]}
workflows:
  w: {steps: {one: {queue: mine, needs: [two]}}}
""")
    done = hookline(*command, folder=tmp_path)
    assert done.returncode == 2
    places = [line.split("config.yaml:")[1].split(": ")[0] for line in done.stderr.splitlines() if "config.yaml:" in line]
    assert places == ["4:44", "8:105", "1:1", "10:42", "2:42", "5:22", "4:28", "8:115"]
    assert done.stderr.count("house.yaml") == 1, "the processor that reads it says no more"
    assert done.stderr.count("mesage") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["validate"], ["serve", "--dev", "--port", "0"]])
def test_a_webhook_endpoint_that_cannot_be_used_is_shown_where_the_file_names_it(tmp_path: Path, command: list[str]) -> None:
    endpoint = "{id: a, url: 'https://example.com/', types: ['job.*.x'], secret: hunter2, headers: {Host: x}, filter: event.dat.n > 1}"
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    others = f"    - {{id: b, url: 'http://169.254.169.254/', secret: {secret}}}\n    - {{id: c, url: 'http://c/#f', secret: {secret}}}\n"
    (tmp_path / "config.yaml").write_text(f"webhooks:\n  endpoints:\n    - {endpoint}\n{others}")
    done = hookline(*command, folder=tmp_path)
    assert done.returncode == 2
    for line, refused in (
        (4, "[1].url: 169.254.169.254 is refused (link-local, cloud metadata); to allow "),
        (5, "[2].url: a webhook URL has no fragment"),
    ):
        assert f"config.yaml:{line}:21: webhooks.endpoints{refused}" in done.stderr
    said_of_secret = "secret: a webhook secret is `whsec_` and base64"
    for column, said in ((51, "types: 'job.*.x'"), (72, said_of_secret), (90, "headers: "), (109, "filter: character 7: ")):
        assert f"config.yaml:3:{column}: webhooks.endpoints[0].{said}" in done.stderr
    assert "hunter2" not in done.stderr


def test_serve_refuses_to_start_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(SHIPPED)
    done = hookline("serve", folder=tmp_path)
    assert done.returncode == 2
    assert "HOOKLINE_JWT_SECRET" in done.stderr
    assert "HOOKLINE_ENCRYPTION_KEYS" in done.stderr
    assert "--dev" in done.stderr


def test_token_signs_with_the_services_secret(tmp_path: Path) -> None:
    done = hookline("token", "--sub", "ann", "--role", "service", "--ttl", "5m", folder=tmp_path, HOOKLINE_JWT_SECRET=JWT_SECRET)
    claims = jwt.decode(done.stdout.strip(), JWT_SECRET, algorithms=["HS256"])
    assert (claims["sub"], claims["role"], claims["exp"] - claims["iat"]) == ("ann", "service", 300)
    refused = hookline("token", "--sub", "ann", "--ttl", "5", folder=tmp_path, HOOKLINE_JWT_SECRET=JWT_SECRET)
    assert refused.returncode == 2
    assert "number with a unit" in refused.stderr


def test_dev_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    first = hookline("token", "--dev", "--sub", "ann", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    kept = tmp_path / ".hookline" / "dev-secrets.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    secret = json.loads(kept.read_text())["jwtSecret"]
    assert jwt.decode(first.stdout.strip(), secret, algorithms=["HS256"])["sub"] == "ann"
    second = hookline("token", "--dev", "--sub", "bob", folder=tmp_path)
    assert jwt.decode(second.stdout.strip(), secret, algorithms=["HS256"])["sub"] == "bob"


def test_damaged_dev_secrets_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / ".hookline").mkdir()
    for text in ("{oops", "[]", "{}"):
        (tmp_path / ".hookline" / "dev-secrets.json").write_text(text)
        done = hookline("token", "--dev", "--sub", "ann", folder=tmp_path)
        assert done.returncode == 2
        assert "dev-secrets.json is damaged: remove it" in done.stderr
        assert "Traceback" not in done.stderr


def test_schema_is_json_for_editors(tmp_path: Path) -> None:
    schema = json.loads(hookline("schema", folder=tmp_path).stdout)
    assert "workflows" in schema["properties"]


def test_a_service_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    done = hookline("runs", "list", "--url", "http://127.0.0.1:1", folder=tmp_path)
    assert done.returncode == 1
    assert "error:" in done.stderr
    assert "http://127.0.0.1:1 cannot be reached: Connection refused\n" in done.stderr
    assert "hookline serve" in done.stderr
    assert "Traceback" not in done.stderr


async def test_what_users_wrote_is_shown_as_they_wrote_it(redis: Redis, tmp_path: Path) -> None:
    said = {**NOTIFICATION, "subject": "[/bold] [red]", "message": "Größe: null"}
    async with serving(redis, tmp_path) as api:
        assert (await api.call("POST", "/api/jobs/notifications", body=said)).status == 201
        shown = await asyncio.to_thread(hookline, "jobs", "show", "notifications", "1", "--url", api.url, "--token", api.token(), folder=tmp_path)
        stranger = await asyncio.to_thread(hookline, "jobs", "show", "notifications", "1", "--url", api.url, folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert json.dumps(said, ensure_ascii=False) in shown.stdout
    assert stranger.returncode == 1
    assert "hookline token" in stranger.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["runs", "--help"], ["token", "--help"]])
def test_help_teaches(tmp_path: Path, arguments: list[str]) -> None:
    done = hookline(*arguments, folder=tmp_path)
    assert done.returncode == 0
    assert "Usage" in done.stdout


@pytest.mark.parametrize("group", ["runs", "jobs", "endpoints", "deliveries", "replays", "events"])
def test_each_argument_and_option_says_what_it_is(group: str) -> None:
    app = typer.main.get_command(getattr(import_module(f"pipeline.cli.{COMMANDS[group][0]}"), group))
    assert isinstance(app, TyperGroup)
    for name, command in app.commands.items():
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"hookline {group} {name}: {parameter.name}"


def test_commands_that_talk_to_a_service_find_it_by_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("server: {host: 0.0.0.0, port: 1}\n")
    for command in (["runs", "list"], ["jobs", "stats"]):
        done = hookline(*command, "--config", "mine.yaml", folder=tmp_path)
        assert done.returncode == 1
        assert "127.0.0.1:1" in done.stderr
