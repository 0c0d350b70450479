"""A YAML file as plain data that remembers where everything stands, so that a fault can be shown at its line and column."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipeline.errors import ConfigError, Fault

Path = tuple[str | int, ...]

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 50_000
"""An alias repeats what it names: without a limit, a kilobyte of nested ones unfolds to gigabytes."""
MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Position:
    line: int
    """1-based, as is the column."""
    column: int
    verbatim: bool = False
    """Whether the text stands in the file exactly as it reads, from this column on, so that an offset into it is a column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Plain JSON-like data, and the position of each of its keys and values by path."""

    file: str
    data: Any
    keys: Mapping[Path, Position] = field(default_factory=dict)
    values: Mapping[Path, Position] = field(default_factory=dict)

    def fault(self, path: Path, message: str, *, key: bool = False, offset: int = 0) -> Fault:
        """A fault at the value of `path` (at its key if `key`), or at the nearest enclosing one that stands in the file.

        `offset` counts characters into a text; it moves the column where the text is written without escapes or folds.
        """
        position = self._position(path, key)
        if position is None:
            return Fault(dotted(path), message)
        column = position.column + offset if position.verbatim else position.column
        return Fault(dotted(path), message, position.line, column)

    def _position(self, path: Path, key: bool) -> Position | None:
        if key and path in self.keys:
            return self.keys[path]
        for end in range(len(path), -1, -1):
            # A missing key is best shown at the key that should hold it, not at the first of its neighbours.
            found = self.values.get(path) if end == len(path) else self.keys.get(path[:end]) or self.values.get(path[:end])
            if found:
                return found
        return None


def dotted(path: Path) -> str:
    """`steps.analyze.needs[0]`; a key that holds a dot is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[\w-]+", part) else f'"{part}"')
    return text


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'needs'?` where one of the known names is near, else the names themselves if they are few."""
    names = list(known)
    lowered = {name.lower().replace("-", "_"): name for name in names}
    near = difflib.get_close_matches(word.lower().replace("-", "_"), lowered, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {lowered[near[0]]!r}?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 12 else ""


def parse(text: str, file: str = "config.yaml") -> Source:
    """Read one YAML 1.2 document of plain data: booleans are only true and false, keys are text and occur once.

    Raises ConfigError with line and column for a syntax error and for anything that JSON could not say.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{file} has more than {MAX_CHARACTERS:,} characters", file=file)
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise _invalid(file, _explained(error), error.problem_mark or error.context_mark) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        code = error.character if isinstance(error.character, int) else ord(error.character)
        fault = Fault("", f"the character #x{code:02x} is not allowed", before.count("\n") + 1, error.position - before.rfind("\n"))
        raise ConfigError(f"{file} is not valid YAML", file=file, faults=(fault,)) from error
    except RecursionError as error:
        raise ConfigError(f"{file} is nested too deeply", file=file) from error
    reader = _Reader(file)
    data = reader.read(root, ()) if root else None
    return Source(file=file, data=data, keys=reader.keys, values=reader.values)


class _Loader(yaml.SafeLoader):
    """PyYAML's reader with the scalars of YAML 1.2's core schema: `on`, `no` and `22:30` are text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  PyYAML's own attribute, which it reads from the class


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+0123456789."),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), list(_first))


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self.keys: dict[Path, Position] = {}
        self.values: dict[Path, Position] = {}
        self._open: set[int] = set()

    def read(self, node: yaml.Node, path: Path) -> Any:
        if id(node) in self._open:
            raise self._refuse(node, path, "an alias may not name what it stands in")
        if len(self.values) >= MAX_VALUES or len(path) > MAX_DEPTH:
            raise self._refuse(
                node, path, f"too large: at most {MAX_VALUES:,} values, nested {MAX_DEPTH} deep, aliases counted as often as they are used"
            )
        self.values[path] = _position(node)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                self._tag(node, path, "seq")
                return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        self._tag(node, path, "map")
        found: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise self._refuse(key, path, "merge keys (<<) are not part of YAML 1.2; write the keys out")
            if key.tag != "tag:yaml.org,2002:str":
                raise self._refuse(
                    key, path, f"a key must be text; write it in quotes: {key.value!r}" if key.id == "scalar" else "a key must be text"
                )
            here = (*path, key.value)
            if key.value in found:
                raise self._refuse(key, here, f"the key {key.value!r} occurs twice; the first is in line {self.keys[here].line}")
            self.keys[here] = _position(key)
            found[key.value] = self.read(value, here)
        return found

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        kind = self._tag(node, path, "str", "null", "bool", "int", "float")
        text = str(node.value)
        if kind == "null":
            return None
        if kind == "bool":
            return text == "true"
        try:
            if kind == "int":
                return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
            if kind == "float":
                number = float(text)
                if not math.isfinite(number):
                    raise ValueError
                return number
        except ValueError as error:
            raise self._refuse(node, path, f"{text} is not a number that JSON can say") from error
        return text

    def _tag(self, node: yaml.Node, path: Path, *allowed: str) -> str:
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if kind not in allowed:
            raise self._refuse(node, path, f"the tag {node.tag!r} is not supported; write plain YAML")
        return kind

    def _refuse(self, node: yaml.Node, path: Path, message: str) -> ConfigError:
        fault = Fault(dotted(path), message, node.start_mark.line + 1, node.start_mark.column + 1)
        return ConfigError(f"{self._file} cannot be used", file=self._file, faults=(fault,))


def _position(node: yaml.Node) -> Position:
    quote = 1 if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"') else 0
    length = node.end_mark.index - node.start_mark.index - 2 * quote
    verbatim = isinstance(node, yaml.ScalarNode) and node.start_mark.line == node.end_mark.line and length == len(node.value)
    return Position(node.start_mark.line + 1, node.start_mark.column + 1 + (quote if verbatim else 0), verbatim)


def _explained(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "cannot be read"
    mark = error.problem_mark
    line = mark.buffer[mark.pointer - mark.column :].splitlines()[0] if mark and mark.buffer else ""
    if "\\t" in problem:
        return "a tab; YAML is indented with spaces"
    if "${" in line or "mapping values are not allowed" in problem:
        return f"{problem}; put text that holds ': ', ' #', or braces in a [list] or {{mapping}}, in quotes"
    if "unknown escape character" in problem:
        return f"{problem}; in single quotes, a backslash is only a backslash"
    if "expected a single document" in problem or "expected a single document" in (error.context or ""):
        return "one document is expected, but a second one starts here (---)"
    return problem


def _invalid(file: str, message: str, mark: yaml.Mark | None) -> ConfigError:
    fault = Fault("", message, mark.line + 1, mark.column + 1) if mark else Fault("", message)
    return ConfigError(f"{file} is not valid YAML", file=file, faults=(fault,))
