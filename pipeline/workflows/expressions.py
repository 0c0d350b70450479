"""The `${{ }}` of workflows: texts in CEL, checked when they are loaded and bounded when they are evaluated."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cel
import orjson

from pipeline.errors import InvalidInput
from pipeline.workflows.values import Absent, Accessor, Path, explain, kind, look_up, plain, spelled, weigh, without_the_rest
from pipeline.yamlsource import suggestion

Scope = Mapping[str, Any]
"""What an expression sees: `input`, `run` and `steps`."""

MAX_LENGTH = 1000
"""Characters of one expression."""
MAX_WEIGHT = 65_536
"""How much data an expression may read, counted by `values.weigh` for each place that reads it: about 4 MiB of text."""
MAX_LOOP_WEIGHT = 2_000
"""The same for an expression that walks a list: `map` and `filter` copy the list for each element, so their cost is its square
(measured: 100 ms at 2,000 numbers, 2.8 s at 4,000 small objects)."""
MAX_RENDERED = 1 << 20
"""Bytes of JSON that a rendered value may have."""

RUN_FIELDS = ("id", "workflow", "userId", "createdAt")
STEP_FIELDS = ("status", "result", "error")
VARIABLES = ("input", "run", "steps")
LOOPS = ("all", "exists", "exists_one", "filter", "map")
FUNCTIONS = (
    *("has", "size", "contains", "startsWith", "endsWith", "matches", "int", "double", "string", "type", "timestamp", "duration"),
    *("getFullYear", "getMonth", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours", "getMinutes", "getSeconds", "getMilliseconds"),
)

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<text>[rRbB]{0,2}(?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3})
               |(?:[rR][bB]?|[bB][rR])(?:"[^"\n]*"|'[^'\n]*')
               |[bB]?(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
      | (?P<number>\d[\w.]*|\.\d+)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<other>[\s\S])""",
    re.VERBOSE,
)
_OPEN = "${{"
_CEL_PLACE = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")


