"""What every command shows people: one console, one way to complain, one set of colours for states."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

# A pipe has no width: a table cut to 80 columns would lose the ends of ids, which is what scripts want.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
err = Console(stderr=True, highlight=False)

_COLOURS = {
    "completed": "green",
    "delivered": "green",
    "enabled": "green",
    "failed": "red",
    "exhausted": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "paused": "yellow",
    "disabled": "red",
    "blocked": "yellow",
    "running": "cyan",
    "active": "cyan",
    "waiting": "blue",
    "pending": "blue",
    "delayed": "blue",
}


def complain(message: str, hint: str | None = None) -> None:
    """An error to standard error, with what to do about it."""
    err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    if hint:
        err.print(f"[dim]hint:[/] {escape(hint)}", soft_wrap=True)


def state(name: str) -> Text:
    """The name of a state in its colour."""
    return Text(name, style=_COLOURS.get(name, ""))


def fields(found: Mapping[str, Any]) -> None:
    """An object's fields, one a line, but for those that say nothing."""
    table = Table(show_header=False, box=None)
    for field, value in found.items():
        if value is None or value in ({}, [], ""):
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {item}" for name, item in value.items() if item is not None)
        shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        table.add_row(f"[dim]{field}[/]", state(shown) if field == "status" else Text(shown, style="bold" if field == "secret" else ""))
    out.print(table)
