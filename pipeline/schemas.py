"""JSON Schemas that are given at run time: what could fetch or take long is refused in them, and applying one is bounded."""

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import orjson
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from pipeline.errors import Fault
from pipeline.patterns import compiled
from pipeline.workflows.inputs import mistakes
from pipeline.yamlsource import Path, dotted

MAX_BYTES = 32_768
"""Of a schema as JSON."""
MAX_CHECKS = 50_000
"""How many keywords may be applied to one event: `items: {type: number}` is one per element. Measured: 30 µs each. What takes as long follows."""
_ELEMENTS = 10
"""Names or values that a keyword lists, or elements of what it is applied to; but each schema in a list counts for one, as does each error."""
_FROZEN = 100
"""Elements of which none may be like another."""
_QUOTED = 1_000
"""Characters of a message."""
_CHARACTERS = 30
"""Units of `Pattern.cost`."""
MAX_LARGE = 20
"""Patterns that take long to compile, each counted once."""
MAX_FAULTS = 20
MAX_MESSAGE = 200
"""Characters: jsonschema quotes the value that it found wrong, however long it is."""

_REFUSED = {
    "patternProperties": "say additionalProperties, with propertyNames for what they may be called",
    "unevaluatedProperties": "say additionalProperties",
    "unevaluatedItems": "say items after prefixItems",
    "$dynamicRef": "say $ref",
    "$dynamicAnchor": "say $defs, and $ref to it",
}
"""Keywords whose cost grows with the square of the data, or cannot be counted."""
_ONE = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "$defs", "definitions", "dependentSchemas")

_left: ContextVar[int] = ContextVar("checks left")


class TooMany(Exception):
    """More checks than one event may cost."""


def check(schema: Mapping[str, Any]) -> tuple[Fault, ...]:
    """What keeps a mapping from being a schema that may be applied."""
    size = len(orjson.dumps(schema))
    if size > MAX_BYTES:
        return (Fault("", f"has {size:,} bytes as JSON; a schema has at most {MAX_BYTES:,}"),)
    if schema.get("$schema", _DIALECT) != _DIALECT:
        return (Fault("$schema", f"must be {_DIALECT}, or left out"),)
    found = [*mistakes(schema)] or [*_unbounded(schema)]
    return tuple(Fault(dotted(path), message) for path, message in found[:MAX_FAULTS])


def faults(schema: bytes, data: Any) -> tuple[Fault, ...]:
    """What is wrong with the data by a schema that passed `check`, given as JSON: at most MAX_FAULTS faults."""
    found: list[Fault] = []
    token = _left.set(MAX_CHECKS)
    try:
        for error in _validator(schema).iter_errors(data):
            message = error.message
            found.append(Fault(dotted(tuple(error.absolute_path)), message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}…"))
            if len(found) == MAX_FAULTS:
                break
    except TooMany:
        found.append(Fault("", f"takes more than {MAX_CHECKS:,} checks by its schema; publish a reference to what is so large"))
    except RecursionError:
        found.append(Fault("", "is nested too deeply for its schema"))
    finally:
        _left.reset(token)
    return tuple(found)


_DIALECT = str(Draft202012Validator.META_SCHEMA["$id"])


def _unbounded(root: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What in a schema could take long, or is applied without having been looked at here."""
    schemas = {id(schema): (path, schema) for path, schema in _schemas(root, ())}
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(root))
    large: set[str] = set()
    for path, schema in schemas.values():
        for keyword in _REFUSED.keys() & schema.keys():
            yield (*path, keyword), f"is not taken; {_REFUSED[keyword]}"
        if "$id" in schema and path:
            yield (*path, "$id"), "is taken only at the top: references would mean something else below it"
        if "pattern" in schema:
            try:
                if compiled(schema["pattern"]).large:
                    large.add(schema["pattern"])
            except ValueError as error:
                yield (*path, "pattern"), f"the pattern is not usable: {error}"
            if len(large) > MAX_LARGE:
                yield (*path, "pattern"), f"is one large pattern too many, of {MAX_LARGE}; such as [a-z0-9_] are smaller than \\w and \\d"
                return
        if "$ref" in schema:
            target = resolver.lookup(schema["$ref"]).contents
            if not isinstance(target, bool) and id(target) not in schemas:
                yield (*path, "$ref"), "points at what is no schema; put it into $defs"


def _schemas(schema: Any, path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """A schema and all within it, each with its path."""
    if not isinstance(schema, Mapping):
        return
    yield path, schema
    for keyword, value in schema.items():
        here = (*path, keyword)
        if keyword in _ONE:
            yield from _schemas(value, here)
        elif keyword in _LISTS:
            for index, item in enumerate(value):
                yield from _schemas(item, (*here, index))
        elif keyword in _MAPS:
            for name, item in value.items():
                yield from _schemas(item, (*here, name))


# --- the keywords of a validator ---------------------------------------------------------------------------------------


Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


def _spend(checks: int) -> None:
    left = _left.get() - checks
    if left < 0:
        raise TooMany
    _left.set(left)


def _counted(name: str, keyword: Keyword) -> Keyword:
    elements = 1 if name in _LISTS else _ELEMENTS

    def apply(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        # Most keywords look at each of what they or the data list; and an error quotes the data, also one that nobody gets to see.
        _spend(1 + (_length(value) + _length(instance)) // elements)
        for error in keyword(validator, value, instance, schema) or ():
            _spend(1 + len(error.message) // _QUOTED)
            yield error

    return apply


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str):
        found = compiled(pattern)
        _spend(found.cost(instance) // _CHARACTERS)
        if not found.is_in(instance):
            yield ValidationError(f"does not match the pattern {pattern!r}")


def _unique_items(validator: Any, unique: bool, instance: Any, schema: Any) -> Iterator[ValidationError]:
    # The library compares each with each where they cannot be sorted.
    if unique and isinstance(instance, list) and len({_frozen(item) for item in instance}) < len(instance):
        yield ValidationError("has equal elements")


def _frozen(value: Any) -> Any:
    """A hashable that is equal where JSON Schema says so: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict | list):
        _spend(1 + len(value) // _FROZEN)
    if isinstance(value, dict):
        return "object", frozenset((name, _frozen(item)) for name, item in value.items())
    if isinstance(value, list):
        return "list", *map(_frozen, value)
    return ("truth", value) if isinstance(value, bool) else value


_Bounded: Any = extend(  # type: ignore[no-untyped-call]  # jsonschema leaves it without types
    Draft202012Validator,
    {
        name: _counted(name, keyword)
        for name, keyword in {**Draft202012Validator.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique_items}.items()
    },
)


@lru_cache(maxsize=1024)
def _validator(schema: bytes) -> Any:
    # An empty registry: jsonschema would otherwise fetch a remote reference over the network.
    return _Bounded(orjson.loads(schema), registry=Registry())
