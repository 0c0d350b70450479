"""The configuration as it is loaded: built-in values, config.yaml, environment and command line, merged and checked in one go."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import environment, yamlsource
from pipeline.config import Config
from pipeline.config.processors import CHANNELS, Template
from pipeline.config.queues import BUILTIN_QUEUES
from pipeline.errors import ConfigError, Fault
from pipeline.processors import templates
from pipeline.validation import check
from pipeline.workflows import definition
from pipeline.yamlsource import Source

_SET_BY_US = {"dev": "give --dev on the command line", "folder": "it is where the file is", "warnings": "they are found, not set"}
_VARIABLE_TEXT = {"type": "string", "pattern": r"\$\{.+\}"}


def load(path: Path | None, environ: Mapping[str, str], *, dev: bool = False, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration of this process.

    Later wins: built-in values, the file (`path`, else HOOKLINE_CONFIG, else none), environment variables, `overrides` (nested as
    in the file; from the command line). Raises one ConfigError with every fault found, workflows included.
    """
    return load_with_source(path, environ, dev=dev, overrides=overrides)[0]


def load_with_source(
    path: Path | None, environ: Mapping[str, str], *, dev: bool = False, overrides: Mapping[str, Any] | None = None
) -> tuple[Config, Source]:
    """As `load`, with the file as parsed: it knows where everything stands."""
    config, source, faults = look(path, environ, dev=dev, overrides=overrides)
    if faults or config is None:
        raise ConfigError("the configuration cannot be used", file=source.file, faults=faults)
    return config, source


def look(
    path: Path | None, environ: Mapping[str, str], *, dev: bool = False, overrides: Mapping[str, Any] | None = None
) -> tuple[Config | None, Source, tuple[Fault, ...]]:
    """As `load_with_source`, with what is wrong beside a configuration of the rest, which further checks can go by.

    None where the rest is none. Raises ConfigError where the file cannot be read.
    """
    if path is None and environ.get("HOOKLINE_CONFIG"):
        path = Path(environ["HOOKLINE_CONFIG"])
    source = _read(path)
    loader = _Loader(source, environ)
    config = loader.load(overrides or {}, dev=dev, folder=str(path.resolve().parent) if path else ".")
    return config, source, tuple(loader.faults)


def missing_secrets(config: Config) -> tuple[Fault, ...]:
    """What a service outside `--dev` still needs before it may start."""
    faults = []
    if not config.dev and not _secret(config.auth.jwt_secret) and not config.auth.jwks_url:
        faults.append(Fault("auth.jwt_secret", "is missing: set HOOKLINE_JWT_SECRET (at least 32 random characters), or auth.jwks_url"))
    if not config.dev and not config.encryption_keys:
        faults.append(Fault("encryption_keys", "is missing: set HOOKLINE_ENCRYPTION_KEYS; make a key with: openssl rand -base64 32"))
    return tuple(faults)


