"""The input of a run against its workflow's JSON Schema, and that schema against JSON Schema itself."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson
from jsonschema import Draft202012Validator, SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from pipeline.errors import Fault
from pipeline.yamlsource import Path, dotted

MAX_FAULTS = 20
MAX_MESSAGE = 200
"""Characters: jsonschema quotes the value that it found wrong, however long it is."""


def mistakes(schema: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What keeps a mapping from being a usable JSON Schema (2020-12): path in it, and why."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        yield tuple(error.absolute_path), f"not a JSON Schema: {_short(error.message)}"
        return
    fetching = False
    for path, reference in _references(schema):
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            fetching = True
            yield path, "a reference may only point into this schema (#/…): nothing is fetched"
    if fetching:
        return
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    for path, reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            yield path, f"{reference!r} points at nothing in this schema"
            return
    try:
        seen: dict[int, bool] = {}
        endless = any(_is_endless(resolver.lookup(reference).contents, resolver, seen) for _, reference in _references(schema))
    except RecursionError:
        endless = True
    if endless:
        # It would end every run's start in a RecursionError.
        yield (), "the schema refers to itself without end"


def _is_endless(schema: Any, resolver: Any, seen: dict[int, bool]) -> bool:
    """Whether it comes back to itself without going into the data. Found without applying it, which may take for ever without being endless.

    `seen`: by identity, whether it is still being looked at.
    """
    if not isinstance(schema, Mapping):
        return False
    if id(schema) in seen:
        return seen[id(schema)]
    seen[id(schema)] = True
    applied = [schema.get(name) for name in ("not", "if", "then", "else")]
    applied += [item for name in ("allOf", "anyOf", "oneOf") if isinstance(items := schema.get(name), list) for item in items]
    if isinstance(items := schema.get("dependentSchemas"), Mapping):
        applied += items.values()
    if "$ref" in schema:
        applied.append(resolver.lookup(schema["$ref"]).contents)
    endless = any(_is_endless(item, resolver, seen) for item in applied)
    seen[id(schema)] = False
    return endless


def faults(schema: dict[str, Any], data: Any) -> tuple[Fault, ...]:
    """What is wrong with the data by the schema: at most MAX_FAULTS faults."""
    found: list[Fault] = []
    for error in _validator(orjson.dumps(schema)).iter_errors(data):
        found.append(Fault(dotted(tuple(error.absolute_path)), _short(error.message)))
        if len(found) == MAX_FAULTS:
            break
    return tuple(found)


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Draft202012Validator:
    # An empty registry: jsonschema would otherwise fetch a remote reference over the network.
    return Draft202012Validator(orjson.loads(schema), registry=Registry())


def _references(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in ("$ref", "$dynamicRef"):
                yield (*path, key), item
            yield from _references(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _references(item, (*path, index))


def _short(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}…"
