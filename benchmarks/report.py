"""What a benchmark found, as Markdown and as a picture: tables, bars, and each ratio beside what it must be."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from benchmarks.measure import Round, Spread


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """Ours by theirs, with what docs/design.md, section 9, asks of it."""

    work: str
    against: str
    found: Spread
    bound: float
    aim: float
    at_most: bool = False
    """Whether less is better, as of CPU time."""

    @property
    def kept(self) -> bool:
        return self.found.median <= self.bound if self.at_most else self.found.median >= self.bound

    def row(self) -> str:
        asked = f"{'at most' if self.at_most else 'at least'} {self.bound}×"
        verdict = "yes" if self.kept else "**no**"
        return f"| {self.work} | {self.against} | {self.found.shown(2)}× | {asked} | {self.aim}× | {verdict} |"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """Two rates side by side."""

    label: str
    ours: float
    theirs: float
    unit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    title: str
    notes: str
    table: list[str]
    ratios: list[Ratio] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)

    def markdown(self) -> str:
        return "\n".join([f"## {self.title}", "", self.notes, "", *self.table, ""])


def table(*columns: str) -> list[str]:
    """Head of a table whose first column is text."""
    return [f"| {' | '.join(columns)} |", "|---|" + "--:|" * (len(columns) - 1)]


ROUND_COLUMNS = ("CPU µs each", "store µs each", "RSS MiB")


def cells(rounds: Sequence[Round]) -> str:
    """Rate with least and most, then the medians of ROUND_COLUMNS."""
    of = {what: Spread.of(getattr(one, what) for one in rounds) for what in ("rate", "cpu", "store", "rss")}
    return f"{of['rate'].shown()} | {of['cpu'].median:,.0f} | {of['store'].median:,.0f} | {of['rss'].median:,.0f}"


def ratio_table(ratios: Sequence[Ratio]) -> list[str]:
    return [*table("work", "against", "ratio, median [least–most]", "must be", "aim", "is it"), *(ratio.row() for ratio in ratios)]


# --- picture -------------------------------------------------------------------------------------------------------------

WIDTH, LABEL, ROW, TOP = 800, 290, 46, 46
OURS, THEIRS, INK = "#2f6fde", "#b9c0cc", "#24292f"


def picture(bars: Sequence[Bar], caption: str) -> str:
    """An SVG: for each pair two bars, the longer of which fills the width, and how many times the other it is."""
    room = WIDTH - LABEL - 150
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{TOP + ROW * len(bars) + 24}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        f'<rect width="100%" height="100%" fill="white"/><g fill="{INK}"><rect x="{LABEL}" y="12" width="12" height="12" fill="{OURS}"/>'
        f'<text x="{LABEL + 18}" y="22">Hookline</text><rect x="{LABEL + 100}" y="12" width="12" height="12" fill="{THEIRS}"/>'
        f'<text x="{LABEL + 118}" y="22">Node</text>',
    ]
    for number, bar in enumerate(bars):
        y = TOP + ROW * number
        scale = room / max(bar.ours, bar.theirs)
        parts.append(f'<text x="{LABEL - 10}" y="{y + 20}" text-anchor="end">{escape(bar.label)}</text>')
        for line, (value, colour) in enumerate(((bar.ours, OURS), (bar.theirs, THEIRS))):
            times = f" · {bar.ours / bar.theirs:.1f}×" if line == 0 else ""
            parts.append(
                f'<rect x="{LABEL}" y="{y + 17 * line}" width="{value * scale:.0f}" height="14" fill="{colour}"/>'
                f'<text x="{LABEL + 6 + value * scale:.0f}" y="{y + 11 + 17 * line}">{value:,.0f} {escape(bar.unit)}{times}</text>'
            )
    parts.append(f'<text x="10" y="{TOP + ROW * len(bars) + 12}" font-size="10">{escape(caption)}</text></g></svg>\n')
    return "\n".join(parts)
