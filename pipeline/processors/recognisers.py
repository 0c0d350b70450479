"""Presidio's recognisers, mended where the labelled texts showed need: issuers of cards, lengths of IBANs, borders of numbers."""

import re
from typing import Any

import regex
import tldextract
from presidio_analyzer import AnalysisExplanation, LocalRecognizer, Pattern, RecognizerResult
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    EmailRecognizer,
    IpRecognizer,
    MacAddressRecognizer,
    UsSsnRecognizer,
)
from stdnum import iban, luhn, numdb
from stdnum.us import ssn

from pipeline.errors import PermanentFailure
from pipeline.processors.packs import model as packs

PATIENCE = 5
"""Seconds for a pack's pattern in one piece of a text; a good one takes milliseconds."""
_GAP = "[ \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}-]"
_GAPS = re.compile(_GAP)
_BEGINS, _ENDS = r"(?<![\w.-])", r"(?![\w-]|\.\d)"
"""Around a number that is not a part of something longer, such as 415-738-6921-B."""


class CardRecogniser(CreditCardRecognizer):
    """Card numbers in the groupings that cards have, with an issuer's first digits, length and check digit."""

    PATTERNS = [
        Pattern("card", rf"{_BEGINS}(?:{pattern}){_ENDS}", 0.3)
        for pattern in (
            r"\d{12,19}",
            rf"\d{{4}}({_GAP})\d{{4}}\1\d{{4}}\1\d{{4}}",
            rf"\d{{4}}({_GAP})\d{{4}}\1\d{{4}}\1\d{{4}}\1\d{{1,3}}",
            rf"\d{{4}}({_GAP})\d{{6}}\1\d{{4,5}}",
        )
    ]
    # Visa; Mastercard; American Express; Discover; Diners Club; JCB; UnionPay; Mir.
    _ISSUED = re.compile(
        r"4\d{15}(?:\d{3})?|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}|(?:6011|64[4-9]\d|65\d\d)\d{12,15}"
        r"|(?:30[0-5]|3[689]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}|220[0-4]\d{12}"
    )
    # Visa's 13 digits are as long as a European article number, and Maestro has a seventh of all numbers: only with a word that says so.
    _POSSIBLE = re.compile(r"4\d{12}|(?:50|5[6-8]|6\d)\d{10,17}")

    def validate_result(self, pattern_text: str) -> bool | None:
        digits = _GAPS.sub("", pattern_text)
        if not luhn.is_valid(digits):
            return False
        if self._ISSUED.fullmatch(digits):
            return True
        if not self._POSSIBLE.fullmatch(digits):
            return False
        return None if len(digits) == len(pattern_text) else True


class SsnRecogniser(UsSsnRecognizer):
    """US social security numbers; other writings than 123-45-6789 only with a word that says so."""

    PATTERNS = [
        Pattern("hyphens", rf"{_BEGINS}\d{{3}}-\d{{2}}-\d{{4}}{_ENDS}", 0.5),
        Pattern("spaces or dots", rf"{_BEGINS}\d{{3}}([ .\N{{NO-BREAK SPACE}}])\d{{2}}\1\d{{4}}{_ENDS}", 0.25),
        Pattern("digits", rf"{_BEGINS}\d{{9}}{_ENDS}", 0.25),
    ]

    def invalidate_result(self, pattern_text: str) -> bool:
        return not ssn.is_valid(re.sub(r"\D", "", pattern_text)) or bool(super().invalidate_result(pattern_text))


class EmailRecogniser(EmailRecognizer):
    """E-mail addresses; the list of domains is the one that comes with tldextract, which would download a newer one."""

    # Kana, Han and the like are no part of it: languages without spaces would put the words around into the address.
    _WORD = r"\p{Latin}\p{Greek}\p{Cyrillic}\p{N}_"
    # The length of a local part is bounded, as in RFC 5321: a long run of such characters would else be read again from each of them.
    PATTERNS = [
        Pattern(
            "address",
            rf"(?<![{_WORD}.%+-])(?<!://[^\s/@]{{0,64}})(?<!<(?!mailto:)[^\s<>]{{1,64}})"
            rf"[{_WORD}](?:[{_WORD}.!#$%&'*+/?^`{{|}}~-]{{0,62}}[{_WORD}])?"
            rf"@[{_WORD}]++(?:-++[{_WORD}]++)*+(?:\.[{_WORD}]++(?:-++[{_WORD}]++)*+)++(?!:[^\s@]{{0,64}}/)",
            0.5,
        )
    ]
    _domains = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    def validate_result(self, pattern_text: str) -> bool:
        return bool(self._domains(pattern_text.rpartition("@")[2]).suffix)


