"""The data that expressions read and give: looked up, weighed, reduced to what is read, and made plain JSON again."""

import datetime as dt
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson

from pipeline.yamlsource import suggestion

Accessor = str | int
Path = tuple[Accessor, ...]

TEXT_UNIT = 64
"""Characters that weigh as much as one value."""


class Absent(ValueError):
    """A path leads through a null or a field that is not there."""

    def __init__(self, reason: str, *, part: str = "", known: Collection[str] = ()) -> None:
        """`part`: what was looked for among the `known`."""
        super().__init__(reason)
        self._part = part
        self._known = known

    def __str__(self) -> str:
        # Sought only where somebody reads it: in a condition a missing field is no mistake, and this costs more than all the rest.
        return super().__str__() + (suggestion(self._part, self._known) if 0 < len(self._known) <= 200 else "")


def look_up(path: Path, scope: Mapping[str, Any]) -> Any:
    """The value at a path. Raises Absent, naming what is null or missing, and ValueError for a field of a number or text."""
    value: Any = scope
    for depth, part in enumerate(path):
        if not (part in value if isinstance(value, dict) else _holds(value, part)):
            raise _missing(value, part, path, depth, scope)
        value = value[part]
    return value


def _holds(value: Any, part: Accessor) -> bool:
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _missing(value: Any, part: Accessor, path: Path, depth: int, scope: Mapping[str, Any]) -> ValueError:
    here = written(path[:depth])
    if value is None:
        return Absent(f"{here} is null{_ended(path, depth, scope)}")
    if isinstance(value, dict) and isinstance(part, str):
        return Absent(f"{here} has no {part!r}", part=part, known=value)
    if isinstance(value, list) and isinstance(part, int):
        return Absent(f"{here} has only {len(value)} elements")
    return ValueError(f"{here} is {kind(value)} and has no {part!r}")


def _ended(path: Path, depth: int, scope: Mapping[str, Any]) -> str:
    """Why a step's result is null, where that is what was read."""
    if depth != 3 or path[0] != "steps" or path[2] != "result":
        return ""
    status = scope["steps"][path[1]].get("status")
    return "" if status == "completed" else f" (the step is {status})"


def written(path: Path) -> str:
    """`steps.analyze.result.findings[0]`, as an expression writes it."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += ("." if text else "") + part
        else:
            text += f"[{orjson.dumps(part).decode()}]"
    return text


def explain(error: Exception, paths: Sequence[Path], scope: Mapping[str, Any]) -> ValueError:
    """What CEL's error means: Absent if a path that was read is null on the way or missing, else ValueError with a reason."""
    nulls = []
    for path in paths:
        try:
            if look_up(path, scope) is None:
                nulls.append(f"{written(path)} is null")
        except Absent as absent:
            return absent
        except ValueError as wrong:
            return wrong
    if isinstance(error, KeyError):
        return Absent(f"there is no field {error}")
    if isinstance(error, IndexError):
        return Absent(str(error))
    if isinstance(error, ZeroDivisionError):
        return ValueError("divides by zero")
    text = str(error).split(". Check ")[0].split(". CEL does not")[0]
    if "No such overload" in text or "Unsupported operation" in text or "Undefined variable or function" in text:
        text = "an operator or a function does not fit these types; convert with int(…), double(…) or string(…)"
    return ValueError(f"{text}; {', '.join(nulls)}" if nulls else text)


def weigh(paths: Iterable[Path], scope: Mapping[str, Any], limit: int) -> int:
    """How many values the paths read, a long text counted once for each 64 characters, each path counted by itself; counts to `limit`, roughly."""
    total = 0
    for path in paths:
        try:
            pending = [look_up(path, scope)]
        except ValueError:
            continue
        while pending and total <= limit:
            value = pending.pop()
            total += 1
            if isinstance(value, str):
                total += len(value) // TEXT_UNIT
            elif isinstance(value, Mapping):
                pending += value.values()
            elif isinstance(value, list | tuple):
                pending += value
    return total


def needs(paths: Iterable[Path]) -> dict[str, Any]:
    """What the paths read, as nested names down to None, which is all there is.

    An index into a list ends a path here, because leaving out an element would shift the others.
    """
    found: dict[str, Any] = {}
    for path in paths:
        names = [str(part) for part in itertools.takewhile(lambda part: isinstance(part, str), path)]
        here = found
        for name in names[:-1]:
            here = here.setdefault(name, {})
            if here is None:
                break
        else:
            here[names[-1]] = None
    return found


def without_the_rest(value: Any, needed: Mapping[str, Any] | None) -> Any:
    """The value reduced to what is needed: CEL copies all it is given, and a run may hold megabytes."""
    if needed is None or not isinstance(value, Mapping):
        return value
    return {name: without_the_rest(value[name], inner) for name, inner in needed.items() if name in value}


def plain(value: Any) -> Any:
    """CEL's value as JSON data: keys sorted (CEL's maps have no order, and a decision must come out the same each time), times as ISO-8601.

    Raises ValueError for what JSON cannot say.
    """
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("gives an object whose keys are not text")
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, dt.timedelta):
        raise ValueError("gives a duration, which JSON cannot say; write string(…) around it")
    raise ValueError(f"gives {kind(value)}, which JSON cannot say")


def spelled(value: Any) -> str:
    """A value inside a longer text: texts as they are, lists and objects as JSON, whole numbers without `.0`."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return orjson.dumps(value).decode()


def kind(value: Any) -> str:
    """What a value is called in a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, Mapping) else "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
