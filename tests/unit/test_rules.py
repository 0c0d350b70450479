"""The rules of compliance, purely: what is a finding, what it costs, what an excerpt shows, and which packs are refused."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.processors import packs
from pipeline.processors.packs import Rule
from pipeline.processors.rules import Finding, Span, excerpt, findings, gravest, merged, score
from tests.support.processing import put, run

PATH = "pipeline.processors.compliance:ComplianceAnalysisProcessor"

# --- rules, purely ---


def rule(**said: Any) -> Rule:
    return Rule.model_validate({"id": "r", "article": "Art. 1", "title": "T", "severity": "high"} | said)


def span(start: int, end: int, kind: str = "A", confidence: float = 0.8) -> Span:
    return Span(start=start, end=end, kind=kind, confidence=confidence)


def places(text: str, spans: list[Span], **said: Any) -> list[int]:
    return [finding.offset for finding in findings(text, spans, [rule(**said)], "F")]


def test_overlapping_spans_are_merged() -> None:
    strong, long, short, apart = span(10, 20, "A", 0.9), span(5, 15, "B", 0.5), span(18, 22, "C", 0.5), span(20, 22, "D", 0.4)
    assert merged([short, long, strong, apart, strong]) == [strong, apart]
    assert merged([span(0, 5, "B", 0.5), span(0, 9, "A", 0.5)]) == [span(0, 9, "A", 0.5)]


def test_kinds_need_confidence_and_number() -> None:
    spans = [span(0, 1, "A", 0.4), span(5, 6, "A", 0.6), span(8, 9, "B", 0.9)]
    assert places("x" * 10, spans, kinds=["A"]) == [5]
    assert places("x" * 10, spans, kinds=["A", "B"], min_confidence=0.3) == [0, 5, 8]
    assert places("x" * 10, spans, kinds=["A"], min_count=2) == []


def test_all_of_needs_one_of_each_group_near() -> None:
    spans = [span(0, 1, "A"), span(50, 51, "B"), span(300, 301, "A"), span(900, 901, "A"), span(910, 911, "B"), span(915, 916, "C")]
    assert places("x" * 1000, spans, all_of=[["A"], ["B"]], within=100) == [0, 900]
    assert places("x" * 1000, spans, all_of=[["A"], ["B"], ["C"]], within=100) == [900]
    assert places("x" * 1000, [span(0, 1, "A"), span(3, 4, "A"), span(9, 10, "B")], all_of=[["A"], ["B"]], within=100) == [0]


def test_terms_are_whole_words_in_any_case_and_over_line_breaks() -> None:
    text = "Backdated, not unbackdatedly; override\n  of Controls"
    assert places(text, [], terms=["backdated", "override of controls"]) == [0, 30]


def test_missing_is_a_finding_only_where_it_is_due() -> None:
    said: dict[str, Any] = {"missing": {"any_of": ["privacy notice"], "when": {"terms": ["intake form"], "kinds": ["A"]}}}
    assert places("An intake form.", [], **said) == [3]
    assert places("An intake form with a Privacy\nNotice.", [], **said) == []
    assert places("Something else.", [], **said) == []
    assert places("Something else.", [span(10, 14)], **said) == [10]


def finding(name: str, severity: Any = "low", offset: int = 0) -> Finding:
    return Finding(
        rule=name, framework="F", article="A", severity=severity, title="", advice="", excerpt="", page=None, offset=offset
    )  # fmt: skip


def test_scores() -> None:
    rules = [
        rule(id="low", severity="low", kinds=["A"]),
        rule(id="critical", severity="critical", kinds=["A"]),
        rule(id="own", severity="low", weight=50, kinds=["A"]),
    ]
    assert score([], rules) == 100
    assert score([finding("low")], rules) == 97
    assert score([finding("critical")], rules) == 70
    assert score([finding("critical")] * 2, rules) == 55
    assert score([finding("own")], rules) == 50
    assert score([finding("low")] * 10_000, rules) == 88
    assert score([finding("critical")] * 100, rules) == 0


def test_the_gravest_come_first_and_each_rule_is_heard() -> None:
    found = [finding("a", "low", 0), finding("b", "high", 5), finding("b", "high", 6), finding("c", "high", 90), finding("d", "critical", 99)]
    assert [(f.rule, f.offset) for f in gravest(found, 4)] == [("d", 99), ("b", 5), ("c", 90), ("b", 6)]


def test_excerpts_hide_what_was_found_and_what_may_be_a_name() -> None:
    text = "please ask Zaphod Beeblebrox or call 555-0100 about the invoice of jane@example.com before Monday"
    start = text.index("jane")
    assert excerpt(text, [span(start, start + 16, "EMAIL_ADDRESS")], start, start + 16) == "or call ▪ about the invoice of [EMAIL_ADDRESS] before ▪"


def test_excerpts_keep_the_term_of_a_rule() -> None:
    text = "The entry was backdated by Smith."
    assert excerpt(text, [], 14, 23) == "▪ entry was backdated by ▪."


def test_excerpts_are_bounded() -> None:
    assert len(excerpt("x" * 5000, [], 1000, 4000)) == 200


# --- packs ---


def write(folder: Path, text: str) -> tuple[str, ...]:
    (folder / "own.yaml").write_text(text)
    return ("own.yaml",)


OWN = """
framework: HOUSE
patterns:
  - {kind: PROJECT_CODE, regex: 'PRJ-\\d{4}', confidence: 0.9}
