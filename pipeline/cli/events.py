"""`hookline events`: the types that there are, a team's own among them, and events of these sent by hand."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from pipeline.cli.console import fields, listing, out
from pipeline.cli.options import ConfigFile, Token, Url, address
from pipeline.cli.service import talk

events = typer.Typer(no_args_is_help=True, help="List event types, register your team's own, and send events of them.")

Own = Annotated[str, typer.Argument(metavar="TYPE", help="Segments joined by dots, what happened last: [bold]invoice.paid[/].")]
EXAMPLE = """'{"invoiceId": "i-1", "total": 90.5}'"""
WRITTEN = "JSON, @FILE, or - for standard input"


@events.command("types")
def list_types(
    own: Annotated[bool, typer.Option("--own", help="Only those that were registered.")] = False,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """All event types that an endpoint can name: Hookline's, then your team's."""
    found = talk(address(url, config), token, lambda client: client.event_types())
    shown = [one for one in found if not own or one["source"] == "registered"]
    rows = ((one["type"], one["source"], one["updatedAt"] or "", one["description"]) for one in shown)
    listing(("type", "from", "registered", "what"), rows, none="none is registered; see hookline events register --help")


@events.command("show")
def show_type(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="One of [bold]hookline events types[/].")],
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """One event type: the JSON Schema of its data, and an example of it."""
    _show(talk(address(url, config), token, lambda client: client.event_type(type)))


@events.command("register")
def register_type(
    type: Own,
    description: Annotated[str, typer.Option(help="What has happened, for people.")] = "",
    schema: Annotated[str | None, typer.Option(help=f"JSON Schema of its data: {WRITTEN} [dim](default: any object is taken)[/].")] = None,
    example: Annotated[str | None, typer.Option(help=f"A data that fits it: {WRITTEN}.")] = None,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Register a type of your own, or replace all of it: from then on only data that fits its schema is taken.

    hookline events register invoice.paid --description "An invoice was paid." --schema @invoice.schema.json
    """
    given = {"schema": _object(schema, "--schema"), "example": _object(example, "--example")}
    _show(talk(address(url, config), token, lambda client: client.register_event_type(type, description=description, **given)))


@events.command("forget")
def forget_type(type: Own, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Forget a type that was registered; what was sent stays."""
    talk(address(url, config), token, lambda client: client.forget_event_type(type))
    out.print(f"{type} forgotten")


@events.command("send")
def send_event(
    type: Own,
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"An object: {WRITTEN}.")] = "{}",
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same one within a day sends nothing again, and shows the first id.")] = None,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Send an event to every endpoint that wants it, with a token of the role service or admin; shows its id.

    hookline events send invoice.paid '{"invoiceId": "i-1", "total": 90.5}'
    """
    event = {"type": type, "data": _object(data, "DATA")}
    (sent,) = talk(address(url, config), token, lambda client: client.publish([event], idempotency_key=key))
    out.print(sent)


def _object(text: str | None, option: str) -> dict[str, Any] | None:
    """What was given, as JSON. Raises typer.BadParameter."""
    if text is None:
        return None
    try:
        read = sys.stdin.read() if text == "-" else Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        found = json.loads(read)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise typer.BadParameter(f"cannot read {text.removeprefix('@')}: {reason}", param_hint=option) from error
    except ValueError as error:
        raise typer.BadParameter(
            f"this is not JSON ({error}); write it in single quotes: {EXAMPLE}; or name a file: @FILE", param_hint=option
        ) from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"should be an object such as {EXAMPLE}", param_hint=option)
    return found


def _show(found: dict[str, Any]) -> None:
    written = {name: found.pop(name) for name in ("schema", "example")}
    fields(found)
    for name, value in written.items():
        if value is not None:
            out.print(f"[dim]{name}[/]")
            out.print(Text(json.dumps(value, indent=2, ensure_ascii=False)), soft_wrap=True)
