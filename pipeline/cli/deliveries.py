"""`hookline deliveries` and `hookline explain`: what became of each telling, and why."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from pipeline.cli.console import fields, listing, out, plain, state
from pipeline.cli.options import ConfigFile, DeliveryId, Limit, Since, Token, Until, Url, address, instant
from pipeline.cli.service import talk

if TYPE_CHECKING:
    from pipeline.client import Client

deliveries = typer.Typer(no_args_is_help=True, help="What was sent to whom: list, show, send again.")
ANSWER_SHOWN = 400
"""Characters of an answer; the API has all that is kept of it."""


@deliveries.command("list")
def list_deliveries(
    status: Annotated[str | None, typer.Option(help="Only those that are pending, delivered, exhausted or skipped.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only those to this endpoint.")] = None,
    type: Annotated[str | None, typer.Option(help="Only events of this type or pattern.")] = None,
    since: Since = None,
    until: Until = None,
    event: Annotated[str | None, typer.Option(help="Only those of this event.")] = None,
    run: Annotated[str | None, typer.Option(help="Only those of this run's events.")] = None,
    answered: Annotated[str | None, typer.Option(help="Only those last answered so: 503, 5xx, none.")] = None,
    limit: Limit = 20,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """The newest deliveries."""

    async def ask(client: "Client") -> list[dict[str, Any]]:
        return [
            one
            async for one in client.deliveries(
                status=status,
                endpoint=endpoint,
                type=type,
                since=instant(since, "--since"),
                until=instant(until, "--until"),
                event=event,
                run=run,
                last_status=answered,
                limit=limit,
            )
        ]

    found = talk(address(url, config), token, ask)
    listing(("delivery", "status", "event", "endpoint", "attempts", "last", "created", "next"), map(_row, found))


def _row(one: dict[str, Any]) -> tuple[str | Text, ...]:
    last = one["reason"] or str(one["lastStatus"] or "")
    times = one["createdAt"], one["nextAttemptAt"] or ""
    return (one["id"], state(one["status"]), one["type"], one["endpoint"], str(one["attemptCount"]), last, *times)


@deliveries.command("show")
def show_delivery(delivery_id: DeliveryId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """One delivery with each of its attempts."""
    found = talk(address(url, config), token, lambda client: client.delivery(delivery_id))
    attempts = found.pop("attempts")
    fields(found)
    listing(("attempt", "status", "at", "ms", "address", "answer", "phases"), map(_attempt, attempts))


def _attempt(one: dict[str, Any]) -> tuple[str | Text, ...]:
    said = (one["error"], "red"), ((one["response"] or "")[:ANSWER_SHOWN], "dim")
    answer = Text(": ").join(Text(text, style=style) for text, style in said if text)
    return (str(one["number"]), plain(one["status"]), one["at"], plain(one["durationMs"]), one["address"] or "", answer, phases(one))


@deliveries.command("replay")
def replay_delivery(delivery_id: DeliveryId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Send it again, now; its webhook-id stays the same."""
    found = talk(address(url, config), token, lambda client: client.replay(delivery_id))
    out.print(found["id"], state(found["status"]))


@deliveries.command("undelivered")
def list_undelivered(
    endpoint: Annotated[str | None, typer.Option(help="Only those to this endpoint.")] = None,
    run: Annotated[str | None, typer.Option(help="Only those of this run's events.")] = None,
    type: Annotated[str | None, typer.Option(help="Only events of this type or pattern.")] = None,
    limit: Limit = 20,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """What ought to have arrived and has not, the oldest first, and why."""

    async def ask(client: "Client") -> list[dict[str, Any]]:
        return [one async for one in client.undelivered(endpoint=endpoint, run=run, type=type, limit=limit)]

    found = talk(address(url, config), token, ask)
    rows = ((one["id"], state(one["status"]), one["type"], one["endpoint"], one["createdAt"], one["why"]["reason"]) for one in found)
    listing(("delivery", "status", "event", "endpoint", "created", "why"), rows)


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
    if not answer["items"]:
        out.print(f"no event of {run} is among those that are kept", markup=False)
    for one in answer["items"]:
        tree = Tree(Text(one["type"] or one["event"], style="bold").append(f" → {one['endpoint'] or 'nobody'}", style="not bold"))
        branch = tree.add(Text(one["reason"], style="green" if one["verdict"] == "delivered" else "yellow"))
        if one["advice"]:
            branch.add(Text(f"→ {one['advice']}"))
        for fact in one["facts"]:
            tree.add(Text(f"{fact['name']}: ", style="dim").append(plain(fact["value"]), style="not dim"))
        out.print(tree)
    if answer["truncated"]:
        out.print("[dim]there are more; ask for one --endpoint[/]")


def phases(attempt: dict[str, Any]) -> str:
    """What took how long, as one line; empty where nothing was sent."""
    return ", ".join(f"{name} {ms:.1f} ms" for name, ms in (attempt.get("phases") or {}).items() if ms is not None)