class ExpressionError(InvalidInput):
    """An expression that cannot be compiled, or that gives no value: says which, and why."""

    code = "expression"

    def __init__(self, expression: str, reason: str, *, offset: int = 0) -> None:
        super().__init__(f"${{{{ {expression} }}}}: {reason}")
        self.expression = expression
        self.reason = reason
        self.offset = offset
        """Characters into the text that was compiled, where the mistake is."""


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    start: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A path that an expression reads, as far as it is written out: `steps.analyze.result.score`."""

    path: Path
    start: int

    @property
    def step(self) -> str | None:
        return str(self.path[1]) if self.path[0] == "steps" else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Expression:
    """A compiled expression."""

    source: str
    start: int
    """Where it begins in the text it was taken from."""
    references: tuple[Reference, ...]
    loops: int
    program: cel.Program | None
    """None: it is nothing but one reference, which is looked up without CEL (and so keeps order and big integers)."""

    def evaluate(self, scope: Scope) -> Any:
        """Its value as plain JSON data. Raises Absent, ValueError with another reason, or ExpressionError."""
        if self.program is None:
            return look_up(self.references[0].path, scope)
        paths = [reference.path for reference in self.references]
        weight, limit = weigh(paths, scope), MAX_LOOP_WEIGHT if self.loops else MAX_WEIGHT
        if weight > limit:
            advice = "; select from a list in a step's processor instead" if self.loops else ""
            raise ExpressionError(self.source, f"reads too much data ({weight:,} values; at most {limit:,}){advice}")
        try:
            return plain(self.program.execute(without_the_rest(paths, scope)))
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise explain(error, paths, scope) from error


@lru_cache(maxsize=4096)
def template(text: str) -> tuple[str | Expression, ...]:
    """The literal parts and expressions of a text. Raises ExpressionError, with the offset in the text."""
    parts: list[str | Expression] = []
    end = 0
    while (begin := text.find(_OPEN, end)) >= 0:
        if begin > end:
            parts.append(text[end:begin])
        body = begin + len(_OPEN)
        close = _close(text, body)
        parts.append(_expression(text, body, close))
        end = close + 2
    if end < len(text):
        parts.append(text[end:])
    return tuple(parts)


@lru_cache(maxsize=1024)
def condition(text: str) -> Expression:
    """An `if`: one expression, with or without its `${{ }}`. Raises ExpressionError."""
    if _OPEN not in text:
        return _expression(text, 0, len(text))
    stripped = text.strip()
    parts = template(stripped)
    if len(parts) != 1 or not isinstance(parts[0], Expression):
        raise ExpressionError(stripped, "an `if` is one expression; write ${{ … }} around all of it, or leave it out")
    return parts[0]


def evaluate_if(expression: str, scope: Scope) -> bool:
    """Whether the condition holds; reading through a null or a missing field makes it false.

    Raises ExpressionError for any other failure and for a value that is neither true nor false.
    """
    compiled = condition(expression)
    try:
        value = compiled.evaluate(scope)
    except Absent:
        return False
    except ValueError as error:
        raise ExpressionError(compiled.source, str(error)) from error
    if not isinstance(value, bool):
        raise ExpressionError(compiled.source, f"an `if` must be true or false, not {kind(value)}; compare it with something")
    return value


def render(value: Any, scope: Scope) -> Any:
    """A copy of plain data in which each expression is replaced by its value.

    A text that is one expression takes the value's type; in a longer text lists and objects become JSON, the rest its plain
    writing. Raises ExpressionError if an expression has no value, or if the whole exceeds MAX_RENDERED.
    """
    rendered = _render(value, scope)
    if len(orjson.dumps(rendered)) > MAX_RENDERED:
        raise ExpressionError("…", f"the rendered value has more than {MAX_RENDERED:,} bytes; pass bulk by reference to storage")
    return rendered


def expressions(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Each text that holds an expression, with its path."""
    if isinstance(value, str):
        if _OPEN in value:
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from expressions(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from expressions(item, (*path, index))


def check_steps(expression: Expression, *, steps: Collection[str], reachable: Collection[str], where: str) -> None:
    """Raise ExpressionError unless each step that is read exists and has ended when the expression is evaluated."""
    for reference in expression.references:
        step = reference.step
        if step is None or step in reachable:
            continue
        if step not in steps:
            raise ExpressionError(expression.source, f"there is no step {step!r}{suggestion(step, steps)}", offset=reference.start)
        raise ExpressionError(expression.source, f"step {step!r} need not have ended here; add it to {where}", offset=reference.start)


def _render(value: Any, scope: Scope) -> Any:
    if isinstance(value, str):
        parts = template(value) if _OPEN in value else ()
        if not parts:
            return value
        if len(parts) == 1:
            return _value(parts[0], scope)
        return "".join(part if isinstance(part, str) else spelled(_value(part, scope)) for part in parts)
    if isinstance(value, Mapping):
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


def _close(text: str, body: int) -> int:
    """Where the `}}` of an expression stands: braces inside its texts and maps do not count."""
    depth = 0
    for token in _tokens(text, body, len(text)):
        if token.text == "{":
            depth += 1
        elif token.text == "}":
            if depth == 0 and text.startswith("}}", token.start):
                return token.start
            depth -= 1
    raise ExpressionError(text[body : body + 60].strip(), "has no closing }}", offset=body - len(_OPEN))


def _tokens(text: str, start: int, end: int) -> Iterator[Token]:
    for match in _TOKEN.finditer(text, start, end):
        if match.lastgroup != "space":
            yield Token(str(match.lastgroup), match[0], match.start())


def _expression(text: str, start: int, end: int) -> Expression:
    source = text[start:end].strip()
    start += len(text[start:end]) - len(text[start:end].lstrip())
    if not source:
        raise ExpressionError("", "is empty", offset=start)
    if len(source) > MAX_LENGTH:
        raise ExpressionError(f"{source[:60]}…", f"has more than {MAX_LENGTH:,} characters", offset=start)
    try:
        program = cel.compile(source)
    except ValueError as error:
        reason, offset = _syntax(source, str(error))
        raise ExpressionError(source, reason, offset=start + offset) from error
    tokens = list(_tokens(text, start, start + len(source)))
    references, loops, whole = _Checker(source, tokens).check()
    return Expression(source=source, start=start, references=references, loops=loops, program=None if whole else program)


def _syntax(source: str, message: str) -> tuple[str, int]:
    match = _CEL_PLACE.search(message)
    if not match:
        return "is not an expression", 0
    lines = source.split("\n")
    line = min(int(match[1]), len(lines)) - 1
    offset = sum(len(before) + 1 for before in lines[:line]) + int(match[2]) - 1
    if "<EOF>' expecting" in match[3]:
        return "ends too early", len(source)
    return match[3].split(" expecting ")[0], min(offset, len(source))


class _Checker:
    """Reads an expression's tokens for what CEL itself finds out only when it runs."""

    def __init__(self, source: str, tokens: list[Token]) -> None:
        self._source = source
        self._tokens = tokens
        self._loops = [
            index for index in range(1, len(tokens)) if self._at(index - 1) == "." and tokens[index].text in LOOPS and self._at(index + 1) == "("
        ]
        self._bound = {self._at(index + 2) for index in self._loops}

    def check(self) -> tuple[tuple[Reference, ...], int, bool]:
        """References, number of loops, and whether the expression is one reference and nothing else."""
        self._check_loops()
        references = []
        for index, token in enumerate(self._tokens):
            if token.kind == "other" and token.text in "'\"`":
                raise self._error("a text is not closed", token)
            if token.kind == "text" and token.text.lstrip("rR")[0] in "bB":
                raise self._error("bytes are not JSON; write a text", token)
            if token.kind == "name":
                references += self._name(index, token)
        whole = len(references) == 1 and references[0][1] == len(self._tokens)
        return tuple(reference for reference, _ in references), len(self._loops), whole

    def _name(self, index: int, token: Token) -> list[tuple[Reference, int]]:
        called = self._at(index + 1) == "("
        if called and token.text not in (*FUNCTIONS, *LOOPS):
            raise self._error(f"there is no function {token.text!r}{suggestion(token.text, (*FUNCTIONS, *LOOPS))}", token)
        if called and token.text == "matches":
            self._check_pattern(index, token)
        if called or self._at(index - 1) == "." or token.text in ("true", "false", "null", "in"):
            return []
        if token.text in self._bound:
            return []
        if token.text not in VARIABLES:
            raise self._error(f"there is no variable {token.text!r}{suggestion(token.text, VARIABLES)}", token)
        path, end = self._path(index)
        self._check_path(path, token)
        return [(Reference(path=path, start=token.start), end)]

    def _path(self, index: int) -> tuple[Path, int]:
        path: list[Accessor] = [self._tokens[index].text]
        index += 1
        while True:
            following = self._tokens[index + 1] if index + 1 < len(self._tokens) else None
            if self._at(index) == "." and following and following.kind == "name" and self._at(index + 2) != "(":
                path.append(following.text)
                index += 2
            elif self._at(index) == "[" and following and self._at(index + 2) == "]" and (key := _literal(following)) is not None:
                path.append(key)
                index += 3
            else:
                return tuple(path), index

    def _check_path(self, path: Path, token: Token) -> None:
        if path[0] == "input":
            return
        fields, depth = (RUN_FIELDS, 1) if path[0] == "run" else (STEP_FIELDS, 2)
        if path[0] == "steps" and len(path) == 1:
            raise self._error("name the step: steps.<id>.result", token)
        if len(path) > depth and path[depth] not in fields:
            owner = path[0] if depth == 1 else f"a step ({path[1]})"
            raise self._error(f"{owner} has no {str(path[depth])!r}{suggestion(str(path[depth]), fields)}", token)

    def _check_loops(self) -> None:
        ends: list[int] = []
        for index in self._loops:
            if index + 3 >= len(self._tokens) or self._tokens[index + 2].kind != "name" or self._at(index + 3) != ",":
                raise self._error(
                    f"{self._tokens[index].text}() takes a name and an expression: list.{self._tokens[index].text}(x, …)", self._tokens[index]
                )
            name = self._tokens[index + 2]
            if name.text in VARIABLES:
                raise self._error(f"{name.text!r} is a variable already; name the element otherwise", name)
            if any(index < end for end in ends):
                raise self._error(
                    f"{self._tokens[index].text}() inside another loop costs the square of the data; do it in a step's processor", self._tokens[index]
                )
            ends.append(self._closing(index + 1))

    def _closing(self, index: int) -> int:
        depth = 0
        for position in range(index, len(self._tokens)):
            depth += {"(": 1, ")": -1}.get(self._tokens[position].text, 0)
            if depth == 0:
                return position
        return len(self._tokens)

    def _check_pattern(self, index: int, token: Token) -> None:
        pattern = self._tokens[index + 2] if index + 2 < len(self._tokens) else token
        if self._at(index - 1) != "." or pattern.kind != "text" or self._at(index + 3) != ")":
            raise self._error('write text.matches("pattern") with the pattern written out: one taken from data could be made slow', token)
        try:
            cel.evaluate(f'"".matches({pattern.text})')
        except RuntimeError as error:
            detail = next((line for line in str(error).splitlines() if line.startswith("error: ")), "error: it cannot be compiled")
            raise self._error(f"the pattern is not valid: {detail.removeprefix('error: ').split('. Check')[0]}", pattern) from error

    def _at(self, index: int) -> str:
        return self._tokens[index].text if 0 <= index < len(self._tokens) else ""

    def _error(self, reason: str, token: Token) -> ExpressionError:
        return ExpressionError(self._source, reason, offset=token.start)


def _literal(token: Token) -> Accessor | None:
    if token.kind == "number" and token.text.isdigit():
        return int(token.text)
    if token.kind == "text" and token.text[0] in "'\"" and "\\" not in token.text and not token.text.startswith(("'''", '"""')):
        return token.text[1:-1]
    return None
