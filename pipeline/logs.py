"""How the service logs: one JSON line per event, or coloured lines for people at a terminal."""

import asyncio
import contextlib
import json
import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
import structlog


class _Malformed(logging.Filter):
    """Requests that are no HTTP: aiohttp would show them with a traceback, and their headers hold tokens."""

    def filter(self, record: logging.LogRecord) -> bool:
        # Here, because processes that serve no HTTP log, too.
        from aiohttp.http_exceptions import HttpProcessingError
        from aiohttp.web import RequestPayloadError

        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | RequestPayloadError):
            record.exc_info = None
            record.msg, record.levelno, record.levelname = f"{record.msg}: {type(error).__name__}", logging.WARNING, "WARNING"
        return True


_malformed = _Malformed()
_json = False
_soon: list[dict[str, Any]] = []


def info_many(event: str, rows: Sequence[dict[str, Any]]) -> None:
    """Log one event of many jobs: as `log.info(event, **row)` for each, but in one write (a line alone costs more than a small job)."""
    if not _json:
        log = structlog.get_logger()
        for row in rows:
            log.info(event, **row)
    elif rows:
        more = _more(event)
        _write(_line(row | more) for row in rows)


def info_soon(event: str, row: dict[str, Any]) -> None:
    """The same for one event of many tasks: the lines of one tick of the loop are written at its end."""
    if not _json:
        structlog.get_logger().info(event, **row)
        return
    _soon.append({**row, **structlog.contextvars.get_contextvars(), "event": event, "level": "info"})
    if len(_soon) == 1:
        asyncio.get_running_loop().call_soon(_write_soon)


def _more(event: str) -> dict[str, Any]:
    """What every line has."""
    return {**structlog.contextvars.get_contextvars(), "event": event, "level": "info", "time": _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _line(row: dict[str, Any]) -> str:
    return _dumps(row, default=repr) + "\n"


def _write(lines: Iterable[str]) -> None:
    # A full disk or a reader that is gone: work goes on without its log, rather than stopping half-way.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write("".join(lines))
        sys.stderr.flush()


class _Writer:
    """structlog's logger: each line is written, or lost, and never raises."""

    def __init__(self, *_: object) -> None: ...

    def msg(self, line: str) -> None:
        _write((line, "\n"))

    debug = info = warning = error = critical = exception = msg


def _write_soon() -> None:
    rows, _soon[:] = [*_soon], []
    time = _now()
    _write(_line(row | {"time": time}) for row in rows)


def _dumps(value: Any, default: Any, **_: Any) -> str:
    try:
        return orjson.dumps(value, default=default).decode()
    except TypeError:  # what orjson does not take: whole numbers beyond 64 bits, lone surrogates
        return json.dumps(value, default=default, separators=(",", ":"))


def configure(format: Literal["json", "console"], *, level: int = logging.INFO) -> None:
    """Send structlog's events, and the warnings of libraries, to standard error."""
    global _json
    _json = format == "json" and level <= logging.INFO
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    # Tracebacks without local variables: among those are documents, tokens and secrets.
    # Written as `info_many` writes them: what people grep for is the same in each line.
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dumps)]
        if format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Writer,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("aiohttp.server").addFilter(_malformed)
    # What is odd about a form's headers is quoted in a line that is no log's.
    warnings.filterwarnings("ignore", module=r"aiohttp\.multipart")
