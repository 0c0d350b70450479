"""`hookline endpoints`: who is told of what, and how."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pipeline.cli.console import fields, listing, out, state
from pipeline.cli.deliveries import phases
from pipeline.cli.options import ConfigFile, EndpointId, Token, Url, address
from pipeline.cli.service import talk

if TYPE_CHECKING:
    from pipeline.client import Client

endpoints = typer.Typer(no_args_is_help=True, help="Create, list, change, pause, test and enable webhook endpoints.")

Types = Annotated[str | None, typer.Option(help="Types or patterns, comma-separated: [bold]job.completed,workflow.*[/].")]
Description = Annotated[str | None, typer.Option(help="For people.")]
Timeout = Annotated[str | None, typer.Option(help="For a whole attempt, 1s to 30s.")]
Concurrency = Annotated[int | None, typer.Option(help="Attempts under way at once.")]
Rate = Annotated[str | None, typer.Option(help="Attempts in a time, such as [bold]100/1m[/].")]
Ordering = Annotated[str | None, typer.Option(help="Path of the key within which deliveries keep their order: [bold]data.documentId[/].")]
Filter = Annotated[str | None, typer.Option(help="CEL over the event: [bold]event.data.score < 50[/].")]
Payload = Annotated[str | None, typer.Option(help="full, or thin: only what identifies.")]
Asymmetric = Annotated[bool | None, typer.Option("--asymmetric/--symmetric", help="Sign with ed25519 (v1a) too.")]
Headers = Annotated[list[str] | None, typer.Option("--header", help="name: value; may be given several times.")]
Schedule = Annotated[str | None, typer.Option(help="The delay before each attempt, comma-separated: [bold]0s,5s,5m[/].")]


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given, as the API takes them."""
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("types", "schedule"):
        if name in given:
            given[name] = [part.strip() for part in given[name].split(",")]
    if "headers" in given:
        pairs = [header.partition(":") for header in given["headers"]]
        if any(not colon for _, colon, _ in pairs):
            raise typer.BadParameter("a header is written as 'name: value'", param_hint="--header")
        given["headers"] = {name.strip(): value.strip() for name, _, value in pairs}
    return given


@endpoints.command("list")
def list_endpoints(url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """All endpoints, oldest first."""

    async def ask(client: "Client") -> list[dict[str, Any]]:
        return [endpoint async for endpoint in client.endpoints()]

    found = talk(address(url, config), token, ask)
    listing(("endpoint", "status", "url", "types", "from", "note"), map(_row, found))


def _row(one: dict[str, Any]) -> tuple[str | Text, ...]:
    return (one["id"], state(one["status"]), one["url"], " ".join(one["types"]), one["source"], one["reason"] or one["description"])


@endpoints.command("show")
def show_endpoint(endpoint_id: EndpointId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """One endpoint: everything but its secret."""
    fields(talk(address(url, config), token, lambda client: client.endpoint(endpoint_id)))


@endpoints.command("create")
def create_endpoint(
    target: Annotated[str, typer.Argument(metavar="URL", help="Where its webhooks go, https://… .")],
    types: Types = None,
    description: Description = None,
    schedule: Schedule = None,
    timeout: Timeout = None,
    concurrency: Concurrency = None,
    rate: Rate = None,
    ordering: Ordering = None,
    filter: Filter = None,
    payload: Payload = None,
    asymmetric: Asymmetric = None,
    header: Headers = None,
    secret: Annotated[str | None, typer.Option(envvar="HOOKLINE_ENDPOINT_SECRET", help="whsec_… [dim](default: one is made)[/].")] = None,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Create an endpoint; its secret is shown this once."""
    given = {"types": ["*"]} | _given(
        types=types, description=description, schedule=schedule, timeout=timeout, concurrency=concurrency, rate=rate, ordering=ordering,
        filter=filter, payload=payload, asymmetric=asymmetric, headers=header, secret=secret,
    )  # fmt: skip
    fields(talk(address(url, config), token, lambda client: client.create_endpoint(target, **given)))


@endpoints.command("change")
def change_endpoint(
    endpoint_id: EndpointId,
    target: Annotated[str | None, typer.Option("--to", metavar="URL", help="A new URL.")] = None,
    types: Types = None,
    description: Description = None,
    schedule: Schedule = None,
    timeout: Timeout = None,
    concurrency: Concurrency = None,
    rate: Rate = None,
    ordering: Ordering = None,
    filter: Filter = None,
    payload: Payload = None,
    asymmetric: Asymmetric = None,
    header: Headers = None,
    clear: Annotated[list[str] | None, typer.Option(help="Take away: schedule, rate, ordering or filter; may be given several times.")] = None,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Change what is given; the rest stays as it is. --header replaces all headers."""
    given = _given(
        url=target, types=types, description=description, schedule=schedule, timeout=timeout, concurrency=concurrency, rate=rate, ordering=ordering,
        filter=filter, payload=payload, asymmetric=asymmetric, headers=header,
    ) | dict.fromkeys(clear or ())  # fmt: skip
    if not given:
        raise typer.BadParameter("nothing to change; see hookline endpoints change --help")
    fields(talk(address(url, config), token, lambda client: client.update_endpoint(endpoint_id, **given)))


@endpoints.command("pause")
def pause_endpoint(endpoint_id: EndpointId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Hold its deliveries; none is lost."""
    _status(talk(address(url, config), token, lambda client: client.pause_endpoint(endpoint_id)))


@endpoints.command("enable")
def enable_endpoint(endpoint_id: EndpointId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Let its deliveries go on, at once."""
    _status(talk(address(url, config), token, lambda client: client.enable_endpoint(endpoint_id)))


@endpoints.command("rotate-secret")
def rotate_secret(
    endpoint_id: EndpointId,
    secret: Annotated[str | None, typer.Option(envvar="HOOKLINE_ENDPOINT_SECRET", help="The new whsec_… [dim](default: one is made)[/].")] = None,
    overlap: Annotated[
        str | None, typer.Option(help="How long the former one signs beside it, [bold]0s[/] to [bold]7d[/] [dim](default: 24h)[/].")
    ] = None,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Give it a new secret, shown this once; the former one signs beside it for a day."""
    given = _given(secret=secret, overlap=overlap)
    fields(talk(address(url, config), token, lambda client: client.rotate_secret(endpoint_id, **given)))


@endpoints.command("test")
def try_endpoint(endpoint_id: EndpointId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Send it a webhook.test now, also if it is paused, and say what came of it; exit code 1 if it was not taken."""
    answer = talk(address(url, config), token, lambda client: client.test_endpoint(endpoint_id))
    fields(answer | {"phases": phases(answer)})
    if not answer["delivered"]:
        raise typer.Exit(1)


@endpoints.command("delete")
def delete_endpoint(endpoint_id: EndpointId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Delete it; what it had pending is recorded as skipped."""
    talk(address(url, config), token, lambda client: client.delete_endpoint(endpoint_id))
    out.print(f"{endpoint_id} deleted")


def _status(found: dict[str, Any]) -> None:
    out.print(found["id"], state(found["status"]))
