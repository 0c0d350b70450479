"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="HOOKLINE_CONFIG", help="The configuration [dim](default: ./config.yaml if there is one)[/]."),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="HOOKLINE_URL", help="The service to talk to [dim](default: where --config says it listens, else http://127.0.0.1:3000)[/]."
    ),
]
Token = Annotated[str | None, typer.Option("--token", envvar="HOOKLINE_TOKEN", help="A token or API key; make one with [bold]hookline token[/].")]
Since = Annotated[str | None, typer.Option(help="Only those created since [bold]2h[/] ago, or 2026-01-31T09:00:00Z.")]
Until = Annotated[str | None, typer.Option(help="Only those created before; written so too.")]
DEFAULT_URL = "http://127.0.0.1:3000"
EVERYWHERE = ("0.0.0.0", "::")


def found(config: Path | None) -> Path | None:
    """The configuration file to read: the one named, else ./config.yaml if it is there."""
    if config:
        return config
    default = Path(os.getcwd()) / "config.yaml"
    return default if default.exists() else None


def address(url: str | None, config: Path | None) -> str:
    """The service to talk to: the URL given, else where the configuration named says that it listens."""
    if url or not config:
        return url or DEFAULT_URL
    # Here, because most commands are called without: the configuration's modules cost more than the command.
    from pipeline import configfile

    server = configfile.load(config, os.environ, dev=True).server
    return f"http://{'127.0.0.1' if server.host in EVERYWHERE else server.host}:{server.port}"


def instant(text: str | None) -> str | None:
    """A time as the API takes it: `2h` stands for the time two hours ago; all else is the API's to judge."""
    if text is None:
        return None
    from pipeline.jobs.calls import now_ms
    from pipeline.units import iso, parse_duration

    try:
        return iso(now_ms() - parse_duration(text))
    except ValueError:
        return text
