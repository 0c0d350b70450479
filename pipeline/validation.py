"""Data from a file against a pydantic model, each complaint put in plain words where it stands in the file."""

import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.errors import Fault
from pipeline.yamlsource import Path, Source, suggestion

_LOOKS = 4
"""What is left out may be required by what it is in, which is left out then: three levels of it are enough for ours."""
Model = TypeVar("Model", bound=BaseModel)


def check(model: type[Model], data: Any, source: Source, at: Path = ()) -> tuple[Model | None, list[Fault]]:
    """Validate data against a pydantic model and put each complaint where it stands in the source; `at` is the data's path in it.

    With faults, the model is made of what is right, if that is enough for one: further checks then find further faults.
    """
    faults: dict[tuple[Path, str], Fault] = {}
    for look in range(_LOOKS):
        rest = data
        try:
            return model.model_validate(data), list(faults.values())
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                path, message, key = _complaint(model, data, typing.cast(Mapping[str, Any], item))
                # What is found later may be no more than a consequence of what was left out.
                if look == 0:
                    faults.setdefault((path, message), source.fault(at + path, message, key=key))
                rest = _without(rest, path)
        data = rest
    return None, list(faults.values())


def _without(data: Any, path: Path) -> Any:
    """A copy that lacks what is at the path. An element of a list takes the list with it: the others' places would shift."""
    if not path or not _has(data, path[0]):
        return data
    rest: Any = list(data) if isinstance(data, list) else dict(data)
    if len(path) == 1 or (len(path) == 2 and isinstance(path[1], int)):
        del rest[path[0]]
    else:
        rest[path[0]] = _without(rest[path[0]], path[1:])
    return rest


def _complaint(model: type[BaseModel], data: Any, item: Mapping[str, Any]) -> tuple[Path, str, bool]:
    """Path, message and whether the key itself is at fault, of one of pydantic's errors."""
    path = _existing(data, item["loc"])
    if item["type"] == "extra_forbidden":
        path = tuple(item["loc"])
        return path, f"unknown key {path[-1]!r}{suggestion(str(path[-1]), known_keys(model, path[:-1]))}", True
    if item["type"] == "missing":
        return path, f"{item['loc'][-1]!r} is required", True
    message = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "should be")
    if item["type"] in ("bool_type", "bool_parsing"):
        message = "should be true or false (yes, no, on and off are text in YAML 1.2)"
    elif item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = "should be a mapping (key: value)"
    elif item["type"] == "string_type":
        message = "should be text; write it in quotes" if isinstance(_at(data, path), int | float) else "should be text"
    elif item["type"] == "literal_error":
        near = suggestion(str(_at(data, path)), re.findall("'([^']*)'", item["ctx"]["expected"]))
        message += near if "did you mean" in near else ""
    elif item["type"] in ("tuple_type", "list_type"):
        message = "should be a list"
    elif item["type"] == "string_pattern_mismatch":
        message = f"should match {item['ctx']['pattern']}"
    elif item["type"] == "too_short":
        message = f"should have at least {item['ctx']['min_length']}, but has {item['ctx']['actual_length']}"
    return path, message, item["loc"][-1:] == ("[key]",)


def _existing(data: Any, location: tuple[Any, ...]) -> Path:
    """The part of pydantic's location that is in the data: it adds the names of union members and validators."""
    path: list[str | int] = []
    for part in location:
        if not _has(data, part):
            break
        data = data[part]
        path.append(part)
    return tuple(path)


def _has(data: Any, part: Any) -> bool:
    return part in data if isinstance(data, Mapping) else isinstance(data, list) and isinstance(part, int) and part < len(data)


def _at(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def known_keys(model: type[BaseModel], path: Iterable[str | int]) -> list[str]:
    """The keys that may stand at a path below a model, as they are written."""
    here: Any = model
    for part in path:
        found = [kind for kind in _members(here) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if found:
            here = next((field.annotation for name, field in found[0].model_fields.items() if (field.alias or name) == part), None)
        else:
            here = next(
                (typing.get_args(kind)[-1 if typing.get_origin(kind) is dict else 0] for kind in _members(here) if typing.get_args(kind)), None
            )
    for kind in _members(here):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return [field.alias or name for name, field in kind.model_fields.items()]
    return []


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
