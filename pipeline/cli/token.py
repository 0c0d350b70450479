"""`hookline token`: sign a token with the service's own secret."""

import os
from typing import Annotated, Literal, cast

import typer

from pipeline import configfile
from pipeline.auth import issue
from pipeline.cli.options import ConfigFile, found
from pipeline.dev import with_dev_secrets
from pipeline.errors import ConfigError
from pipeline.jobs.calls import now_ms
from pipeline.units import parse_duration


def token(
    sub: Annotated[str, typer.Option(help="Who it speaks for: the user's id, or the service's name.")],
    role: Annotated[str, typer.Option(help="admin, service or user.")] = "user",
    ttl: Annotated[str, typer.Option(help="How long it is valid, for example 1h or 30d.")] = "1h",
    config: ConfigFile = None,
    dev: Annotated[bool, typer.Option("--dev", help="Sign with the secret that [bold]hookline serve --dev[/] made.")] = False,
) -> None:
    """Print a signed token for the HTTP API.

    export HOOKLINE_TOKEN=$(hookline token --sub me --role admin)
    """
    if role not in ("admin", "service", "user"):
        raise typer.BadParameter(f"{role!r} is no role; choose admin, service or user", param_hint="--role")
    try:
        valid = parse_duration(ttl)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--ttl") from error
    loaded = configfile.load(found(config), os.environ, dev=dev)
    settings = with_dev_secrets(loaded) if dev else loaded
    if settings.auth.jwt_secret is None:
        raise ConfigError(
            "auth.jwt_secret is not set, so there is nothing to sign with; set HOOKLINE_JWT_SECRET, or add --dev for a development service"
        )
    print(issue(settings.auth, sub, cast(Literal["admin", "service", "user"], role), valid, now=now_ms()))
