"""Kinds of personal data in a text, by Presidio's pattern recognisers; runs in child processes alone, and without a network."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pipeline.processors.extras import needed
from pipeline.processors.packs import RECOGNISERS, Packs
from pipeline.processors.rules import Span, merged

CHUNK = 4_000
"""Characters analysed at a time: Presidio looks for the context of a match among all words of the text it was given."""
OVERLAP = 400
"""Longer than anything that is recognised, so that nothing is lost at the border of two chunks."""
THRESHOLD = 0.35
"""Less credible matches are dropped at once; rules ask for more."""
PHONE_REGIONS = ("US", "GB", "DE", "FR", "NL", "ES", "IT", "CH")


class Detector:
    """Presidio, set up for the kinds that the packs name."""

    def __init__(self, packs: Packs) -> None:
        # Imported late: a worker never needs it, and it takes a second.
        with needed("compliance"):
            import presidio_analyzer
            from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry, predefined_recognizers

        classes: dict[str, Callable[..., Any]] = {
            kind: getattr(predefined_recognizers, name) for kind, name in RECOGNISERS.items() if kind in packs.kinds
        }
        if "EMAIL_ADDRESS" in classes:
            classes["EMAIL_ADDRESS"] = _offline(classes["EMAIL_ADDRESS"])
        recognisers = [
            make(supported_language="en", **({"supported_regions": PHONE_REGIONS} if kind == "PHONE_NUMBER" else {}))
            for kind, make in sorted(classes.items())
        ]
        recognisers += [
            PatternRecognizer(
                supported_entity=pattern.kind,
                name=f"{pattern.kind}-{number}",
                patterns=[Pattern(pattern.kind, pattern.regex, pattern.confidence)],
                context=list(pattern.context) or None,
            )
            for number, pattern in enumerate(packs.patterns)
        ]
        self._kinds = sorted(packs.kinds)
        self._engine = AnalyzerEngine(
            registry=RecognizerRegistry(recognizers=recognisers, supported_languages=["en"]),
            nlp_engine=_blank_engine(presidio_analyzer),
            supported_languages=["en"],
            default_score_threshold=THRESHOLD,
        )

    def spans(self, text: str, progress: Callable[[float], None] = lambda share: None) -> list[Span]:
        """What is in the text, without overlaps, in its order; `progress` is told the share that is done, from 0 to 1."""
        found: list[Span] = []
        for start, chunk, last in chunks(text):
            for result in self._engine.analyze(chunk, language="en", entities=self._kinds):
                # What touches a border may be the rest of something longer, which the neighbour sees whole.
                if (result.start > 0 or start == 0) and (result.end < len(chunk) or last):
                    found.append(Span(start=start + result.start, end=start + result.end, kind=result.entity_type, confidence=round(result.score, 4)))
            progress((start + len(chunk)) / len(text))
        return merged(found)


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


def _offline(recogniser: Any) -> Callable[..., Any]:
    """Presidio's e-mail recogniser, with the list of domains that comes with tldextract; it would download a newer one."""
    import tldextract

    domains = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmailRecognizer(recogniser):  # type: ignore[misc]
        def validate_result(self, pattern_text: str) -> bool:
            return bool(domains(pattern_text).suffix)

    return OfflineEmailRecognizer


def _blank_engine(presidio_analyzer: Any) -> Any:
    """spaCy's tokeniser for English and nothing else: there is no model to download."""
    import spacy
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

    class BlankEngine(NlpEngine):  # type: ignore[misc]
        def __init__(self) -> None:
            self._nlp = spacy.blank("en")

        def load(self) -> None:
            """There is nothing to load."""

        def is_loaded(self) -> bool:
            return True

        def process_text(self, text: str, language: str) -> Any:
            tokens = self._nlp(text)
            # A blank pipeline has no lemmas; the words themselves serve as context.
            words = [token.lower_ for token in tokens]
            return NlpArtifacts([], tokens, [token.idx for token in tokens], words, self, language)

        def process_batch(self, texts: Iterable[Any], language: str, **options: Any) -> Iterator[tuple[Any, Any]]:
            return ((text, self.process_text(text, language)) for text in texts)

        def is_stopword(self, word: str, language: str) -> bool:
            return bool(self._nlp.vocab[word].is_stop)

        def is_punct(self, word: str, language: str) -> bool:
            return bool(self._nlp.vocab[word].is_punct)

        def get_supported_entities(self) -> list[str]:
            return []

        def get_supported_languages(self) -> list[str]:
            return ["en"]

    return BlankEngine()
