"""Kinds of personal data in a text, by Presidio's pattern recognisers; runs in child processes alone, and without a network."""

import logging
from collections.abc import Callable, Iterator

from pipeline.processors.extras import needed
from pipeline.processors.packs import RECOGNISERS, Packs
from pipeline.processors.packs.model import DROPPED_BELOW
from pipeline.processors.rules import Span, merged

CHUNK = 4_000
"""Characters analysed at a time; between two, progress is told."""
OVERLAP = 400
"""Longer than anything that is recognised, so that nothing is lost at the border of two chunks."""
WORDS = 64
"""Characters before a match in which words may tell what it is (`context.BEFORE`)."""


class Detector:
    """Presidio, set up for the kinds that the packs name."""

    def __init__(self, packs: Packs) -> None:
        # Imported late: a worker never needs them, and they take a second.
        with needed("compliance"):
            from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers
            from presidio_analyzer.nlp_engine import NoOpNlpEngine

            from pipeline.processors import recognisers, telephone
            from pipeline.processors.context import NearbyWords

        mended = {
            "CREDIT_CARD": recognisers.CardRecogniser,
            "EMAIL_ADDRESS": recognisers.EmailRecogniser,
            "IBAN_CODE": recognisers.IbanRecogniser,
            "IP_ADDRESS": recognisers.IpRecogniser,
            "MAC_ADDRESS": recognisers.MacRecogniser,
            "PHONE_NUMBER": telephone.TelephoneRecogniser,
            "US_SSN": recognisers.SsnRecogniser,
        }
        found_by = [
            (mended.get(kind) or getattr(predefined_recognizers, name))(supported_language="en")
            for kind, name in sorted(RECOGNISERS.items())
            if kind in packs.kinds
        ]
        found_by += [
            recognisers.PackRecogniser(pattern, name=f"{pattern.kind}-{number}", supported_language="en")
            for number, pattern in enumerate(packs.patterns)
        ]
        self._kinds = sorted(packs.kinds)
        self._own = {pattern.kind for pattern in packs.patterns}
        self._engine = AnalyzerEngine(
            registry=RecognizerRegistry(recognizers=found_by, supported_languages=["en"]),
            # Words beside a match are looked at where it is found: nothing needs a language model, nor the whole text in words.
            nlp_engine=NoOpNlpEngine([{"lang_code": "en", "model_name": ""}]),
            context_aware_enhancer=NearbyWords(),
            supported_languages=["en"],
            default_score_threshold=DROPPED_BELOW,
        )
        # It logs the text that it cannot read.
        logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL)

    def spans(self, text: str, progress: Callable[[float], None] = lambda share: None) -> list[Span]:
        """What is in the text, without overlaps, in its order; `progress` is told the share that is done, from 0 to 1."""
        found: list[Span] = []
        seen = 0
        for start, chunk, last in chunks(text):
            for result in self._engine.analyze(chunk, language="en", entities=self._kinds):
                # What touches a border may be the rest of something longer, which the neighbour sees whole.
                whole = (result.start > 0 or start == 0) and (result.end < len(chunk) or last)
                # What stands just behind a border lacks the words before it; the piece before had them.
                judged = start > 0 and result.start < WORDS and start + result.end < seen
                if whole and not judged:
                    found.append(Span(start=start + result.start, end=start + result.end, kind=result.entity_type, confidence=round(result.score, 4)))
            seen = start + len(chunk)
            progress(seen / len(text))
        return merged(found, self._own)


def chunks(text: str) -> Iterator[tuple[int, str, bool]]:
    """Overlapping pieces with their offsets and whether they are the last; they begin and end between words where there are any."""
    start = 0
    while True:
        end = min(len(text), start + CHUNK)
        if end < len(text):
            space = max(text.rfind(" ", end - OVERLAP // 2, end), text.rfind("\n", end - OVERLAP // 2, end))
            end = space if space > start else end
        yield start, text[start:end], end == len(text)
        if end == len(text):
            return
        back = end - OVERLAP
        spaces = [at for at in (text.find(" ", back, end), text.find("\n", back, end)) if at >= 0]
        start = min(spaces) if spaces else back
