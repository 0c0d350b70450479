"""Expressions, such as the `${{ }}` of workflows: texts in CEL, checked when they are loaded and bounded when they are evaluated."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from pipeline.patterns import Matching
from pipeline.workflows.language import cel
from pipeline.workflows.names import WORKFLOW, Names
from pipeline.workflows.syntax import OPEN, PATTERN, Checked, ExpressionError, checked, closing
from pipeline.workflows.values import TEXT_UNIT, Absent, Path, explain, kind, look_up, plain, spelled, weigh, without_the_rest
from pipeline.yamlsource import suggestion

__all__ = ["Expression", "ExpressionError", "Scope", "check_steps", "condition", "evaluate_if", "expression", "keys", "render", "template", "texts"]

Scope = Mapping[str, Any]
"""What an expression sees, by variable."""

MAX_RENDERED = 1 << 20
"""Bytes of JSON that a rendered value may have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expression:
    """A compiled expression."""

    start: int
    """Where it begins in the text it was taken from."""
    checked: Checked
    names: Names

    @property
    def source(self) -> str:
        return self.checked.source

    def evaluate(self, scope: Scope) -> Any:
        """Its value as plain JSON data. Raises Absent, ValueError with another reason, or ExpressionError."""
        checked, paths = self.checked, self.checked.paths
        if checked.whole:
            # Looked up without CEL, which would lose the order of keys and make integers beyond 64 bits inexact.
            return look_up(paths[0], scope)
        limit = self.names.loop_weight if checked.loops else self.names.weight
        if weigh(paths, scope, limit) > limit:
            advice = f"; {self.names.instead}" if checked.loops else ""
            raise ExpressionError(self.source, f"reads too much data (more than {limit:,} values){advice}")
        given: Any = without_the_rest(scope, checked.needs)
        matching = Matching(self.names.weight * TEXT_UNIT)
        if checked.patterns:
            given = cel.Context(variables=given, functions={PATTERN: matching})
        try:
            value = checked.program.execute(given)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if not matching.exhausted:
                raise explain(error, paths, scope) from error
        if matching.exhausted:
            raise ExpressionError(self.source, "holds too much text against its patterns; such as [a-z0-9_] cost less than \\w and \\d")
        return plain(value)

    def holds(self, scope: Scope) -> bool:
        """Whether it is true; reading through a null or a missing field makes it false.

        Raises ExpressionError for any other failure and for a value that is neither true nor false.
        """
        try:
            value = self.evaluate(scope)
        except Absent:
            return False
        except ExpressionError:
            raise
        except ValueError as error:
            raise ExpressionError(self.source, str(error)) from error
        if not isinstance(value, bool):
            raise ExpressionError(self.source, f"must be true or false, not {kind(value)}; compare it with something")
        return value


@lru_cache(maxsize=4096)
def template(text: str) -> tuple[str | Expression, ...]:
    """The literal parts and expressions of a text. Raises ExpressionError, with the offset in the text."""
    parts: list[str | Expression] = []
    end = 0
    while (begin := text.find(OPEN, end)) >= 0:
        if begin > end:
            parts.append(text[end:begin])
        body = begin + len(OPEN)
        close = closing(text, body)
        parts.append(expression(text, WORKFLOW, body, close))
        end = close + 2
    if end < len(text):
        parts.append(text[end:])
    return tuple(parts)


@lru_cache(maxsize=1024)
def condition(text: str) -> Expression:
    """An `if`: one expression, with or without its `${{ }}`. Raises ExpressionError."""
    if OPEN not in text:
        return expression(text, WORKFLOW)
    stripped = text.strip()
    parts = template(stripped)
    if len(parts) != 1 or not isinstance(parts[0], Expression):
        raise ExpressionError(stripped, "an `if` is one expression; write ${{ … }} around all of it, or leave it out")
    return parts[0]


def evaluate_if(condition_: str, scope: Scope) -> bool:
    """Whether the `if` holds; as `Expression.holds`."""
    return condition(condition_).holds(scope)


def render(value: Any, scope: Scope) -> Any:
    """A copy of plain data in which each expression is replaced by its value.

    A text that is one expression takes the value's type; in a longer text lists and objects become JSON, the rest its plain
    writing. Raises ExpressionError if an expression has no value, or if the whole exceeds MAX_RENDERED.
    """
    rendered = _render(value, scope)
    if len(orjson.dumps(rendered)) > MAX_RENDERED:
        raise ExpressionError("…", f"the rendered value has more than {MAX_RENDERED:,} bytes; pass bulk by reference to storage")
    return rendered


def texts(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Each text that holds an expression, with its path."""
    if isinstance(value, str):
        if OPEN in value:
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from texts(item, (*path, index))


def keys(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of each key that holds an expression, where none is evaluated."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        if isinstance(key, str) and OPEN in key:
            yield (*path, key)
        yield from keys(item, (*path, key))


def check_steps(expression: Expression, *, steps: Collection[str], reachable: Collection[str], where: str) -> None:
    """Raise ExpressionError unless each step that is read exists and has ended when the expression is evaluated."""
    for reference in expression.checked.references:
        step = reference.step
        if step is None or step in reachable:
            continue
        if step not in steps:
            raise ExpressionError(expression.source, f"there is no step {step!r}{suggestion(step, steps)}", offset=reference.start)
        raise ExpressionError(expression.source, f"step {step!r} need not have ended here; add it to {where}", offset=reference.start)


def _render(value: Any, scope: Scope) -> Any:
    if isinstance(value, str):
        parts = template(value) if OPEN in value else ()
        if not parts:
            return value
        if len(parts) == 1:
            return _value(parts[0], scope)
        return "".join(part if isinstance(part, str) else spelled(_value(part, scope)) for part in parts)
    if isinstance(value, dict):
        return {key: _render(item, scope) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_render(item, scope) for item in value]
    return value


def _value(part: str | Expression, scope: Scope) -> Any:
    if isinstance(part, str):
        return part
    try:
        return part.evaluate(scope)
    except ValueError as error:
        raise ExpressionError(part.source, str(error)) from error


def expression(text: str, names: Names, start: int = 0, end: int | None = None) -> Expression:
    """The expression that a part of a text is. Raises ExpressionError, with the offset in the text."""
    source = text[start:end].strip()
    start += len(text[start:end]) - len(text[start:end].lstrip())
    if not source:
        raise ExpressionError("", "is empty", offset=start)
    return Expression(start=start, checked=checked(source, start, names), names=names)
