"""`hookline serve`: run the service until Ctrl-C or SIGTERM."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline import configfile, declared, logs
from pipeline.cli.check import Check, checked, rules
from pipeline.cli.console import err, out
from pipeline.cli.options import ConfigFile, found
from pipeline.config import Config
from pipeline.dev import with_dev_secrets
from pipeline.jobs.registry import resolve_all
from pipeline.parts import ROLES
from pipeline.store.embedded import EmbeddedStore
from pipeline.supervisor import Supervisor


def serve(
    config: ConfigFile = None,
    dev: Annotated[bool, typer.Option("--dev", help="Make secrets in the data folder, allow loopback, log notifications of unset channels.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(envvar="HOOKLINE_PORT", help="Port to listen on; 0 takes any free one.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes, beside one process for all else.")] = 1,
    role: Annotated[str, typer.Option(help="What this machine runs: all, api, worker, engine or webhooks.")] = "all",
) -> None:
    """Run the service.

    Beside a config.yaml of your own or without one, [bold]hookline serve --dev[/] needs no other server: it starts a private Valkey
    (extra [bold]embedded[/]) in the data folder. In production it needs REDIS_URL, HOOKLINE_JWT_SECRET and HOOKLINE_ENCRYPTION_KEYS.
    """
    if role not in ROLES:
        raise typer.BadParameter(f"{role!r} is no role; choose one of {', '.join(ROLES)}", param_hint="--role")
    overrides = {"server": {key: value for key, value in (("host", host), ("port", port)) if value is not None}}
    processors: tuple[Check, ...] = (rules, resolve_all) if "worker" in ROLES[role] else ()
    loaded, _ = checked(found(config), *processors, declared.check, dev=dev, overrides=overrides)
    settings = with_dev_secrets(loaded) if dev else loaded
    configfile.require_secrets(settings)
    logs.configure(settings.log_format)
    for warning in settings.warnings:
        err.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    supervisor = Supervisor(settings, ROLES[role], workers, on_ready=lambda report: _announce(settings, dev, report))
    sys.exit(supervisor.run())


def _announce(config: Config, dev: bool, report: dict[str, object]) -> None:
    """The first thing that a person, a script or a test wants to know."""
    if "port" in report:
        out.print(f"Hookline is ready: [bold]http://{config.server.host}:{report['port']}[/]", soft_wrap=True)
    else:
        out.print("Hookline is ready")
    if config.redis.url is None:
        socket = EmbeddedStore(Path(config.data_dir).resolve()).socket
        err.print(f"[dim]embedded store: redis-cli -s {escape(str(socket))}[/]", soft_wrap=True)
    if dev:
        err.print("[dim]a token to try it:  export HOOKLINE_TOKEN=$(hookline token --dev --sub me --role admin)[/]", soft_wrap=True)
    sys.stdout.flush()
