"""`hookline validate` and `hookline schema`: find mistakes in a configuration before it runs."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from pipeline import configfile, declared
from pipeline.cli.console import complain, out
from pipeline.cli.options import ConfigFile, found
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.jobs.registry import resolve_all
from pipeline.processors import packs
from pipeline.workflows.definition import compile_all, graph
from pipeline.yamlsource import Source


def rules(config: Config, source: Source) -> packs.Packs:
    """Those of compliance, one's own packs included."""
    return packs.load(config.compliance.packs, folder=Path(config.folder), config=source)


Check = Callable[[Config, Source], object]
"""Of what a configuration names, beside itself. Raises ConfigError."""


def checked(path: Path | None, *checks: Check, dev: bool, overrides: Mapping[str, Any] | None = None) -> tuple[Config, Source]:
    """As `configfile.load_with_source`; what is wrong is told in one go, what the checks find included. Raises the last ConfigError of them."""
    config, source, faults = configfile.look(path, os.environ, dev=dev, overrides=overrides)
    errors = [ConfigError("the configuration cannot be used", file=source.file, faults=faults)] if faults or config is None else []
    if config is not None:
        for check in checks:
            try:
                check(config, source)
            except ConfigError as error:
                if fresh := _fresh(error, errors):
                    errors.append(fresh)
        if not errors:
            return config, source
    for earlier in errors[:-1]:
        complain(str(earlier))
    raise errors[-1]


def _fresh(error: ConfigError, told: Sequence[ConfigError]) -> ConfigError | None:
    """What of it was not told yet: a processor complains of its part of the configuration in the words in which that was refused before."""
    known = [fault.message for one in told for fault in one.faults]
    faults = tuple(fault for fault in error.faults if not any(message in fault.message for message in known))
    return ConfigError(error.message, file=error.file, faults=faults) if faults or not error.faults else None


def validate(
    file: Annotated[Path | None, typer.Argument(help="The configuration to check [dim](default: ./config.yaml)[/].")] = None,
    config: ConfigFile = None,
) -> None:
    """Check a configuration and its workflows; each mistake is shown with file, line, column and a suggestion."""
    path = found(file or config)
    if path is None:
        raise ConfigError("there is no config.yaml here; name the file to check: hookline validate FILE")
    settings, source = checked(path, rules, resolve_all, declared.check, dev=True)
    definitions, known = compile_all(settings, source), rules(settings, source)
    out.print(f"[green]✓[/] {escape(str(path))}: {len(settings.queues)} queues, {len(definitions)} workflows")
    for name, definition in definitions.items():
        steps = " → ".join(step["id"] for step in graph(definition)["steps"])
        out.print(f"  [bold]{name}[/] version {definition.version}: {steps}")
    if settings.compliance.packs:
        counts = ", ".join(f"{escape(framework)} {len(known.rules(framework))}" for framework in known.frameworks)
        out.print(f"  [bold]compliance[/] rules: {counts}")


def schema() -> None:
    """Print the JSON Schema of config.yaml, for editors that complete and check YAML."""
    print(json.dumps(configfile.schema(), indent=2))