def require_secrets(config: Config) -> None:
    """Raise ConfigError if `missing_secrets` finds any."""
    if faults := missing_secrets(config):
        raise ConfigError("secrets are missing (to try Hookline out, `hookline serve --dev` makes them)", faults=faults)


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of config.yaml, for editors that complete and check YAML."""
    made = Config.model_json_schema()
    properties = made["properties"]
    for name in _SET_BY_US:
        properties.pop(name)
    for part in (properties, made["$defs"]):
        _allow_variables(part)
    workflow = definition.schema()
    made["$defs"] |= workflow.pop("$defs", {})
    properties["workflows"] = {"type": "object", "additionalProperties": workflow, "description": "Workflows by name."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "Hookline configuration"}


class _Loader:
    def __init__(self, source: Source, environ: Mapping[str, str]) -> None:
        self._source = source
        self._environ = environ
        self._env = environment.read(environ)
        self.faults: list[Fault] = []

    def load(self, overrides: Mapping[str, Any], *, dev: bool, folder: str) -> Config | None:
        written = self._written()
        self.faults += self._env.faults
        merged = merge({"queues": self._queues(written.get("queues"))}, {name: value for name, value in written.items() if name != "queues"})
        merged = merge(merge(merged, self._env.settings), overrides)
        merged |= {"dev": dev, "folder": folder, "warnings": self._env.warnings}
        self._env.origins |= {path: f"{path} (command line)" for path in _leaves(overrides)}
        config, faults = check(Config, merged, self._source)
        # A variable that is unset leaves a value that does not fit either: the first complaint is the one to act on.
        known = {fault.path for fault in self.faults}
        self.faults += [self._at_its_origin(fault) for fault in faults if fault.path not in known]
        if config is not None:
            self._check_workflows(config)
            self._check_templates(config)
        return config

    def _written(self) -> dict[str, Any]:
        """The file's settings with variables expanded, outside of workflows: there `${{ }}` has another meaning."""
        data = self._source.data
        if data is None:
            return {}
        if not isinstance(data, Mapping):
            self.faults.append(self._source.fault((), "a configuration should be a mapping (server, redis, queues, workflows, …)"))
            return {}
        # `workflows:` with all its lines commented out is null, and means none.
        given = {name: value for name, value in data.items() if value is not None}
        for name in _SET_BY_US.keys() & given.keys():
            self.faults.append(self._source.fault((name,), f"unknown key {name!r}: {_SET_BY_US[name]}", key=True))
            del given[name]
        workflows = {"workflows": given.pop("workflows")} if "workflows" in given else {}
        expanded, faults = environment.expand(given, self._environ, self._source)
        self.faults += faults
        return {**expanded, **workflows}

    def _queues(self, written: Any) -> Any:
        if written is not None and not isinstance(written, Mapping):
            return written
        given = {name: {} if queue is None else queue for name, queue in (written or {}).items()}
        names = dict.fromkeys((*BUILTIN_QUEUES, *given))
        return {name: merge(merge(BUILTIN_QUEUES.get(name, {}), self._env.every_queue), given.get(name, {})) for name in names}

    def _at_its_origin(self, fault: Fault) -> Fault:
        """A fault of a value that the environment set is shown at its variable, not at the line of the file that it replaced."""
        for path, variable in self._env.origins.items():
            if fault.path == path or fault.path.startswith((f"{path}.", f"{path}[")):
                return Fault(variable, fault.message)
        return fault

    def _check_workflows(self, config: Config) -> None:
        try:
            known = definition.compile_all(config, self._source)
        except ConfigError as error:
            self.faults += error.faults
            known = config.workflows
        # The built-in name may go without a workflow: then there are no uploads. One that was written down must exist.
        if "workflow" in config.uploads.model_fields_set and config.uploads.workflow not in known:
            message = f"there is no workflow {config.uploads.workflow!r}{yamlsource.suggestion(config.uploads.workflow, known)}"
            self.faults.append(self._source.fault(("uploads", "workflow"), message))

    def _check_templates(self, config: Config) -> None:
        for channel in CHANNELS:
            template: Template | None = getattr(config.notifications.templates, channel)
            for kind, text in template.parts() if template else ():
                path = ("notifications", "templates", channel, kind)
                for mistake in templates.mistakes(text, kind):
                    self.faults.append(self._source.fault(path, mistake.message, offset=mistake.offset))


def merge(below: Any, above: Any) -> Any:
    """Two settings as one, key by key; anything that is not a mapping in both is taken from above."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: merge(below[key], value) if key in below else value for key, value in above.items()}}


def _leaves(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The dotted path of each setting."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _read(path: Path | None) -> Source:
    if path is None:
        return Source(file="config.yaml", data=None)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the configuration {path} is not UTF-8 text (byte {error.start})") from error
    return yamlsource.parse(text, str(path))


def _secret(value: Any) -> bool:
    return value is not None and bool(value.get_secret_value())


def _allow_variables(part: Any) -> None:
    """Numbers and truth values may be written as `${VAR}`, which an editor would otherwise mark."""
    if isinstance(part, dict):
        for key, item in part.items():
            if isinstance(item, dict) and item.get("type") in ("integer", "number", "boolean") and "anyOf" not in item:
                about = {name: item.pop(name) for name in ("title", "description", "default") if name in item}
                part[key] = {"anyOf": [item, _VARIABLE_TEXT], **about}
            else:
                _allow_variables(item)
    elif isinstance(part, list):
        for item in part:
            _allow_variables(item)
