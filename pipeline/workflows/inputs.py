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


def mistakes(schema: dict[str, Any]) -> Iterator[tuple[Path, str]]:
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
        # A schema that refers to itself in place would end every run's start in a RecursionError.
        list(_validator(orjson.dumps(schema)).iter_errors({}))
    except RecursionError:
        yield (), "the schema refers to itself without end"


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
