"""`hookline endpoints` and `hookline deliveries`: who is told, and what became of each telling."""

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import out, state
from pipeline.cli.options import ConfigFile, Token, Url, address
from pipeline.cli.service import talk
from pipeline.client import Client

endpoints = typer.Typer(no_args_is_help=True, help="Create, list, change, pause and enable webhook endpoints.")
deliveries = typer.Typer(no_args_is_help=True, help="What was sent to whom: list, show, send again.")

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

    async def ask(client: Client) -> list[dict[str, Any]]:
        return [endpoint async for endpoint in client.endpoints()]

    table = Table("endpoint", "status", "url", "types", "from", "", box=None)
    for one in talk(address(url, config), token, ask):
        about = one["reason"] or one["description"]
        table.add_row(one["id"], state(one["status"]), Text(one["url"]), Text(" ".join(one["types"])), one["source"], Text(about[:60]))
    out.print(table)


@endpoints.command("show")
def show_endpoint(endpoint_id: str, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """One endpoint: everything but its secret."""
    _print(talk(address(url, config), token, lambda client: client.endpoint(endpoint_id)))


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
    given = _given(
        types=types or "*", description=description, schedule=schedule, timeout=timeout, concurrency=concurrency, rate=rate, ordering=ordering,
        filter=filter, payload=payload, asymmetric=asymmetric, headers=header, secret=secret,
    )  # fmt: skip
    _print(talk(address(url, config), token, lambda client: client.create_endpoint(target, given.pop("types"), **given)))


@endpoints.command("change")
def change_endpoint(
    endpoint_id: str,
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
    _print(talk(address(url, config), token, lambda client: client.update_endpoint(endpoint_id, **given)))


@endpoints.command("pause")
def pause_endpoint(endpoint_id: str, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Hold its deliveries; none is lost."""
    _print_status(talk(address(url, config), token, lambda client: client.pause_endpoint(endpoint_id)))


@endpoints.command("enable")
def enable_endpoint(endpoint_id: str, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Let its deliveries go on, at once."""
    _print_status(talk(address(url, config), token, lambda client: client.enable_endpoint(endpoint_id)))


@endpoints.command("rotate-secret")
def rotate_secret(endpoint_id: str, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Give it a new secret, shown this once; the former one signs beside it for a day."""
    _print(talk(address(url, config), token, lambda client: client.rotate_secret(endpoint_id)))


@endpoints.command("delete")
def delete_endpoint(endpoint_id: str, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Delete it; what it had pending is recorded as skipped."""
    talk(address(url, config), token, lambda client: client.delete_endpoint(endpoint_id))
    out.print(f"{endpoint_id} deleted")


@deliveries.command("list")
def list_deliveries(
    status: Annotated[str | None, typer.Option(help="Only those that are pending, delivered, exhausted or skipped.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only those to this endpoint.")] = None,
    type: Annotated[str | None, typer.Option(help="Only events of this type or pattern.")] = None,
    since: Annotated[str | None, typer.Option(help="Only those created since, such as 2026-01-31T09:00:00Z.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """The newest deliveries."""

    async def ask(client: Client) -> list[dict[str, Any]]:
        return [one async for one in client.deliveries(status=status, endpoint=endpoint, type=type, since=since, limit=limit)]

    table = Table("delivery", "status", "event", "endpoint", "attempts", "last", "created", "next", box=None)
    for one in talk(address(url, config), token, ask):
        last = one["reason"] or str(one["lastStatus"] or "")
        table.add_row(
            one["id"],
            state(one["status"]),
            one["type"],
            one["endpoint"],
            str(one["attemptCount"]),
            last,
            one["createdAt"],
            one["nextAttemptAt"] or "",
        )
    out.print(table)


@deliveries.command("show")
def show_delivery(delivery_id: str, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """One delivery with each of its attempts."""
    found = talk(address(url, config), token, lambda client: client.delivery(delivery_id))
    attempts = found.pop("attempts")
    _print(found)
    table = Table("attempt", "at", "status", "ms", "address", "", box=None)
    for one in attempts:
        about = one["error"] or (one["response"] or "").partition("\n")[0]
        ms = "" if one["durationMs"] is None else str(one["durationMs"])
        table.add_row(
            str(one["number"]),
            one["at"],
            str(one["status"] or "–"),
            ms,
            one["address"] or "",
            Text(about[:100], style="red" if one["error"] else "dim"),
        )
    out.print(table)


@deliveries.command("replay")
def replay_delivery(delivery_id: str, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Send it again, now; its webhook-id stays the same."""
    _print_status(talk(address(url, config), token, lambda client: client.replay(delivery_id)))


def _print(found: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None)
    for field, value in found.items():
        if value is None or value in ({}, [], ""):
            continue
        shown = " ".join(map(str, value)) if isinstance(value, list | dict) else str(value)
        table.add_row(f"[dim]{field}[/]", state(shown) if field == "status" else Text(shown, style="bold" if field == "secret" else ""))
    out.print(table)


def _print_status(found: dict[str, Any]) -> None:
    out.print(found["id"], state(found["status"]))
