"""What the demo shows: a live table at a terminal, plain lines elsewhere, and the same table at the end."""

import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import state

STEPS = ("process", "analyze", "notify")


@dataclass(slots=True)
class Row:
    """One document on its way."""

    document: str
    run_id: str = ""
    steps: dict[str, str] = field(default_factory=dict)
    """Step → status."""
    progress: dict[str, int] = field(default_factory=dict)
    score: int | None = None
    findings: int | None = None
    status: str = "pending"
    error: str | None = None
    received: dict[str, str] = field(default_factory=dict)
    """Event id → type, of the webhooks that arrived with a valid signature."""
    due: set[str] = field(default_factory=set)
    """Ids of the events that a webhook has to tell."""
    started: float = field(default_factory=time.monotonic)
    seconds: float | None = None

    def heard(self, event: dict[str, Any]) -> str | None:
        """Take in an event of the run; returns what to say about it, if anything."""
        data, kind = event["data"], event["type"]
        if kind != "job.progress":
            self.due.add(event["id"])
        step = data.get("step")
        if kind == "job.progress":
            self.progress[step] = data["progress"]
            self.steps.setdefault(step, "running")
            return None
        if kind.startswith("workflow.step."):
            self.steps[step] = kind.rsplit(".", 1)[1]
            if kind.endswith("completed") and step == "analyze":
                result = data.get("result") or {}
                self.score, self.findings = result.get("score"), sum(framework["findings"] for framework in result.get("frameworks", {}).values())
            return f"{step} {self.steps[step]}" + (f": {data['error']}" if data.get("error") else "")
        if kind in ("workflow.completed", "workflow.failed", "workflow.cancelled"):
            self.status = kind.rsplit(".", 1)[1]
            self.error = data.get("error")
            self.seconds = time.monotonic() - self.started
            return f"run {self.status}"
        if kind == "workflow.started":
            self.status = "running"
            return "run started"
        return None


class Board:
    """The rows, shown as they change."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: dict[str, Row] = {}
        self.forged: list[str] = []
        """`webhook-id` of each webhook whose signature did not fit."""
        self.silent = False
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self.table) if console.is_terminal else None

    def __enter__(self) -> "Board":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        """A plain line, where (or as long as) there is no live table."""
        if not self.silent and not (self._live and self._live.is_started):
            self.console.print(line, markup=False, soft_wrap=True)

    def finish(self) -> None:
        """Leave the final table on the screen."""
        if not self._live:
            self.console.print(self.table())

    def table(self) -> Table:
        # Fits into 80 columns.
        table = Table(
            "document",
            "process",
            "analyze",
            "notify",
            "run",
            "webhooks",
            "time",
            box=None,
            padding=(0, 1, 0, 0),
            caption="analyze: score (findings) · webhooks: verified/received",
            caption_justify="left",
        )
        for row in self.rows.values():
            cells = [self._step(row, step) for step in STEPS]
            verified, received = len(row.received), len(row.received) + sum(id in row.due for id in self.forged)
            time_taken = f"{row.seconds:.1f} s" if row.seconds is not None else ""
            table.add_row(row.document, *cells, state(row.status), f"{verified}/{received}", time_taken)
        return table

    def _step(self, row: Row, step: str) -> Text:
        status = row.steps.get(step, "pending" if row.status in ("pending", "running") else "–")
        if status == "running" and row.progress.get(step):
            return state(status).append(f" {row.progress[step]} %")
        shown = state(status)
        if step == "analyze" and status == "completed":
            shown = Text("no text" if row.score is None else f"{row.score}", style="green").append(f" ({row.findings})", style="dim")
        return shown
