"""`hookline listen`: events of a running service, forwarded to a local URL as signed webhooks, with a table of what passed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import complain, err, out
from pipeline.cli.options import ConfigFile, Token, Url, address, web_url
from pipeline.cli.service import hints
from pipeline.errors import Unavailable
from webhooks.signing import generate_secret, key_of

if TYPE_CHECKING:
    from pipeline.cli.forwarder import Forwarded, Forwarder
    from pipeline.client import Client

RECONNECT_SECONDS = 1.0
_WIDTHS = (12, 6, 5, 23, 30)
"""Columns: time, status, ms, type, whose; what failed, and why, follows them. A narrow terminal breaks ids and reasons, not the answer."""


def listen(
    forward_to: Annotated[str, typer.Option("--forward-to", "-f", help="Where to send them, for example http://127.0.0.1:8000/hooks.")],
    types: Annotated[
        str | None,
        typer.Option(help="Types or patterns, comma-separated: [bold]job.completed,workflow.*[/] [dim](default: all but job.progress)[/]."),
    ] = None,
    secret: Annotated[
        str | None, typer.Option(envvar="HOOKLINE_LISTEN_SECRET", help="The whsec_… to sign with [dim](default: a new one, shown)[/].")
    ] = None,
    after: Annotated[str | None, typer.Option(help="Begin after this cursor instead of with the next event.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events; exit code 1 if one of them was not taken.")] = None,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Forward events to a local URL, as its webhooks would arrive.

    For developing a receiver: the service need not be able to reach your machine, because the events come over its event stream, and
    no endpoint has to be created. Each is sent once, signed; failed ones are shown, not repeated. Ctrl-C ends it with a summary.
    """
    web_url(forward_to, "--forward-to", "http://127.0.0.1:8000/hooks")
    try:
        key_of(secret or generate_secret())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--secret") from None
    made = secret or generate_secret()
    if not secret:
        err.print(f"Verify with the secret [bold]{made}[/] [dim](HOOKLINE_LISTEN_SECRET keeps one)[/]", soft_wrap=True)
    source = address(url, config)
    err.print(f"{escape(source)} → {escape(forward_to)}  [dim]{escape(types or 'all types')}; Ctrl-C ends it[/]", soft_wrap=True)
    from pipeline.cli.forwarder import Forwarder
    from pipeline.client import Client

    forwarder = Forwarder(forward_to, made, _show)

    async def run() -> None:
        async with Client(source, token) as client:
            _row("time", "status", "ms", "event", "of", style="dim")
            await forwarder.forward(_events(client, after, [part.strip() for part in (types or "").split(",") if part.strip()]), count)

    interrupted = False
    with hints():
        try:
            asyncio.run(run())
        except KeyboardInterrupt:
            interrupted = True
    _summary(forwarder)
    if forwarder.tally.refused and not interrupted:
        raise typer.Exit(1)


async def _events(client: "Client", after: str | None, types: list[str]) -> AsyncIterator[dict[str, Any]]:
    """Events as they happen; a stream that broke is taken up again where it was. Raises what makes going on pointless."""
    cursor, reached, silent = after, False, False
    while True:
        try:
            async with contextlib.aclosing(client.follow(after=cursor, types=types)) as stream:
                async for event in stream:
                    reached, silent = True, False
                    if event["type"] == "gap":
                        complain(
                            "the service no longer has all events since the last one", f"it goes on with the earliest, {event['data']['earliest']}"
                        )
                        continue
                    cursor = event["cursor"]
                    yield event
                reached = True
        except Unavailable as error:
            if not reached and cursor == after:
                raise
            if not silent:
                err.print(f"[dim]{escape(error.message)}; trying again[/]", soft_wrap=True)
                silent = True
        await asyncio.sleep(RECONNECT_SECONDS)


def _show(one: "Forwarded") -> None:
    event, data = one.event, one.event["data"]
    whose = " ".join(str(data[name]) for name in ("runId", "step") if data.get(name)) or str(data.get("jobId") or event["id"])
    at = datetime.fromisoformat(event["timestamp"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    _row(at, str(one.status or "–"), str(one.ms), event["type"], whose, more=one.error or "", style="" if one.ok else "red")


def _row(*cells: str, more: str = "", style: str) -> None:
    line = " ".join(
        cell.rjust(width) if place in (1, 2) else cell.ljust(width) for place, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    )
    out.print(Text(f"{line}  {more}".rstrip(), style=style), soft_wrap=True)


def _summary(forwarder: "Forwarder") -> None:
    tally = forwarder.tally
    if not tally.total:
        err.print("[dim]nothing passed[/]")
        return
    table = Table("event", "taken", "failed", box=None)
    for type in sorted({*tally.taken, *tally.refused}):
        failed = tally.refused[type]
        table.add_row(type, str(tally.taken[type]), Text(str(failed), style="red" if failed else ""))
    out.print()
    out.print(table)
