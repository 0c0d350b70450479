"""What every command shows people: one console, one way to complain, one set of colours for states."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_CONTROLS = dict.fromkeys(code for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t")


class _Console(Console):
    """Shows what others have written, receivers and publishers among them, without what a terminal would do on its account."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(segment.text.translate(_CONTROLS), segment.style)


# A pipe has no width: a table cut to 80 columns would lose the ends of ids, which is what scripts want.
out = _Console(highlight=False, width=None if sys.stdout.isatty() else 240)
err = _Console(stderr=True, highlight=False)
WIDEST = 10_000
"""Columns; no row is as wide."""

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


def listing(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], none: str = "none") -> None:
    """Rows under the columns' names; in a terminal that is too narrow for them, a paragraph for each: what is cut off cannot be copied.

    `none`: what is said, on standard error, if there are no rows.
    """
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    if not table.row_count:
        err.print(f"[dim]{none}[/]")
    if not out.is_terminal or out.measure(table, options=out.options.update(width=WIDEST)).maximum <= out.width:
        out.print(table)
        return
    for first, second, *cells in zip(*(column.cells for column in table.columns), strict=True):
        out.print(Text("  ").join((first, second)))
        named = (Text(name, style="dim").append(f" {cell}".rstrip(), style="not dim") for name, cell in zip(columns[2:], cells, strict=True) if cell)
        out.print(Padding(Text(", ").join(named), (0, 0, 0, 4)))


def plain(value: Any) -> str:
    """A value of JSON in one line, without JSON's punctuation."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, list):
        return ("; " if any(isinstance(item, Mapping) for item in value) else " ").join(map(plain, value))
    return str(value).lower() if isinstance(value, bool) else "–" if value is None else str(value)


def fields(found: Mapping[str, Any]) -> None:
    """An object's fields, one a line, but for those that say nothing."""
    table = Table(show_header=False, box=None)
    for field, value in found.items():
        if value is None or value in ({}, [], ""):
            continue
        shown = plain(value)
        table.add_row(f"[dim]{field}[/]", state(shown) if field == "status" else Text(shown, style="bold" if field == "secret" else ""))
    out.print(table)
