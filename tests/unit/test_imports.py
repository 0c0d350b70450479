"""Nobody waits for what he did not ask for: each command, and the process that only watches others, imports what it needs."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer

from pipeline.cli import COMMANDS

HEAVY = {"aiohttp", "redis", "cel", "jsonschema", "fsspec", "bullmq", "kreuzberg", "apprise", "presidio_analyzer", "pipeline.app", "pipeline.config"}


def imported(*arguments: str) -> set[str]:
    """The modules that a Python of its own imported for this."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("command", [[], ["listen"], ["endpoints"], ["deliveries", "list"], ["replays"], ["events", "send"], ["runs"]], ids=" ".join)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    found = imported("-m", "pipeline.cli", *command, "--help")
    assert "typer" in found
    assert not found & HEAVY


def test_the_supervisor_imports_none_of_the_parts() -> None:
    found = imported("-c", "import pipeline.cli.serve")
    assert "pipeline.supervisor" in found
    assert not found & {"aiohttp", "fsspec", "pipeline.app", "redis", "prompt_toolkit"}


def test_a_process_imports_what_its_parts_need() -> None:
    found = imported("-c", "import pipeline.cli.__main__, pipeline.process, pipeline.app, webhooks.service")
    assert "cel" in found
    assert not found & {"aiohttp", "jwt", "fsspec", "croniter", "pipeline.api", "pipeline.serving", "pipeline.workers", "prompt_toolkit"}


def test_a_process_of_the_service_imports_no_command_and_no_processor() -> None:
    found = imported("-c", "import pipeline.cli.__main__, pipeline.process, pipeline.app, pipeline.serving, pipeline.workers")
    assert not {name for name in found if name.startswith("pipeline.cli.")} - {"pipeline.cli.__main__", "pipeline.cli.console"}
    assert not found & {"bullmq", "kreuzberg", "apprise", "presidio_analyzer"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_line_that_help_shows_of_it(name: str) -> None:
    module, line = COMMANDS[name]
    found = getattr(import_module(f"pipeline.cli.{module}"), name)
    told = found.info.help if isinstance(found, typer.Typer) else inspect.getdoc(found)
    assert told.partition("\n\n")[0] == line
