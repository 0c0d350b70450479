"""`hookline runs` and `hookline jobs`: look at and act on a running service."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from pipeline.cli.console import listing, out, state
from pipeline.cli.options import ConfigFile, Limit, RunId, Token, Url, address
from pipeline.cli.service import talk

if TYPE_CHECKING:
    from pipeline.client import Client

runs = typer.Typer(no_args_is_help=True, help="List, show, cancel and retry runs.")
jobs = typer.Typer(no_args_is_help=True, help="Show jobs and count queues.")


@runs.command("list")
def list_runs(
    status: Annotated[str | None, typer.Option(help="Only those that are pending, running, waiting, completed, failed or cancelled.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only those of this workflow.")] = None,
    limit: Limit = 20,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """The newest runs."""

    async def ask(client: "Client") -> list[dict[str, Any]]:
        return [run async for run in client.runs(status=status, workflow=workflow, limit=limit)]

    found = talk(address(url, config), token, ask)
    rows = ((run["runId"], run["workflow"], state(run["status"]), run["userId"] or "", run["createdAt"], run["error"] or "") for run in found)
    listing(("run", "workflow", "status", "user", "created", "error"), rows)


@runs.command("show")
def show_run(run_id: RunId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """One run: its steps and what happened to it."""

    async def ask(client: "Client") -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return await client.run(run_id), [event async for event in client.timeline(run_id)]

    run, timeline = talk(address(url, config), token, ask)
    tree = Tree(state(run["status"]).append(f"  {run['runId']}  {run['workflow']}", style="bold"))
    for name, step in run["steps"].items():
        branch = tree.add(state(step["status"]).append(f"  {name}", style="bold"))
        for field in ("jobId", "attempts", "progress", "error", "reason"):
            if step.get(field):
                branch.add(Text(field, style="dim").append(f" {step[field]}", style="not dim"))
    out.print(tree)
    table = Table("time", "event", "step", "", box=None)
    for event in timeline:
        data = event["data"]
        table.add_row(event["timestamp"], event["type"], data.get("step") or "", Text(str(data.get("error") or data.get("reason") or "")[:80]))
    out.print(table)


@runs.command("cancel")
def cancel_run(run_id: RunId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Cancel a run: waiting jobs are removed, running ones told to stop."""
    run = talk(address(url, config), token, lambda client: client.cancel(run_id))
    out.print(run["runId"], state(run["status"]))


@runs.command("retry")
def retry_run(run_id: RunId, url: Url = None, token: Token = None, config: ConfigFile = None) -> None:
    """Run the failed steps again; completed ones keep their results."""
    run = talk(address(url, config), token, lambda client: client.retry(run_id))
    out.print(run["runId"], state(run["status"]))


@jobs.command("show")
def show_job(
    queue: Annotated[str, typer.Argument(help="Its queue.")],
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="Its id, as posting it was answered with.")],
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """One job of a queue."""
    job = talk(address(url, config), token, lambda client: client.job(queue, job_id))
    table = Table(show_header=False, box=None)
    for field, value in job.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        table.add_row(f"[dim]{field}[/]", state(shown) if field == "state" else Text(shown))
    out.print(table)


@jobs.command("stats")
def count_jobs(
    queue: Annotated[str | None, typer.Argument(help="One queue [dim](default: all, which needs the role admin)[/].")] = None,
    url: Url = None,
    token: Token = None,
    config: ConfigFile = None,
) -> None:
    """Jobs by state."""
    answer = talk(address(url, config), token, lambda client: client.stats(queue))
    queues = {answer["queueName"]: answer} if queue else answer["queues"]
    columns = ("waiting", "active", "completed", "failed", "delayed", "prioritized", "paused")
    table = Table("queue", *columns, box=None)
    for name, counts in queues.items():
        table.add_row(name, *(str(counts[column]) for column in columns))
    out.print(table)
