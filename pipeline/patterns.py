"""Regular expressions that are given at run time: of a kind that takes linear time (RE2's syntax), compiled once, each with its cost told."""

from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema

_SMALL = 1_000
"""A pattern is small that can be repeated so often before the engine calls it too large (at 10 MiB): `\\w`, of all alphabets, is not."""
_LARGE = 100
"""What a character costs with another. Measured: 1 µs for each unit of a pattern and a text that are made to be slow, up to 3 with the largest;
for others a hundredth of it."""


class Pattern:
    """Python's own engine could be made to take for ever by who writes the text; CEL's compiles a pattern again for each text."""

    def __init__(self, pattern: str) -> None:
        """Raises ValueError that says what is wrong with it."""
        whole = _compile(pattern)
        # The line break is in none but those whose comments it ends.
        self.large = not _is_one(f"(?:{pattern}\n){{{_SMALL}}}")
        self._pattern = pattern
        self._small = None if self.large else whole

    def cost(self, text: str) -> int:
        """What it takes to look through a text."""
        return (len(text) + 1) * (_LARGE if self.large else 1)

    def is_in(self, text: str) -> bool:
        return (self._small or _recent(self._pattern)).isinstance_python(text)


@lru_cache(maxsize=4096)
def compiled(text: str) -> Pattern:
    """Raises ValueError that says what is wrong with it."""
    return Pattern(text)


class Matching:
    """`matches` as one evaluation of an expression calls it, bounded in all."""

    def __init__(self, most: int) -> None:
        """`most`: what all calls may cost, see `Pattern.cost`."""
        self._left = most

    @property
    def exhausted(self) -> bool:
        return self._left < 0

    def __call__(self, text: object, pattern: str) -> bool | None:
        """None, which CEL takes for no truth value, where it is no text or too much. An error would be logged by CEL."""
        if not isinstance(text, str) or self.exhausted:
            return None
        found = compiled(pattern)
        self._left -= found.cost(text)
        return None if self.exhausted else found.is_in(text)


def _compile(text: str) -> SchemaValidator:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=text, strict=True, regex_engine="rust-regex"))
    except SchemaError as error:
        lines = str(error).splitlines()
        raise ValueError(next((line for line in lines if line.startswith("error: ")), lines[-1]).strip().removeprefix("error: ")) from None


_recent = lru_cache(maxsize=64)(_compile)
"""Large ones have up to 20 MiB each."""


def _is_one(text: str) -> bool:
    try:
        _compile(text)
    except ValueError:
        return False
    return True
