"""From what was found in a text to findings, scores and redacted excerpts, by the rules of the packs."""

import bisect
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.processors.extraction import PAGE_END
from pipeline.processors.packs.model import SEVERITIES, Rule, Severity
from pipeline.processors.scoring import Loss, losses, remaining

BEFORE = 40
AFTER = 30
"""Characters of an excerpt around what was found."""
EXCERPT_LIMIT = 200
HIDDEN = "▪"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Span:
    """A stretch of the text that was recognised as some kind of data."""

    start: int
    end: int
    kind: str
    confidence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    rule: str
    framework: str
    article: str
    severity: Severity
    title: str
    advice: str
    excerpt: str
    """Without what was found, and without any word beside it that may tell who it is about."""
    page: int | None
    """1 for the first; None for a text without pages."""
    offset: int
    """In characters, from the beginning of the stored text."""


def merged(spans: Iterable[Span], own: Collection[str] = ()) -> list[Span]:
    """Spans in the order of the text, none overlapping another: of those that do, the most credible stands, then the longest.

    Of two that are equal in both, one of a kind in `own` stands: a pack's "address of our staff" is an e-mail address as well.
    """
    kept: list[Span] = []
    for span in sorted(set(spans), key=lambda span: (-span.confidence, span.start - span.end, span.kind not in own, span.start, span.kind)):
        at = bisect.bisect_left(kept, span.start, key=lambda other: other.end)
        while at < len(kept) and kept[at].end == span.start:
            at += 1
        if at == len(kept) or kept[at].start >= span.end:
            kept.insert(at, span)
    return kept


def findings(text: str, spans: Sequence[Span], rules: Sequence[Rule], framework: str) -> list[Finding]:
    """All findings of a framework, in the order of the text. `spans` as `merged` gives them."""
    pages = [match.start() for match in re.finditer(PAGE_END, text)]
    found: list[Finding] = []
    for rule in rules:
        places = _places(text, spans, rule)
        if len(places) < rule.min_count:
            continue
        if rule.once:
            places = places[:1]
        found += [
            Finding(
                rule=rule.id,
                framework=framework,
                article=rule.article,
                severity=rule.severity,
                title=rule.title,
                advice=rule.advice,
                excerpt=excerpt(text, spans, start, end),
                page=bisect.bisect_right(pages, start) + 1 if pages else None,
                offset=start,
            )
            for start, end in places
        ]
    return sorted(found, key=lambda finding: (finding.offset, finding.rule))


class Weighted(Protocol):
    """What may be broken, and what its first finding costs of 100."""

    @property
    def id(self) -> str: ...

    @property
    def cost(self) -> int: ...


def lost(found: Sequence[Finding], rules: Iterable[Weighted]) -> list[Loss]:
    """What each rule that was broken takes from 100, the costliest first."""
    return losses((finding.rule for finding in found), {rule.id: rule.cost for rule in rules})


def score(found: Sequence[Finding], rules: Iterable[Weighted]) -> int:
    """100 without findings, less for each broken rule: its weight for the first finding, more for further ones with diminishing effect."""
    return remaining(lost(found, rules))


def gravest(found: Iterable[Finding], limit: int) -> list[Finding]:
    """The gravest first; of equal ones, the first of each rule before the second of any, then in the order of the text."""
    seen: dict[str, int] = {}
    ranked = []
    for finding in sorted(found, key=lambda finding: (finding.offset, finding.rule)):
        seen[finding.rule] = seen.get(finding.rule, 0) + 1
        ranked.append((-SEVERITIES.index(finding.severity), seen[finding.rule], finding.offset, finding.rule, finding))
    return [finding for *_, finding in sorted(ranked, key=lambda rank: rank[:4])[:limit]]


