"""The `hookline` command: one module per group of subcommands; exit codes 0 done, 1 failed, 2 usage or invalid configuration."""

import sys

import typer

from pipeline.cli import check, deliveries, demo, endpoints, events, listen, remote, replays, serve, token
from pipeline.cli.console import complain
from pipeline.errors import ConfigError, HooklineError

app = typer.Typer(
    name="hookline",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Event-driven webhook pipelines: BullMQ jobs chained by workflows in YAML, completion events pushed and signed.\n\n"
    "Start with [bold]hookline demo[/], then [bold]hookline serve --dev[/] beside a config.yaml of your own.",
)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("validate")(check.validate)
app.command("schema")(check.schema)
app.command("token")(token.token)
app.add_typer(remote.runs, name="runs")
app.add_typer(remote.jobs, name="jobs")
app.add_typer(endpoints.endpoints, name="endpoints")
app.add_typer(deliveries.deliveries, name="deliveries")
app.add_typer(replays.replays, name="replays")
app.add_typer(events.events, name="events")
app.command("explain")(deliveries.explain)
app.command("listen")(listen.listen)


def main() -> None:
    """The entry point: an error of ours becomes a sentence and an exit code, never a traceback."""
    try:
        app()
    except ConfigError as error:
        complain(str(error), error.hint)
        sys.exit(2)
    except HooklineError as error:
        complain(str(error), error.hint)
        sys.exit(1)


if __name__ == "__main__":
    main()
