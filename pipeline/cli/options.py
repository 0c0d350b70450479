"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

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
Limit = Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")]
EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its id, as [bold]hookline endpoints list[/] shows it: ep_…")]
DeliveryId = Annotated[str, typer.Argument(metavar="DELIVERY", help="Its id, as [bold]hookline deliveries list[/] shows it: dlv_…")]
ReplayId = Annotated[str, typer.Argument(metavar="REPLAY", help="Its id, as [bold]hookline replays list[/] shows it: rpl_…")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Its id, as [bold]hookline runs list[/] shows it: run_…")]
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
        return web_url(url or DEFAULT_URL, "--url", DEFAULT_URL)
    # Here, because most commands are called without: the configuration's modules cost more than the command.
    from pipeline import configfile

    server = configfile.load(config, os.environ, dev=True).server
    return f"http://{'127.0.0.1' if server.host in EVERYWHERE else server.host}:{server.port}"


def web_url(text: str, option: str, example: str) -> str:
    """The text. Raises typer.BadParameter where it is no http:// or https:// URL."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise typer.BadParameter(f"{text!r} is not a URL; write one like {example}", param_hint=option)
    return text


def instant(text: str | None, option: str) -> str | None:
    """A time as the API takes it: `2h` stands for the time two hours ago. Raises typer.BadParameter."""
    if text is None:
        return None
    from pipeline.jobs.calls import now_ms
    from pipeline.units import iso, parse_duration
    from webhooks.units import ms

    try:
        return iso(now_ms() - parse_duration(text))
    # OverflowError: of a time that no calendar has.
    except (ValueError, OverflowError):
        pass
    try:
        return iso(ms(text))
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not a time; write 2h for two hours ago, or 2026-01-31T09:00:00Z", param_hint=option) from None
