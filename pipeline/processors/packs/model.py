"""What a rule pack may say: patterns that find kinds of data, and rules about kinds and words."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from pipeline.yamlsource import Path as YamlPath

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")
WEIGHTS: dict[Severity, int] = {"low": 3, "medium": 8, "high": 15, "critical": 30}
"""What the first finding of a rule costs of 100, unless the rule says otherwise."""
DROPPED_BELOW = 0.35
"""Less credible matches are dropped at once; rules may ask for more."""
SUPPORT = 0.35
SUPPORTED = 0.4
"""What a supporting word beside a match adds to its confidence, and the least that results: the values of Presidio's own enhancer."""


def _phrase(value: str) -> str:
    # Nothing stands everywhere: such a term would be found at each character, and a statement of it never be missing.
    if not value.strip():
        raise ValueError("should be a word or phrase, but is empty")
    return value


def _framework(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}", value):
        raise ValueError("should be at most 64 letters (A to Z), digits, spaces and . _ -, such as HOUSE")
    return value


def _id(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", value):
        raise ValueError(f"should be at most 64 small letters, digits and hyphens{_such_as(re.sub(r'[^a-z0-9]+', '-', value.lower()).strip('-'))}")
    return value


def _kind(value: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{1,63}", value):
        raise ValueError(f"should be 2 to 64 capital letters, digits and _{_such_as(re.sub(r'[^A-Z0-9]+', '_', value.upper()).strip('_0123456789'))}")
    return value


def _such_as(example: str) -> str:
    return f", such as {example[:64]}" if len(example) > 1 else ""


Phrase = Annotated[str, AfterValidator(_phrase)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pattern(_Part):
    """A kind of data that a regular expression finds; the whole match counts, labels included."""

    kind: Annotated[str, AfterValidator(_kind)]
    regex: str
    """In the syntax of Python's re; upper and lower case do not matter, outside `(?-i:…)`, and `^` and `$` are a line's."""
    context: tuple[Phrase, ...] = ()
    """Words beside a match that make it more credible."""
    confidence: float = Field(0.6, gt=0, le=1)

    @property
    def best(self) -> float:
        """The confidence of a match with every support that it can have."""
        return min(1.0, max(self.confidence + SUPPORT, SUPPORTED)) if self.context else self.confidence

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            compiled = re.compile(value, re.IGNORECASE)
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        if compiled.match(""):
            raise ValueError("should not match an empty text")
        return value

    @field_validator("confidence")
    @classmethod
    def _noticed(cls, value: float, info: ValidationInfo) -> float:
        if value < DROPPED_BELOW and not info.data.get("context"):
            raise ValueError(f"less than {DROPPED_BELOW} is dropped, unless words of context support it")
        return value


class Trigger(_Part):
    kinds: tuple[str, ...] = ()
    terms: tuple[Phrase, ...] = ()

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.kinds and not self.terms:
            raise ValueError("should name kinds or terms")
        return self


class Missing(_Part):
    any_of: tuple[Phrase, ...] = Field(min_length=1)
    """Statements, one of which a document must have …"""
    when: Trigger
    """… if it has any of these."""


class Rule(_Part):
    """What is looked for: exactly one of kinds, all_of, terms, missing."""

    id: Annotated[str, AfterValidator(_id)]
    article: str = Field(min_length=1, max_length=80)
    title: str = Field(max_length=200)
    severity: Severity
    weight: int | None = Field(None, ge=1, le=100)
    advice: str = Field("", max_length=500)
    kinds: tuple[str, ...] = ()
    """Each occurrence of any of them is a finding."""
    all_of: tuple[tuple[str, ...], ...] = ()
    """Groups of kinds: one of each within `within` characters of each other are a finding."""
    within: int = Field(500, ge=1, le=100_000)
    terms: tuple[Phrase, ...] = ()
    """Words or phrases, each occurrence of which is a finding; case and line breaks do not matter."""
    missing: Missing | None = None
    min_confidence: float = Field(0.5, ge=DROPPED_BELOW, le=1)
    """Of kinds, wherever the rule names any."""
    min_count: int = Field(1, ge=1)
    """Fewer occurrences are no finding."""
    once: bool = False
    """However many occurrences there are, the first alone is a finding: for what a document is, not for each thing in it."""

    @property
    def cost(self) -> int:
        return self.weight or WEIGHTS[self.severity]

    @property
    def named(self) -> tuple[tuple[YamlPath, str], ...]:
        """Every kind that the rule names, with where in it."""
        groups = [(("all_of", index, place), kind) for index, group in enumerate(self.all_of) for place, kind in enumerate(group)]
        when = self.missing.when.kinds if self.missing else ()
        return (
            *((("kinds", place), kind) for place, kind in enumerate(self.kinds)),
            *groups,
            *((("missing", "when", "kinds", place), kind) for place, kind in enumerate(when)),
        )

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("kinds", "all_of", "terms", "missing") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"should say one of kinds, all_of, terms, missing; it says {' and '.join(given) or 'none'}")
        if self.all_of and (len(self.all_of) < 2 or not all(self.all_of)):
            raise ValueError("all_of should have at least two groups, none of them empty; for one, write kinds")
        # What has no effect was meant to have one.
        effects = {"within": bool(self.all_of), "min_confidence": bool(self.named), "min_count": not self.missing, "once": not self.missing}
        for name, effect in effects.items():
            if name in self.model_fields_set and not effect:
                raise ValueError(
                    f"{name} has no effect beside {given[0]}{' of terms alone' if given[0] == 'missing' and name == 'min_confidence' else ''}"
                )
        return self


class Pack(_Part):
    framework: Annotated[str, AfterValidator(_framework)]
    title: str = Field("", max_length=200)
    patterns: tuple[Pattern, ...] = ()
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.rules and not self.patterns:
            raise ValueError("should have rules, patterns or both")
        return self