rules:
  - id: house-project-codes
    article: 3.1
    title: Project code
    kinds: [PROJECT_CODE]
    severity: high
"""


def test_a_pack_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path, OWN.replace("3.1", '"3.1"'))
    config = Config.model_validate({"storage": {"url": str(tmp_path)}, "folder": str(tmp_path), "compliance": {"packs": ["own.yaml"]}})
    put(config, "d", "a.txt", b"this is about PRJ-1234, which is secret")
    result = run(PATH, config, {"documentId": "d", "documentPath": "documents/d/a.txt", "complianceFrameworks": ["house"]})
    assert result.score == 85
    assert result.findings[0].excerpt == "this is about [PROJECT_CODE], which is secret"


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (("severity: high", "severity: grave"), 10, "should be 'low', 'medium', 'high' or 'critical'"),
        (("severity: high", "severety: high"), 10, "unknown key 'severety'; did you mean 'severity'?"),
        (("[PROJECT_CODE]", "[PROJECT_CODES]"), 9, "unknown kind 'PROJECT_CODES'; did you mean 'PROJECT_CODE'?"),
        (("'PRJ-\\d{4}'", "'PRJ-('"), 4, "is not a regular expression"),
        (("'PRJ-\\d{4}'", "'x*'"), 4, "should not match nothing"),
        (("    kinds: [PROJECT_CODE]\n", ""), 6, "should say one of kinds, all_of, terms, missing; it says none"),
        (("house-project-codes", "gdpr-contact-data"), 6, "the id 'gdpr-contact-data' is already used in gdpr.yaml"),
    ],
)
def test_a_pack_with_a_mistake_is_refused_with_its_line(tmp_path: Path, change: tuple[str, str], line: int, says: str) -> None:
    text = OWN.replace("3.1", '"3.1"')
    assert change[0] in text
    with pytest.raises(ConfigError) as caught:
        packs.load(write(tmp_path, text.replace(*change)), folder=tmp_path)
    assert caught.value.file == "own.yaml"
    assert says in str(caught.value)
    assert line in [fault.line for fault in caught.value.faults], str(caught.value)


def test_a_pack_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"compliance\.packs: cannot read none\.yaml: No such file"):
        packs.load(("none.yaml",), folder=tmp_path)


def test_every_shipped_rule_says_what_to_do() -> None:
    shipped = packs.load()
    for framework in shipped.frameworks:
        assert shipped.rules(framework)
        for known in shipped.rules(framework):
            assert known.advice, known.id
