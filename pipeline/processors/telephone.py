"""Telephone numbers in a text, by what phonenumbers knows of each country's numbers and of how they are written."""

import re
from collections.abc import Iterator
from typing import Any

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, Leniency, PhoneMetadata, PhoneNumberMatcher
from presidio_analyzer import LocalRecognizer

from pipeline.processors.context import Words
from pipeline.processors.recognisers import result
from pipeline.processors.vocabulary import CONTRARY, SUPPORTING

REGIONS = ("US", "GB", "FR", "NL", "CH", "BE", "ES", "PL", "PT", "SE", "DK", "NO", "AU", "BR", "IE", "DE", "IT", "AT", "FI")
"""Countries whose numbers are found as they are written at home. With `+`, those of every country are.
Those with the strictest forms come first: most candidates are then judged once."""
INTERNATIONAL = 0.75
AS_WRITTEN_AT_HOME = 0.5
"""A trunk prefix or an area code, in groups as that country writes them, and nothing before it that it could be the number of."""
DIGITS = 0.25
"""Valid, but any other number of as many digits may be: only with a word that says so."""
_CANDIDATE = re.compile(
    r"(?<![\w./#+-])(?:[+(]|\+ ?\()?\d(?:[  .()/‐-–-]{0,3}\d){5,16}(?:,? ?(?:ext\.?|extension|x|Durchwahl) ?\d{1,6})?(?![\w%€$£]|[-/.]\d)"
)
_DATE_OR_TIMES = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}|(?:[01]\d|2[0-4])[0-5]\d ?[-–] ?(?:[01]\d|2[0-4])[0-5]\d\Z")
_INTRODUCED = re.compile(
    r"(?:^|[\n\t,:;()|/•–—\"'“„«>]|\s\s"
    r"|\b(?:at|on|to|from|use|try|text|is|under|or|and|[hwmtpf]|unter|auf|und|oder|au|ou|et|al|y|o|e|op|en|of|på|och|pod|i))\s*\Z",
    re.IGNORECASE,
)
"""Before a number that stands for itself; in "circuit 415-220-7719" it is the circuit's."""
_TYPES = ("fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "voip", "personal_number", "pager", "uan", "voicemail")
"""phonenumbers' own: a number is valid if it is of one of them."""


class TelephoneRecogniser(LocalRecognizer):  # type: ignore[misc]  # Presidio's classes have no types
    """One pass over the text, where Presidio's own makes one for each country."""

    def __init__(self, **options: Any) -> None:
        super().__init__(supported_entities=["PHONE_NUMBER"], **options)
        self._home = [_Home(region) for region in REGIONS]
        self._words = Words(SUPPORTING["PHONE_NUMBER"], CONTRARY["PHONE_NUMBER"])

    def load(self) -> None:
        """There is nothing to load."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[Any]:
        found = []
        for match in _CANDIDATE.finditer(text):
            # Of "(0341 1230)" the candidate has one parenthesis alone.
            open_only = match[0].startswith("(") and ")" not in match[0]
            candidate, at = (match[0][1:], match.start() + 1) if open_only else (match[0], match.start())
            found += [result(self, at + start, at + end, score, why) for start, end, score, why in self._judged(candidate, text, at)]
        return found

    def _judged(self, candidate: str, text: str, at: int) -> Iterator[tuple[int, int, float, str]]:
        if candidate.lstrip("(").startswith("+"):
            for match in PhoneNumberMatcher(candidate, None, Leniency.VALID):
                yield match.start, match.end, INTERNATIONAL, "valid, with its country"
            return
        if _DATE_OR_TIMES.search(candidate):
            return
        digits = re.sub(r"\D", "", re.split(r",? ?[eExXD]", candidate, maxsplit=1)[0])
        likely = [home for home in self._home if home.may_be(digits)]
        # With fewer digits, whatever is numbered may look so.
        stands_alone = len(digits) >= 8 and _INTRODUCED.search(text, max(0, at - 12), at)
        for home in likely if stands_alone else ():
            if home.telling(candidate, digits):
                for match in PhoneNumberMatcher(candidate, home.region, Leniency.EXACT_GROUPING, 1):
                    yield match.start, match.end, AS_WRITTEN_AT_HOME, f"valid, and written as in {home.region}"
                    return
        # A text of numbers has many such candidates: a word is looked for before a country is.
        if not likely or self._words.judged(DIGITS, text, at, at + len(candidate)) <= DIGITS:
            return
        for home in likely:
            for match in PhoneNumberMatcher(candidate, home.region, Leniency.VALID, 1):
                yield match.start, match.end, DIGITS, f"valid in {home.region}"
                return


class _Home:
    """How a country's numbers look at home: a quick look before phonenumbers takes a slow one."""

    def __init__(self, region: str) -> None:
        self.region = region
        about: Any = PhoneMetadata.metadata_for_region(region)
        trunk = about.national_prefix or ""
        self._shape = re.compile(rf"(?:{about.international_prefix}\d{{7,15}}|(?:{trunk}|{_without_trunk(about)})(?:{_valid(about)}))")
        self._area_codes = about.country_code == 1
        self._trunk = trunk == "0"

    def may_be(self, digits: str) -> bool:
        return self._shape.fullmatch(digits) is not None

    def telling(self, candidate: str, digits: str) -> bool:
        """Whether the writing itself says that it is a telephone number: groups, and a trunk prefix or an area code."""
        if self._area_codes:
            return bool(re.match(r"(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}", candidate))
        return len(digits) < len(candidate) and digits.startswith("0") and self._trunk


def _valid(about: Any) -> str:
    """What a country's valid numbers look like: those of each type, in each territory that shares its calling code.

    The general form is much wider: of eight digits nearly half of all countries' would have to take the slow look.
    """
    territories: list[Any] = [PhoneMetadata.metadata_for_region(region) for region in COUNTRY_CODE_TO_REGION_CODE[about.country_code]]
    types = [getattr(territory, kind) for territory in territories for kind in _TYPES]
    return "|".join(sorted({kind.national_number_pattern for kind in types if kind and kind.national_number_pattern}))


def _without_trunk(about: Any) -> str:
    """Before a number that may be written without the trunk prefix: one for which no form asks for it."""
    asking: list[str] = []
    others: list[str] = []
    for form in about.number_format:
        first = form.leading_digits_pattern[-1] if form.leading_digits_pattern else ""
        rule = (form.national_prefix_formatting_rule or "").replace("\\1", "")
        asks = re.search(r"\d", rule) and not form.national_prefix_optional_when_formatting
        (asking if asks else others).append(rf"(?={first}){form.pattern}\Z")
    return "|".join([f"(?!{'|'.join(asking)})" if asking else "", *(f"(?={other})" for other in others)])
