"""How well and how fast personal data is found: precision and recall per kind over the labelled texts, seconds per MiB over made ones.

python -m benchmarks.findings            writes the tables into docs/compliance.md
python -m benchmarks.findings --tuning   shows each mistake in the tuning half, and does not look at the other
"""

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from stdnum import iban, luhn

from pipeline.processors import packs
from pipeline.processors.detection import Detector
from pipeline.processors.rules import findings, score

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ROOT / "tests" / "vectors" / "findings"
HALVES = ("tuning", "held-out")
PAGE = ROOT / "docs" / "compliance.md"
MAIN = ("CREDIT_CARD", "IBAN_CODE", "US_SSN", "PHONE_NUMBER", "EMAIL_ADDRESS", "IP_ADDRESS")
MORE = ("US_ITIN", "UK_NINO", "ES_NIF", "IT_FISCAL_CODE", "FI_PERSONAL_IDENTITY_CODE", "MAC_ADDRESS")
"""The kinds that are labelled wherever they occur."""
NORWEGIAN = "PHONE_NUMBER as in Norway"
"""Eight digits, without anything that tells the country: the dearest ones to judge."""
CONFIDENCE = 0.5
"""What a rule asks for unless it says otherwise: a less credible span is no finding."""
MIB = 1024 * 1024
_LABEL = re.compile(r"\[\[([A-Z_]+)\|(.*?)\]\]", re.DOTALL)

