"""What environment variables say about the configuration: the names that Hookline reads, and `${VAR}` in config.yaml."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from pipeline.errors import Fault
from pipeline.units import format_duration
from pipeline.yamlsource import Path, Source, suggestion

_VARIABLE = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}|(?P<broken>\$\{[^}\s]{0,40}\}?)")
JOB_OPTIONS = "BULLMQ_DEFAULT_JOB_OPTIONS"
_IGNORED_OPTIONS = ("delay", "priority", "lifo", "timeout", "jobId", "repeat", "stackTraceLimit", "sizeLimit", "failParentOnFailure")
"""Options of BullMQ that have no meaning as a default of every queue here: an operator is warned, not refused."""


@dataclass(kw_only=True)
class Environment:
    """The part of the configuration that comes from environment variables."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Nested as in config.yaml."""
    origins: dict[str, str] = field(default_factory=dict)
    """Dotted path of a setting → the variable it came from."""
    every_queue: dict[str, Any] = field(default_factory=dict)
    """Settings of every queue, above the built-in ones and below those of config.yaml."""
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def set(self, path: str, value: Any, variable: str) -> None:
        target = self.settings
        *sections, name = path.split(".")
        for section in sections:
            target = target.setdefault(section, {})
        target[name] = value
        self.origins[path] = variable


def read(environ: Mapping[str, str]) -> Environment:
    """The settings in the environment; an empty variable counts as unset."""
    found = Environment()
    given = {name: value for name, value in environ.items() if value}
    for variable, path in (
        ("BULLMQ_PREFIX", "bullmq.prefix"),
        ("HOOKLINE_JWT_SECRET", "auth.jwt_secret"),
        ("HOOKLINE_PORT", "server.port"),
        ("HOOKLINE_DATA_DIR", "data_dir"),
        ("HOOKLINE_LOG_FORMAT", "log_format"),
    ):
        if variable in given:
            found.set(path, given[variable], variable)
    if keys := given.get("HOOKLINE_ENCRYPTION_KEYS"):
        found.set("encryption_keys", [key.strip() for key in keys.split(",") if key.strip()], "HOOKLINE_ENCRYPTION_KEYS")
    _read_redis(given, found)
    if JOB_OPTIONS in given:
        _read_job_options(given[JOB_OPTIONS], found)
    return found


def _read_redis(given: Mapping[str, str], found: Environment) -> None:
    url, host, port = given.get("REDIS_URL"), given.get("REDIS_HOST"), given.get("REDIS_PORT")
    if port is not None and not (port.isdecimal() and 0 < int(port) < 65536):
        found.faults.append(Fault("REDIS_PORT", f"{port!r} is not a port (1 to 65535)"))
        return
    if url:
        found.set("redis.url", url, "REDIS_URL")
        if not _same_server(url, host, port):
            found.warnings.append("REDIS_URL names another server than REDIS_HOST and REDIS_PORT do; REDIS_URL is used")
    elif host or port:
        bracketed = f"[{host}]" if host and ":" in host else host
        found.set("redis.url", f"redis://{bracketed or '127.0.0.1'}:{port or 6379}", "REDIS_HOST" if host else "REDIS_PORT")


def _same_server(url: str, host: str | None, port: str | None) -> bool:
    parts = urlsplit(url)
    try:
        named = parts.port or 6379
    except ValueError:
        return True  # The URL is refused for that, which is enough to say.
    return (host is None or parts.hostname == host.lower()) and (port is None or named == int(port))


def _read_job_options(text: str, found: Environment) -> None:
    try:
        options = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        found.faults.append(Fault(JOB_OPTIONS, f"is not JSON: {error}"))
        return
    if not isinstance(options, dict):
        found.faults.append(Fault(JOB_OPTIONS, 'should be an object such as {"attempts": 3, "removeOnComplete": 100}'))
        return
    for name, value in options.items():
        if name in ("removeOnComplete", "removeOnFail"):
            _read_keep(name, value, found)
        elif name == "backoff":
            _read_backoff(value, found)
        elif name == "attempts":
            if _whole(value, 1, 100):
                found.every_queue["attempts"] = value
            else:
                found.faults.append(Fault(f"{JOB_OPTIONS}.attempts", "should be a whole number from 1 to 100"))
        elif name in _IGNORED_OPTIONS:
            found.warnings.append(f"{JOB_OPTIONS}.{name} has no effect: it is not an option that every job can share")
        else:
            known = ("attempts", "backoff", "removeOnComplete", "removeOnFail")
            found.faults.append(Fault(f"{JOB_OPTIONS}.{name}", f"unknown option {name!r}{suggestion(name, known)}"))


def _read_keep(name: str, value: Any, found: Environment) -> None:
    """BullMQ's number, object with `count`, true (keep none) or false (keep all)."""
    count = value.get("count") if isinstance(value, dict) else value
    if isinstance(value, dict) and set(value) - {"count"}:
        found.warnings.append(f"{JOB_OPTIONS}.{name}: only `count` is honoured; finished jobs are not removed by age")
    if isinstance(count, bool):
        count = 0 if count else -1
    if not _whole(count, -1, 10_000_000):
        found.faults.append(Fault(f"{JOB_OPTIONS}.{name}", "should be a number of jobs to keep, true (keep none) or false (keep all)"))
        return
    found.every_queue.setdefault("keep", {})["completed" if name == "removeOnComplete" else "failed"] = count


def _read_backoff(value: Any, found: Environment) -> None:
    """BullMQ's `{type, delay}`, or a number of ms, which means fixed."""
    backoff = value if isinstance(value, dict) else {"type": "fixed", "delay": value}
    delay = backoff.get("delay", 0)
    if backoff.get("type", "fixed") not in ("fixed", "exponential") or not _whole(delay, 0, 86_400_000) or set(backoff) - {"type", "delay"}:
        found.faults.append(Fault(f"{JOB_OPTIONS}.backoff", 'should be ms, or {"type": "fixed" or "exponential", "delay": ms (at most a day)}'))
        return
    found.every_queue["backoff"] = {"type": backoff.get("type", "fixed"), "delay": format_duration(delay)}


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def expand(data: Any, environ: Mapping[str, str], source: Source, path: Path = ()) -> tuple[Any, list[Fault]]:
    """The data with `${VAR}` and `${VAR:-default}` replaced in its texts (`$${` writes a plain `${`), and a fault for each that is unset.

    A text that is one variable and comes out empty becomes null, so that `${VAR:-}` means "not set".
    """
    if isinstance(data, Mapping):
        pairs = {key: expand(item, environ, source, (*path, key)) for key, item in data.items()}
        return {key: item for key, (item, _) in pairs.items()}, [fault for _, faults in pairs.values() for fault in faults]
    if isinstance(data, list):
        items = [expand(item, environ, source, (*path, index)) for index, item in enumerate(data)]
        return [item for item, _ in items], [fault for _, faults in items for fault in faults]
    if not isinstance(data, str) or "${" not in data:
        return data, []
    faults: list[Fault] = []

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match["escaped"]:
            return "${"
        if match["broken"]:
            faults.append(source.fault(path, f"{match['broken']!r} is not a variable; write ${{NAME}} or ${{NAME:-default}}", offset=match.start()))
            return ""
        found = environ.get(name)
        if default is not None:
            return found or default
        if found is None:
            faults.append(
                source.fault(path, f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}", offset=match.start())
            )
        return found or ""

    text = _VARIABLE.sub(value, data)
    return (text if text or not _VARIABLE.fullmatch(data) else None), faults
