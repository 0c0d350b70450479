"""The `hookline` command: one module per group of subcommands; exit codes 0 done, 1 failed, 2 usage or invalid configuration."""

import sys
from importlib import import_module

import typer

from pipeline.cli.console import complain
from pipeline.errors import ConfigError, HooklineError

COMMANDS = {
    "serve": ("serve", "Run the service."),
    "demo": ("demo", "See it work: six documents through a real service, each step and each verified webhook shown live."),
    "validate": ("check", "Check a configuration and its workflows; each mistake is shown with file, line, column and a suggestion."),
    "schema": ("check", "Print the JSON Schema of config.yaml, for editors that complete and check YAML."),
    "token": ("token", "Print a signed token for the HTTP API."),
    "runs": ("remote", "List, show, cancel and retry runs."),
    "jobs": ("remote", "Show jobs and count queues."),
    "endpoints": ("endpoints", "Create, list, change, pause, test and enable webhook endpoints."),
    "deliveries": ("deliveries", "What was sent to whom: list, show, send again."),
    "replays": ("replays", "Send many deliveries again: what is lost, or missing, since a time."),
    "events": ("events", "List event types, register your team's own, and send events of them."),
    "explain": ("deliveries", "Why an endpoint got an event, or did not, and what to do about it."),
    "listen": ("listen", "Forward events to a local URL, as its webhooks would arrive."),
}
"""Name → the module here that has it under that name, and its line in `hookline --help`."""


def commands(called: str | None) -> typer.Typer:
    """`hookline` with all its commands. Only the one that is called is imported: each process of the service would pay for all, too."""
    app = typer.Typer(
        name="hookline",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        help="Event-driven webhook pipelines: BullMQ jobs chained by workflows in YAML, completion events pushed and signed.\n\n"
        "Start with [bold]hookline demo[/], then [bold]hookline serve --dev[/] beside a config.yaml of your own.",
    )
    for name, (module, line) in COMMANDS.items():
        found = getattr(import_module(f"{__name__}.{module}"), name) if name == called else lambda: None
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name, short_help=line)(found)
    return app


def main() -> None:
    """The entry point: an error of ours becomes a sentence and an exit code, never a traceback."""
    try:
        commands(next((word for word in sys.argv[1:] if not word.startswith("-")), None))()
    except ConfigError as error:
        complain(str(error), error.hint)
        sys.exit(2)
    except HooklineError as error:
        complain(str(error), error.hint)
        sys.exit(1)


if __name__ == "__main__":
    main()