Place = tuple[int, int, str]
"""Start, end (exclusive) and kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """A text without its marks, and the places they named."""

    country: str
    text: str
    places: frozenset[Place]


@dataclass(kw_only=True, slots=True)
class Tally:
    """Counts of one half, by kind. A span counts as found only if kind, start and end are all as labelled."""

    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)

    def precision(self, kind: str) -> float:
        return _share(self.right[kind], self.wrong[kind])

    def recall(self, kind: str) -> float:
        return _share(self.right[kind], self.missed[kind])


def labelled(half: str) -> list[Labelled]:
    """The texts of one of HALVES: `{"country": "DE", "text": "… [[IBAN_CODE|DE89 …]] …"}`, one a line."""
    with (TEXTS / f"{half}.jsonl").open("rb") as lines:
        return [_parsed(**orjson.loads(line)) for line in lines]


def measured(detector: Detector, texts: Iterable[Labelled]) -> tuple[Tally, list[tuple[Labelled, frozenset[Place], frozenset[Place]]]]:
    """The counts, and for each text with mistakes what was missed in it and what was wrongly found."""
    tally, mistakes = Tally(), []
    for one in texts:
        found = frozenset(
            (span.start, span.end, span.kind) for span in detector.spans(one.text) if span.confidence >= CONFIDENCE and span.kind in MAIN + MORE
        )
        tally.right.update(kind for *_, kind in found & one.places)
        tally.wrong.update(kind for *_, kind in found - one.places)
        tally.missed.update(kind for *_, kind in one.places - found)
        if found != one.places:
            mistakes.append((one, one.places - found, found - one.places))
    return tally, mistakes


def plain(characters: int = MIB) -> str:
    """Prose of a report that has nothing to find."""
    sentence = "The committee met again in spring and agreed, after some discussion, that the warehouse should be repaired before winter. "
    return (sentence * (characters // len(sentence) + 1))[:characters]


def dense(kinds: Sequence[str] = MAIN, characters: int = MIB) -> str:
    """A list with a finding each 50 characters, no two alike."""
    lines: list[str] = []
    length = number = 0
    while length < characters:
        line = f"{_made(kinds[number % len(kinds)], number)} was noted by the clerk of list {number % 97}"
        lines.append(f"{line:<49}\n")
        length += len(lines[-1])
        number += 1
    return "".join(lines)[:characters]


def _made(kind: str, number: int) -> str:
    """A value of a kind; other numbers give others."""
    spread = number * 7919
    if kind == "CREDIT_CARD":
        digits = f"4539{spread % 10**11:011}"
        card = digits + luhn.calc_check_digit(digits)
        return f"{card[:4]} {card[4:8]} {card[8:12]} {card[12:]}"
    if kind == "IBAN_CODE":
        account = f"{spread % 10**18:018}"
        return f"DE{iban.calc_check_digits(f'DE00{account}')}{account}"
    if kind == "US_SSN":
        return f"{spread % 600 + 1:03}-{number % 99 + 1:02}-{spread % 9999 + 1:04}"
    if kind == "PHONE_NUMBER":
        line = f"{spread % 10**4:04}"
        return (f"(212) 736-{line}", f"+49 30 90{line}12", f"020 7946 {line}", f"tel. 06 12 34 {line[:2]} {line[2:]}")[number // len(MAIN) % 4]
    if kind == NORWEGIAN:
        return f"tlf. 2{spread % 9 + 1} {spread % 89 + 10} {number % 90 + 10} {spread % 83 + 10}"
    if kind == "EMAIL_ADDRESS":
        return f"clerk.{spread}@example{number % 89}.co.uk"
    return f"{spread % 200 + 11}.{number % 251}.{spread % 253}.{number % 249}"


def seconds(detector: Detector, rules: packs.Packs, text: str) -> tuple[float, int]:
    """CPU seconds for spans, findings, excerpts and scores of all frameworks; and the number of spans."""
    begun = time.process_time()
    spans = detector.spans(text)
    for framework in rules.frameworks:
        score(findings(text, spans, rules.rules(framework), framework), rules.rules(framework))
    return time.process_time() - begun, len(spans)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tuning", action="store_true", help="measure the tuning half alone and show each mistake in it; write nothing")
    asked = arguments.parse_args()
    shipped = packs.load()
    detector = Detector(shipped)
    tallies = {}
    for half in HALVES[:1] if asked.tuning else HALVES:
        tallies[half], mistakes = measured(detector, labelled(half))
        if asked.tuning:
            _show(mistakes)
    table = quality(tallies)
    print(table)
    if not asked.tuning:
        speed = _speed(detector, shipped)
        print("\n" + speed)
        _write(PAGE, "quality", table)
        _write(PAGE, "speed", speed)


def _parsed(country: str, text: str) -> Labelled:
    parts: list[str] = []
    places: set[Place] = set()
    at = length = 0
    for label in _LABEL.finditer(text):
        before, value = text[at : label.start()], label[2]
        places.add((length + len(before), length + len(before) + len(value), label[1]))
        parts += [before, value]
        length += len(before) + len(value)
        at = label.end()
    return Labelled(country=country, text="".join([*parts, text[at:]]), places=frozenset(places))


def _share(right: int, others: int) -> float:
    return right / (right + others) if right + others else 1.0


def _show(mistakes: Iterable[tuple[Labelled, frozenset[Place], frozenset[Place]]]) -> None:
    for one, missed, wrong in mistakes:
        print(f"{one.country}  {one.text!r}")
        for name, places in (("missed", missed), ("wrong", wrong)):
            for start, end, kind in sorted(places):
                print(f"      {name} {kind} {one.text[start:end]!r}")


def quality(tallies: dict[str, Tally]) -> str:
    head = "".join(f" {half}: labelled | precision | recall |" for half in tallies)
    lines = [f"| kind |{head}", "|---|" + "--:|--:|--:|" * len(tallies)]
    for kind in MAIN + MORE:
        cells = "".join(
            f" {tally.right[kind] + tally.missed[kind]} | {tally.precision(kind):.3f} | {tally.recall(kind):.3f} |" for tally in tallies.values()
        )
        lines.append(f"| {kind} |{cells}")
    return "\n".join(lines)


def _speed(detector: Detector, shipped: packs.Packs) -> str:
    samples = {"prose without findings": plain(), "a finding each 50 characters, all kinds": dense()} | {
        f"… {kind} alone": dense((kind,)) for kind in (*MAIN, NORWEGIAN)
    }
    detector.spans(dense(characters=10_000))
    lines = ["| 1 MiB of text | spans | CPU seconds |", "|---|--:|--:|"]
    for name, text in samples.items():
        taken, spans = min(seconds(detector, shipped, text) for _ in range(3))
        lines.append(f"| {name} | {spans:,} | {taken:.2f} |")
    return "\n".join(lines)


def _write(page: Path, name: str, table: str) -> None:
    """Put a table between its marks, `<!-- name -->` and `<!-- /name -->`."""
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, _, rest = text.partition(begin)
    _, mark, tail = rest.partition(end)
    if not mark:
        sys.exit(f"{page} has no place for the table: it should hold {begin.strip()} and {end.strip()}")
    page.write_text(f"{head}{begin}\n{table}\n\n{end}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
