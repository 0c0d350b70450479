"""`hookline replays`: many deliveries of an endpoint sent again, counted first, watched, and cancelled."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pipeline.cli.console import err, fields, listing, out, state
from pipeline.cli.options import ConfigFile, EndpointId, Limit, ReplayId, Token, Url, address, instant
from pipeline.cli.service import talk

if TYPE_CHECKING:
    from pipeline.client import Client

replays = typer.Typer(no_args_is_help=True, help="Send many deliveries again: what is lost, or missing, since a time.")
LOOK_SECONDS = 0.5
COUNTED = ("matched", "replayed", "skipped")


@replays.command("start")
def start_replay(
    endpoint_id: EndpointId,
    since: Annotated[str, typer.Option(help="From when on: [bold]2h[/] ago, or 2026-01-31T09:00:00Z.")],
    until: Annotated[str | None, typer.Option(help="Up to when, written so too [dim](default: now)[/].")] = None,
    status: Annotated[
        str | None, typer.Option(help="Of delivered, exhausted, skipped, comma-separated [dim](default: exhausted,skipped)[/].")
    ] = None,
    types: Annotated[str | None, typer.Option(help="Types or patterns, comma-separated [dim](default: all)[/].")] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Rather (with --status: also) the events that it wants now and has no record of.")
    ] = False,
    rate: Annotated[str | None, typer.Option(help="At most so many in a time: [bold]100/1m[/].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Send again what an endpoint has lost; count it first with --dry-run. Ctrl-C leaves the replay going on."""
    asked: dict[str, Any] = {
        "since": instant(since, "--since"),
        "until": instant(until, "--until"),
        "rate": rate,
        "missing": missing or None,
        "dryRun": dry_run or None,
    }
    asked |= {name: [part.strip() for part in text.split(",")] for name, text in (("status", status), ("types", types)) if text is not None}
    asked = {name: value for name, value in asked.items() if value is not None}

    async def ask(client: "Client") -> dict[str, Any]:
        begun = await client.start_replay(endpoint_id, asked)
        return begun if dry_run or detach else await _watch(client, begun)

    found = talk(address(url, config), token, ask)
    if dry_run:
        _show_count(found)
        return
    _show(found)


async def _watch(client: "Client", replay: dict[str, Any]) -> dict[str, Any]:
    err.print(f"[dim]{replay['id']}: hookline replays cancel {replay['id']} ends it[/]", soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("sent again"))
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(replay["endpoint"], total=None)
        while replay["status"] == "running":
            await asyncio.sleep(LOOK_SECONDS)
            replay = await client.show_replay(replay["id"])
            progress.update(task, completed=replay["replayed"] + replay["skipped"], total=replay["matched"] or None)
    return replay


@replays.command("list")
def list_replays(limit: Limit = 20, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """The newest replays."""

    async def ask(client: "Client") -> list[dict[str, Any]]:
        return [one async for one in client.replays(limit=limit)]

    found = talk(address(url, config), token, ask)
    rows = ((one["id"], state(one["status"]), one["endpoint"], *(str(one[name]) for name in COUNTED), one["startedAt"]) for one in found)
    listing(("replay", "status", "endpoint", *COUNTED, "started"), rows)


@replays.command("show")
def show_replay(replay_id: ReplayId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """How far a replay is."""
    _show(talk(address(url, config), token, lambda client: client.show_replay(replay_id)))


@replays.command("cancel")
def cancel_replay(replay_id: ReplayId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """End it; what it sent again stays so."""
    _show(talk(address(url, config), token, lambda client: client.cancel_replay(replay_id)))


def _show(found: dict[str, Any]) -> None:
    asked = found.pop("asked")
    fields(found | {f"asked {name}": value for name, value in asked.items() if value})


def _show_count(found: dict[str, Any]) -> None:
    more = "" if found["complete"] else " or more"
    span = f", from {found['oldest']} to {found['newest']}" if found["count"] else ""
    out.print(f"{found['count']:,}{more} would be sent again{span}")
    if found["sample"]:
        rows = ((one["delivery"], state(one["status"]), one["at"], one["event"], one["type"]) for one in found["sample"])
        listing(("delivery", "status", "at", "event", "type"), rows)
