"""What may stand in an expression: CEL's tokens read for everything that CEL itself finds out only when it runs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InvalidInput
from pipeline.patterns import compiled
from pipeline.workflows.language import cel
from pipeline.workflows.names import Each, Fields, Names
from pipeline.workflows.values import Accessor, Path, needs, written
from pipeline.yamlsource import suggestion

MAX_LENGTH = 1000
"""Characters of one expression."""
PATTERN = "PATTERN"
"""What `matches` is called in a compiled expression: nobody can write it, and CEL's own would compile the pattern again for each text."""
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
OPEN = "${{"
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


def closing(text: str, body: int) -> int:
    """Where the `}}` of an expression stands: braces inside its texts and maps do not count."""
    depth = 0
    for token in tokens(text, body, len(text)):
        if token.text == "{":
            depth += 1
        elif token.text == "}":
            if depth == 0 and text.startswith("}}", token.start):
                return token.start
            depth -= 1
    raise ExpressionError(text[body : body + 60].strip(), "has no closing }}", offset=body - len(OPEN))


def tokens(text: str, start: int, end: int) -> Iterator[Token]:
    for match in _TOKEN.finditer(text, start, end):
        if match.lastgroup != "space":
            yield Token(str(match.lastgroup), match[0], match.start())


def _syntax(source: str, message: str) -> tuple[str, int]:
    match = _CEL_PLACE.search(message)
    if not match:
        return "is not an expression", 0
    lines = source.split("\n")
    line = min(int(match[1]), len(lines)) - 1
    offset = sum(len(before) + 1 for before in lines[:line]) + int(match[2]) - 1
    if "<EOF>' expecting" in match[3]:
        return "ends too early", len(source)
    if "Recursion limit" in match[3]:
        return "is nested too deeply", 0
    if re.search(r"token recognition error at: '[rRbB]*[\"']", match[3]):
        return "a text is not closed", min(offset, len(source))
    return match[3].split(" expecting ")[0], min(offset, len(source))


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """An expression that passed every check that can be made without its data."""

    source: str
    program: cel.Program
    references: tuple[Reference, ...]
    paths: tuple[Path, ...]
    """Of the references."""
    needs: Mapping[str, Any]
    """What they read of a scope, for `values.without_the_rest`."""
    loops: int
    """How many lists it walks."""
    patterns: bool
    """Whether it holds texts against patterns, for which it calls PATTERN."""
    whole: bool
    """Whether it is one reference and nothing else."""


def checked(source: str, start: int, names: Names) -> Checked:
    """Compile an expression that stands at `start` in its text and may read `names`. Raises ExpressionError, its offset counted in that text."""
    if len(source) > MAX_LENGTH:
        raise ExpressionError(f"{source[:60]}…", f"has more than {MAX_LENGTH:,} characters", offset=start)
    try:
        program = cel.compile(source)
    except ValueError as error:
        reason, offset = _syntax(source, str(error))
        raise ExpressionError(source, reason, offset=start + offset) from error
    found = [Token(token.kind, token.text, token.start + start) for token in tokens(source, 0, len(source))]
    return _Checker(source, start, found, names).check(program)


class _Checker:
    """Reads an expression's tokens for what CEL itself finds out only when it runs."""

    def __init__(self, source: str, start: int, tokens: list[Token], names: Names) -> None:
        self._source = source
        self._start = start
        self._tokens = tokens
        self._names = names
        self._loops = [
            index for index in range(1, len(tokens)) if self._at(index - 1) == "." and tokens[index].text in LOOPS and self._at(index + 1) == "("
        ]
        self._bound = {self._at(index + 2) for index in self._loops}

    def check(self, program: cel.Program) -> Checked:
        self._check_loops()
        references = []
        patterns = [index for index, token in enumerate(self._tokens) if token.text == "matches" and self._at(index + 1) == "("]
        for index, token in enumerate(self._tokens):
            if token.kind == "other" and token.text in "'\"`":
                raise self._error("a text is not closed", token)
            if token.kind == "text" and token.text.lstrip("rR")[0] in "bB":
                raise self._error("bytes are not JSON; write a text", token)
            if token.kind == "name":
                references += self._name(index, token)
        whole = len(references) == 1 and references[0][0].start == self._tokens[0].start and references[0][1] == len(self._tokens)
        read = tuple(reference for reference, _ in references)
        paths = tuple(reference.path for reference in read)
        return Checked(
            source=self._source,
            program=cel.compile(self._renamed(patterns)) if patterns else program,
            references=read,
            paths=paths,
            needs=needs(paths),
            loops=len(self._loops),
            patterns=bool(patterns),
            whole=whole,
        )

    def _renamed(self, patterns: list[int]) -> str:
        """The source, with PATTERN in the place of `matches`."""
        source, first = self._source, self._start
        for token in (self._tokens[index] for index in reversed(patterns)):
            source = source[: token.start - first] + PATTERN + source[token.start - first + len(token.text) :]
        return source

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
        if token.text not in self._names.variables:
            raise self._error(f"there is no variable {token.text!r}{suggestion(token.text, self._names.variables)}", token)
        path, places, end = self._path(index)
        self._check_path(path, places)
        return [(Reference(path=path, start=token.start), end)]

    def _path(self, index: int) -> tuple[Path, list[Token], int]:
        """The accessors of a path, the token of each, and the index of what follows it."""
        path: list[Accessor] = [self._tokens[index].text]
        places = [self._tokens[index]]
        index += 1
        while True:
            following = self._tokens[index + 1] if index + 1 < len(self._tokens) else None
            if self._at(index) == "." and following and following.kind == "name" and self._at(index + 2) != "(":
                path.append(following.text)
                places.append(following)
                index += 2
            elif self._at(index) == "[" and following and self._at(index + 2) == "]" and (key := _literal(following)) is not None:
                path.append(key)
                places.append(following)
                index += 3
            else:
                return tuple(path), places, index

    def _check_path(self, path: Path, places: list[Token]) -> None:
        fields: Fields = self._names.variables
        for depth, (part, token) in enumerate(zip(path, places, strict=True)):
            if not isinstance(fields, Each) and part not in fields:
                raise self._error(f"{written(path[:depth])} has no {str(part)!r}{suggestion(str(part), fields)}", token)
            inside = fields.fields if isinstance(fields, Each) else fields[str(part)]
            if inside is None:
                return
            fields = inside
        if isinstance(fields, Each):
            raise self._error(f"name the {fields.noun}: {written(path)}.<id>.{next(iter(fields.fields))}", places[0])

    def _check_loops(self) -> None:
        ends: list[int] = []
        for index in self._loops:
            if index + 3 >= len(self._tokens) or self._tokens[index + 2].kind != "name" or self._at(index + 3) != ",":
                raise self._error(
                    f"{self._tokens[index].text}() takes a name and an expression: list.{self._tokens[index].text}(x, …)", self._tokens[index]
                )
            name = self._tokens[index + 2]
            if name.text in self._names.variables:
                raise self._error(f"{name.text!r} is a variable already; name the element otherwise", name)
            if any(index < end for end in ends):
                raise self._error(
                    f"{self._tokens[index].text}() inside another loop costs the square of the data; {self._names.instead}", self._tokens[index]
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
            compiled(str(cel.evaluate(pattern.text)))
        except ValueError as error:
            raise self._error(f"the pattern is not valid: {error}", pattern) from error

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