def excerpt(text: str, spans: Sequence[Span], start: int, end: int, *, verbatim: bool = True) -> str:
    """The surroundings of a place, redacted.

    Each span is replaced by its kind. Of the words around, those with a capital letter or a digit are hidden: a name that nobody
    recognised would be among them. What a rule names itself (a term) stays, unless `verbatim` is false.
    """
    left, right = _window(text, start, end)
    first = bisect.bisect_right(spans, left, key=lambda span: span.end)
    last = bisect.bisect_left(spans, right, key=lambda span: span.start)
    shown = [(span.start, span.end, f"[{span.kind}]") for span in spans[first:last]]
    if verbatim and not any(s < end and e > start for s, e, _ in shown):
        shown = sorted([*shown, (start, end, text[start:end])])
    parts: list[str] = []
    at = left
    for s, e, stands in shown:
        parts += [_hidden(text[at:s]), stands]
        at = max(at, e)
    parts.append(_hidden(text[at:right]))
    joined = " ".join("".join(parts).split())
    return joined if len(joined) <= EXCERPT_LIMIT else joined[: EXCERPT_LIMIT - 1] + "…"


def _window(text: str, start: int, end: int) -> tuple[int, int]:
    """The surroundings' borders, so that no word is cut in half: half a name would look like a word."""
    left, right = max(0, start - BEFORE), min(len(text), end + AFTER)
    while 0 < left < start and not text[left - 1].isspace():
        left += 1
    while end < right < len(text) and not text[right].isspace():
        right -= 1
    return left, right


def _hidden(text: str) -> str:
    """A piece of the surroundings, its telling words hidden.

    Those are all but words in small letters: in a script without capitals (王小明, محمد) any may be a name.
    """
    return re.sub(r"\w[\w.@’'/+-]*\w|\w", lambda match: HIDDEN if any(c.isalnum() and not c.islower() for c in match[0]) else match[0], text)


def _places(text: str, spans: Sequence[Span], rule: Rule) -> list[tuple[int, int]]:
    """Where a rule is broken, in the order of the text."""
    credible = [span for span in spans if span.confidence >= rule.min_confidence]
    if rule.kinds:
        return [(span.start, span.end) for span in credible if span.kind in rule.kinds]
    if rule.all_of:
        return _together([[span for span in credible if span.kind in group] for group in rule.all_of], rule.within)
    if rule.terms:
        return _terms(text, rule.terms)
    assert rule.missing
    triggers = _terms(text, rule.missing.when.terms) + [(span.start, span.end) for span in credible if span.kind in rule.missing.when.kinds]
    return [min(triggers)] if triggers and not _terms(text, rule.missing.any_of) else []


def _together(groups: Sequence[Sequence[Span]], within: int) -> list[tuple[int, int]]:
    """Each member of the first group that has one of every other group near it; several with the same neighbours count once."""
    starts = [[span.start for span in group] for group in groups]
    places: list[tuple[int, int]] = []
    used: set[tuple[Span | None, ...]] = set()
    for span in groups[0]:
        near = tuple(_nearest(starts[n], groups[n], span, within) for n in range(1, len(groups)))
        if all(near) and near not in used:
            used.add(near)
            places.append((span.start, span.end))
    return places


def _nearest(starts: Sequence[int], group: Sequence[Span], span: Span, within: int) -> Span | None:
    at = bisect.bisect_left(starts, span.start)
    candidates = [group[n] for n in (at - 1, at, at + 1) if 0 <= n < len(group) and group[n] != span]
    nearest = min(candidates, key=lambda other: abs(other.start - span.start), default=None)
    return nearest if nearest and abs(nearest.start - span.start) <= within else None


def _terms(text: str, terms: Sequence[str]) -> list[tuple[int, int]]:
    if not terms:
        return []
    # The longest first, so that of two terms that begin alike the more telling one is found.
    phrases = [r"\s+".join(re.escape(word) for word in term.split()) for term in sorted(terms, key=len, reverse=True)]
    return [match.span() for match in re.finditer(rf"(?<!\w)(?:{'|'.join(phrases)})(?!\w)", text, re.IGNORECASE)]
