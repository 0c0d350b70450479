"""Detection measured over the labelled texts; the held-out half's figures are lower bounds that a change may not break."""

import pytest

from benchmarks.findings import HALVES, MAIN, MIB, MORE, NORWEGIAN, PAGE, Tally, dense, labelled, measured, plain, quality, seconds
from pipeline.processors import packs
from pipeline.processors.detection import Detector

PRECISION, RECALL = 0.97, 0.95


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(packs.load())


@pytest.fixture(scope="module")
def tallies(detector: Detector) -> dict[str, Tally]:
    return {half: measured(detector, labelled(half))[0] for half in HALVES}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("kind", MAIN)
def test_kinds_are_found_and_nothing_else(tallies: dict[str, Tally], half: str, kind: str) -> None:
    tally = tallies[half]
    assert tally.right[kind] + tally.missed[kind] >= 35, "too few labels to tell"
    assert tally.precision(kind) >= PRECISION, f"{tally.wrong[kind]} wrong, {tally.right[kind]} right"
    assert tally.recall(kind) >= RECALL, f"{tally.missed[kind]} missed, {tally.right[kind]} right"


@pytest.mark.parametrize("kind", MORE)
def test_further_kinds_are_all_found(tallies: dict[str, Tally], kind: str) -> None:
    """They are too few for shares: each one counts."""
    for half in HALVES:
        assert (tallies[half].missed[kind], tallies[half].wrong[kind]) == (0, 0), half


def test_the_labelled_texts_are_what_they_should_be() -> None:
    halves = {half: labelled(half) for half in HALVES}
    texts = [one.text for half in HALVES for one in halves[half]]
    assert len(set(texts)) == len(texts) >= 300
    assert len({one.country for half in HALVES for one in halves[half]}) >= 10
    assert abs(len(halves["tuning"]) - len(halves["held-out"])) <= 0.02 * len(texts)
    assert sum(not one.places for half in HALVES for one in halves[half]) >= 200, "look-alikes"
    for half in HALVES:
        for one in halves[half]:
            assert "[[" not in one.text.replace("[[2001:db8::42]", ""), one.text
            assert {kind for *_, kind in one.places} <= {*MAIN, *MORE}


@pytest.mark.parametrize("kinds", [None, MAIN, ("PHONE_NUMBER",), (NORWEGIAN,)], ids=["plain", "dense", "telephones", "telephones of any country"])
def test_a_mebibyte_takes_less_than_five_seconds(detector: Detector, kinds: tuple[str, ...] | None) -> None:
    """An eighth of it, in CPU time. Work on the sibling of a core makes that longer, too: plain text, which takes a second a MiB, shows how much."""
    rules = packs.load()
    text = dense(kinds, MIB // 8) if kinds else plain(MIB // 8)
    allowed = 5 / 8
    if kinds:
        allowed *= max(1, min(seconds(detector, rules, plain(MIB // 8))[0] for _ in range(2)) * 8)
    tries = [seconds(detector, rules, text)[0] for _ in range(2)]
    assert min(tries) < allowed, f"{min(tries):.2f} CPU seconds, {allowed:.2f} allowed"


def test_the_documentation_says_what_is_measured(tallies: dict[str, Tally]) -> None:
    assert f"<!-- quality -->\n\n{quality(tallies)}\n\n<!-- /quality -->" in PAGE.read_text(encoding="utf-8"), "run make bench-findings"
