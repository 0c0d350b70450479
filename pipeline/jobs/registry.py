"""Which code does which job: the `@processor` mark, and dotted paths resolved to checked processors."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from pipeline.config import Config
from pipeline.errors import ConfigError, Fault
from pipeline.units import parse_duration, parse_size
from pipeline.yamlsource import Source, suggestion

Kind = Literal["async", "thread", "isolated", "push"]
Target = TypeVar("Target", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """What `@processor` says about its target."""

    name: str | None
    input: type[BaseModel] | None
    isolated: bool
    timeout: int
    """ms that one isolated attempt may take."""
    memory: int
    """Bytes of resident memory that the child of an isolated processor may hold."""
    advice: str = ""
    """What to do about an input that takes more time or memory; ends the reason of such a failure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Processor:
    """A processor that is ready to be called as `call(job, context)`."""

    path: str
    name: str
    """The function's or class's name, as the logs show it."""
    kind: Kind
    input: type[BaseModel] | None
    timeout: int
    memory: int
    call: Callable[..., Any]
    advice: str = ""


def processor(
    name: str | None = None,
    *,
    input: type[BaseModel] | None = None,
    isolated: bool = False,
    timeout: str = "5m",
    memory: str = "1GiB",
    advice: str = "",
) -> Callable[[Target], Target]:
    """Mark a function `process(job, context)`, or a class with a method of that name, as a processor.

    `async def` runs on the worker's loop, plain `def` in a thread; `isolated=True` runs in a child process that is killed
    when it takes longer than `timeout` or holds more than `memory`; `advice` then ends the reason. A class is made once
    per process, with the Config if its constructor takes one. `input` is validated before the call; data that does not fit
    fails the job at once, without retries.
    """

    def mark(target: Target) -> Target:
        target.__hookline__ = Marks(  # type: ignore[attr-defined]  # any callable takes an attribute, which no type says
            name=name, input=input, isolated=isolated, timeout=parse_duration(timeout), memory=parse_size(memory), advice=advice
        )
        return target

    return mark


def resolve(path: str, config: Config, *, folder: Path | None = None) -> Processor:
    """The processor at `package.module:Name` (or `package.module.Name`), found on PYTHONPATH or in `folder`.

    Raises ConfigError that says which part of the path was not found.
    """
    if path.startswith(("http://", "https://")):
        return _pushed(path, config)
    module_name, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    if folder and str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"processor {path!r}: cannot import {module_name!r}: {error}") from error
    except Exception as error:
        # The module is the user's, and an import runs it: whatever it raises is a mistake in it, and not one of ours.
        raise ConfigError(f"processor {path!r}: importing {module_name!r} raised {_told(error)}") from error
    target = getattr(module, attribute, None)
    if not callable(target):
        callables = [name for name, value in vars(module).items() if callable(value) and getattr(value, "__module__", None) == module.__name__]
        raise ConfigError(f"processor {path!r}: module {module_name!r} has no callable {attribute!r}{suggestion(attribute, callables)}")
    marks = getattr(target, "__hookline__", None) or Marks(
        name=None, input=None, isolated=False, timeout=parse_duration("5m"), memory=parse_size("1GiB")
    )
    call = _instance(target, config) if inspect.isclass(target) else target
    if not callable(call):
        raise ConfigError(f"processor {path!r}: class {attribute!r} has no method process(job, context)")
    kind: Kind = "isolated" if marks.isolated else "async" if inspect.iscoroutinefunction(call) else "thread"
    return Processor(
        path=path,
        name=target.__name__,
        kind=kind,
        input=marks.input,
        timeout=marks.timeout,
        memory=marks.memory,
        call=call,
        advice=marks.advice,
    )


def resolve_all(config: Config, source: Source | None = None) -> dict[str, dict[str, Processor]]:
    """Every queue's processors by job name, none for an external one.

    Raises one ConfigError with every path that leads nowhere, placed in `source`.
    """
    source = source or Source(file="config.yaml", data=None)
    found: dict[str, dict[str, Processor]] = {}
    faults: list[Fault] = []
    for queue, settings in config.queues.items():
        found[queue] = {}
        for name, path in ({} if settings.external else settings.processors).items():
            try:
                found[queue][name] = resolve(path, config, folder=Path(config.folder))
            except ConfigError as error:
                where = ("queues", queue, "processors", name)
                # A processor's own configuration (a rule pack) has places of its own, which its text names.
                fault = source.fault(where, str(error))
                # A built-in queue stands nowhere in the file: then the message must do.
                faults.append(fault if where in source.values else Fault(fault.path, fault.message))
    if faults:
        raise ConfigError("some processors cannot be used", file=source.file, faults=tuple(faults))
    return found


def _pushed(url: str, config: Config) -> Processor:
    """A processor that is another service; `processors/push.py` calls it."""
    if config.push.secret is None and not config.dev:
        raise ConfigError("it is pushed to, and there is no secret to sign with: set push.secret (whsec_… of 24 to 64 random bytes)")
    if config.server.public_url is None and config.server.host in ("0.0.0.0", "::"):
        raise ConfigError(f"it is pushed to, and {config.server.host} is no address to call back: set server.public_url")

    def call(*_: Any) -> Any:
        raise TypeError("a pushed job is not called here")

    return Processor(path=url, name="PushProcessor", kind="push", input=None, timeout=config.push.timeout, memory=0, call=call)


def _told(error: Exception) -> str:
    """The error with the place in the user's file, which its text leaves out: the last one of its traceback."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = "" if isinstance(error, SyntaxError) else f" ({Path(frame.filename).name}, line {frame.lineno})"
    return f"{type(error).__name__}: {error}{place}"


def _instance(target: type, config: Config) -> Any:
    takes_config = len(inspect.signature(target).parameters) > 0
    return getattr(target(config) if takes_config else target(), "process", None)
