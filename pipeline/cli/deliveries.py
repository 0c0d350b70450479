"""`hookline deliveries` and `hookline explain`: what became of each telling, and why."""

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from pipeline.cli.console import fields, out, state
from pipeline.cli.options import ConfigFile, Token, Url, address
from pipeline.cli.service import talk
from pipeline.client import Client

deliveries = typer.Typer(no_args_is_help=True, help="What was sent to whom: list, show, send again.")


@deliveries.command("list")
def list_deliveries(
    status: Annotated[str | None, typer.Option(help="Only those that are pending, delivered, exhausted or skipped.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only those to this endpoint.")] = None,
    type: Annotated[str | None, typer.Option(help="Only events of this type or pattern.")] = None,
    since: Annotated[str | None, typer.Option(help="Only those created since, such as 2026-01-31T09:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Only those created before.")] = None,
    event: Annotated[str | None, typer.Option(help="Only those of this event.")] = None,
    run: Annotated[str | None, typer.Option(help="Only those of this run's events.")] = None,
    answered: Annotated[str | None, typer.Option(help="Only those last answered so: 503, 5xx, none.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """The newest deliveries."""

    async def ask(client: Client) -> list[dict[str, Any]]:
        return [
            one
            async for one in client.deliveries(
                status=status, endpoint=endpoint, type=type, since=since, until=until, event=event, run=run, last_status=answered, limit=limit
            )
        ]

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
    fields(found)
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
    found = talk(address(url, config), token, lambda client: client.replay(delivery_id))
    out.print(found["id"], state(found["status"]))


@deliveries.command("undelivered")
def list_undelivered(
    endpoint: Annotated[str | None, typer.Option(help="Only those to this endpoint.")] = None,
    run: Annotated[str | None, typer.Option(help="Only those of this run's events.")] = None,
    type: Annotated[str | None, typer.Option(help="Only events of this type or pattern.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """What ought to have arrived and has not, the oldest first, and why."""

    async def ask(client: Client) -> list[dict[str, Any]]:
        return [one async for one in client.undelivered(endpoint=endpoint, run=run, type=type, limit=limit)]

    table = Table("delivery", "status", "event", "endpoint", "created", "why", box=None)
    for one in talk(address(url, config), token, ask):
        table.add_row(one["id"], state(one["status"]), one["type"], one["endpoint"], one["createdAt"], Text(one["why"]["reason"]))
    out.print(table)


def explain(
    event: Annotated[str | None, typer.Option(help="An event's id, evt_….")] = None,
    run: Annotated[str | None, typer.Option(help="A run's id: all its events.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="One endpoint [dim](default: all)[/].")] = None,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Why an endpoint got an event, or did not, and what to do about it."""
    if (event is None) == (run is None):
        raise typer.BadParameter("name an event (--event evt_…) or a run (--run run_…)")
    answer = talk(address(url, config), token, lambda client: client.explain(event=event, run=run, endpoint=endpoint))
    for one in answer["items"]:
        tree = Tree(Text(one["type"] or one["event"], style="bold").append(f" → {one['endpoint'] or 'nobody'}", style="not bold"))
        branch = tree.add(Text(one["reason"], style="green" if one["verdict"] == "delivered" else "yellow"))
        if one["advice"]:
            branch.add(Text(f"→ {one['advice']}"))
        for fact in one["facts"]:
            tree.add(Text(f"{fact['name']}: ", style="dim").append(str(fact["value"]), style="not dim"))
        out.print(tree)
    if answer["truncated"]:
        out.print("[dim]there are more; ask for one --endpoint[/]")
