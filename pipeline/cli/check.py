"""`hookline validate` and `hookline schema`: find mistakes in a configuration before it runs."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline import configfile, declared
from pipeline.cli.console import out
from pipeline.cli.options import ConfigFile, found
from pipeline.errors import ConfigError
from pipeline.jobs.registry import resolve_all
from pipeline.processors import packs
from pipeline.workflows.definition import compile_all, graph


def validate(
    file: Annotated[Path | None, typer.Argument(help="The configuration to check [dim](default: ./config.yaml)[/].")] = None,
    config: ConfigFile = None,
) -> None:
    """Check a configuration and its workflows; each mistake is shown with file, line, column and a suggestion."""
    path = found(file or config)
    if path is None:
        raise ConfigError("there is no config.yaml here; name the file to check: hookline validate FILE")
    settings, source = configfile.load_with_source(path, os.environ, dev=True)
    definitions = compile_all(settings, source)
    rules = packs.load(settings.compliance.packs, folder=Path(settings.folder), config=source)
    resolve_all(settings, source)
    declared.check(settings, source)
    out.print(f"[green]✓[/] {escape(str(path))}: {len(settings.queues)} queues, {len(definitions)} workflows")
    for name, definition in definitions.items():
        steps = " → ".join(step["id"] for step in graph(definition)["steps"])
        out.print(f"  [bold]{name}[/] version {definition.version}: {steps}")
    if settings.compliance.packs:
        counts = ", ".join(f"{escape(framework)} {len(rules.rules(framework))}" for framework in rules.frameworks)
        out.print(f"  [bold]compliance[/] rules: {counts}")


def schema() -> None:
    """Print the JSON Schema of config.yaml, for editors that complete and check YAML."""
    print(json.dumps(configfile.schema(), indent=2))
