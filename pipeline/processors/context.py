"""How the words beside a match change its credibility; an enhancer for Presidio that looks at those words alone, not at the whole text."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from presidio_analyzer import RecognizerResult
from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer

from pipeline.processors.packs.model import SUPPORT, SUPPORTED
from pipeline.processors.recognisers import PackRecogniser
from pipeline.processors.vocabulary import CONTRARY, SUPPORTING

BEFORE = 64
AFTER = 32
"""Characters that are looked at; after a match, not past the end of its sentence or field."""
DOUBTED = 0.3
"""Credibility of what a contrary word precedes: below the threshold."""
_FIELD_END = re.compile(r"[.;|\n]")
_FIELD_BEGIN = re.compile(r"[\d,;|)\n]|[.!?]\s(?=\s*[A-ZÄÖÜÉ])")
_LINK = re.compile(
    r"[\W_]*(?:(?:no|nr|nro|num|number|numbers|nummer|numéro|numero|número|numer|id|ids|code|ref|is|was|are|of|the|lautet|ist|der|die|das|vom|est|de|du|des"
    r"|es|el|la|è|del|della|di|van|het|is|jest|är|på)[\W_]+){0,3}"
)
"""What may stand between a contrary word and the match: `order` in "order no. 123" is told from that in "the order was paid with 123"."""


class NearbyWords(ContextAwareEnhancer):
    """The nearest telling word before a match decides; a supporting one may also follow it."""

    def __init__(self) -> None:
        super().__init__(
            context_similarity_factor=SUPPORT, min_score_with_context_similarity=SUPPORTED, context_prefix_count=BEFORE, context_suffix_count=AFTER
        )
        self._known: dict[str, Words] = {}

    def enhance_using_context(
        self, text: str, raw_results: list[Any], nlp_artifacts: Any, recognizers: list[Any], context: list[str] | None = None
    ) -> list[Any]:
        """The same results, their scores changed in place: each belongs to this analysis alone."""
        words = {recogniser.id: self._words(recogniser) for recogniser in recognizers}
        for result in raw_results:
            telling = words[result.recognition_metadata[RecognizerResult.RECOGNIZER_IDENTIFIER_KEY]]
            result.score = telling.judged(result.score, text, result.start, result.end)
        return raw_results

    def _words(self, recogniser: Any) -> "Words":
        if recogniser.id not in self._known:
            [kind] = recogniser.supported_entities
            supporting = SUPPORTING.get(kind, ())
            # A pack's words count beside ours, Presidio's only where we have none.
            if not supporting or isinstance(recogniser, PackRecogniser):
                supporting += tuple(f"{word.strip()}*" for word in recogniser.context or ())
            self._known[recogniser.id] = Words(supporting, CONTRARY.get(kind, ()))
        return self._known[recogniser.id]


class Words:
    """The telling words of one kind, each as in `vocabulary`."""

    def __init__(self, supporting: Iterable[str], contrary: Iterable[str]) -> None:
        self._supporting = _pattern(supporting)
        self._contrary = _pattern(contrary)

    def judged(self, score: float, text: str, start: int, end: int) -> float:
        # What no word can change is most of what a dense text holds: cards, IBANs and addresses whose checks were passed.
        if score >= 1 and not self._contrary:
            return score
        before = text[max(0, start - BEFORE) : start]
        support = _last(self._supporting, before)
        if self._contrary:
            at = max((match.end() for match in _FIELD_BEGIN.finditer(before)), default=0)
            against = _last(self._contrary, before[at:])
            if against >= 0 and at + against > support and _LINK.fullmatch(before[at + against :].lower()):
                return min(score, DOUBTED)
        if support < 0 and self._supporting:
            support = _last(self._supporting, _FIELD_END.split(text[end : end + AFTER], maxsplit=1)[0])
        return min(1.0, max(score + SUPPORT, SUPPORTED)) if support >= 0 else score


def _last(words: re.Pattern[str] | None, text: str) -> int:
    """Where the last of the words ends; -1 if there is none."""
    return max((match.end() for match in words.finditer(text.lower())), default=-1) if words else -1


def _pattern(words: Iterable[str]) -> re.Pattern[str] | None:
    """Whole words, grouped by their first letter: a long plain alternation would be tried from its first to its last at each word."""
    groups: dict[str, list[str]] = defaultdict(list)
    for word in sorted({word.lower() for word in words}, key=len, reverse=True):
        whole = re.escape(word.removesuffix("*")).replace(r"\ ", r"\s+")
        groups[word[0]].append(rf"{whole}[^\W_]*" if word.endswith("*") else whole)
    either = "|".join(f"(?:{'|'.join(group)})" for group in groups.values())
    return re.compile(rf"(?<![^\W_])(?:{either})(?![^\W_])") if groups else None
