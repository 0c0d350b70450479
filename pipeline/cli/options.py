"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="HOOKLINE_CONFIG", help="The configuration [dim](default: ./config.yaml if there is one)[/]."),
]
Url = Annotated[str, typer.Option("--url", envvar="HOOKLINE_URL", help="The service to talk to.")]
Token = Annotated[str | None, typer.Option("--token", envvar="HOOKLINE_TOKEN", help="A token or API key; make one with [bold]hookline token[/].")]
DEFAULT_URL = "http://127.0.0.1:3000"


def found(config: Path | None) -> Path | None:
    """The configuration file to read: the one named, else ./config.yaml if it is there."""
    if config:
        return config
    default = Path(os.getcwd()) / "config.yaml"
    return default if default.exists() else None