class IpRecogniser(IpRecognizer):
    """IP addresses that are no part of a longer number (an OID, a version) and no mask."""

    PATTERNS = [Pattern(pattern.name, rf"(?<![\w.])(?:{pattern.regex})(?!\.\w)", pattern.score) for pattern in IpRecognizer.PATTERNS]

    def invalidate_result(self, pattern_text: str) -> bool:
        if ":" in pattern_text and not any(c.isdigit() for c in pattern_text):
            return True  # A scope in a program, as Add::Bed.
        first = pattern_text.partition(".")[0]
        return first in ("0", "255") or bool(super().invalidate_result(pattern_text))


class MacRecogniser(MacAddressRecognizer):
    """MAC addresses; three groups of digits alone are some other number."""

    def invalidate_result(self, pattern_text: str) -> bool:
        return ("." in pattern_text and pattern_text.replace(".", "").isdigit()) or bool(super().invalidate_result(pattern_text))


class IbanRecogniser(LocalRecognizer):
    """IBANs of exactly the length and structure that the SWIFT registry has for their country, in upper or lower case."""

    # Presidio's own takes whole groups of four and tries three ends; what follows an IBAN on its line may then hide it.
    _BEGINNING = re.compile(rf"(?<![^\W_])[A-Za-z]{{2}}\d\d(?:{_GAP}?[A-Za-z0-9]){{11,30}}")

    def __init__(self, **options: Any) -> None:
        super().__init__(supported_entities=["IBAN_CODE"], **options)
        self._registry = numdb.get("iban")
        self._lengths: dict[str, int] = {}

    def load(self) -> None:
        """There is nothing to load."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[Any]:
        found: list[Any] = []
        at = 0
        while match := self._BEGINNING.search(text, at):
            end = self._end(match[0])
            at = match.start() + (end or 4)
            if end and not text[at : at + 1].isalnum() and iban.is_valid(_GAPS.sub("", match[0][:end]), check_country=False):
                found.append(result(self, match.start(), at, 1.0, "structure and check digits"))
        return found

    def _end(self, candidate: str) -> int | None:
        """Where an IBAN of that country ends in the candidate; None if it is too short, or there is no such country."""
        left = self._length(candidate[:2].upper())
        for at, character in enumerate(candidate):
            left -= character.isalnum()
            if not left:
                return at + 1
        return None

    def _length(self, country: str) -> int:
        """In characters; 0, which nothing reaches, for what is no country."""
        if country not in self._lengths:
            structure = self._registry.info(f"{country}00")[0][1].get("bban", "")
            digits = sum(int(length) for length in re.findall(r"(\d+)!", structure))
            self._lengths[country] = digits + 4 if digits else 0
        return self._lengths[country]


class PackRecogniser(LocalRecognizer):
    """What a rule pack's pattern finds; one that takes too long says so, where Presidio's own would leave out what it had not found yet."""

    def __init__(self, pattern: packs.Pattern, **options: Any) -> None:
        super().__init__(supported_entities=[pattern.kind], context=list(pattern.context), **options)
        self._confidence = pattern.confidence
        # Without DOTALL, which Presidio sets: `.*` would take the rest of the text.
        self._regex = regex.compile(pattern.regex, regex.IGNORECASE | regex.MULTILINE)

    def load(self) -> None:
        """There is nothing to load."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[Any]:
        try:
            matches = [match.span() for match in self._regex.finditer(text, timeout=PATIENCE)]
        except TimeoutError as error:
            raise PermanentFailure(
                f"the regular expression of {self.supported_entities[0]} in a rule pack takes more than {PATIENCE} s for {len(text):,} characters; "
                "write it so that no two of its repetitions can take the same text"
            ) from error
        return [result(self, start, end, self._confidence, "a pack's pattern") for start, end in matches if end > start]


def result(recogniser: Any, start: int, end: int, score: float, why: str) -> Any:
    """What a recogniser without patterns gives Presidio."""
    return RecognizerResult(
        entity_type=recogniser.supported_entities[0],
        start=start,
        end=end,
        score=score,
        analysis_explanation=AnalysisExplanation(recognizer=recogniser.name, original_score=score, textual_explanation=why),
        recognition_metadata={RecognizerResult.RECOGNIZER_NAME_KEY: recogniser.name, RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: recogniser.id},
    )
