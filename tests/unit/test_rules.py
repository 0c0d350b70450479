"""The rules of compliance, purely: what is a finding, what it costs, and what an excerpt shows."""

from typing import Any

from pipeline.processors.packs.model import Rule
from pipeline.processors.rules import Finding, Span, excerpt, findings, gravest, lost, merged, score
from pipeline.processors.scoring import Loss, remaining


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
    assert places("x" * 10, spans, kinds=["A", "B"], min_confidence=0.4) == [0, 5, 8]
    assert places("x" * 10, spans, kinds=["A"], min_count=2) == []


def test_once_reports_the_first_of_enough() -> None:
    spans = [span(n * 5, n * 5 + 1) for n in range(4)]
    assert places("x" * 20, spans, kinds=["A"], min_count=4, once=True) == [0]
    assert places("x" * 20, spans, kinds=["A"], min_count=5, once=True) == []


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


def test_a_score_says_how_it_came_about() -> None:
    rules = [rule(id="low", severity="low", kinds=["A"]), rule(id="high", severity="high", kinds=["A"])]
    found = [finding("low"), finding("high"), finding("low"), finding("low")]
    told = lost(found, rules)
    assert told == [Loss(rule="high", findings=1, weight=15, lost=15.0), Loss(rule="low", findings=3, weight=3, lost=5.38)]
    assert score(found, rules) == 79 == remaining(told)
    assert lost([], rules) == []
    # 0.1 + 0.2 is more than 0.3 to a computer, but takes no further point.
    assert remaining([Loss(rule=name, findings=1, weight=1, lost=part) for name, part in (("a", 0.1), ("b", 0.2), ("c", 0.7))]) == 99


def test_the_gravest_come_first_and_each_rule_is_heard() -> None:
    found = [finding("a", "low", 0), finding("b", "high", 5), finding("b", "high", 6), finding("c", "high", 90), finding("d", "critical", 99)]
    assert [(f.rule, f.offset) for f in gravest(found, 4)] == [("d", 99), ("b", 5), ("c", 90), ("b", 6)]


def test_excerpts_hide_what_was_found_and_what_may_be_a_name() -> None:
    text = "please ask Zaphod Beeblebrox or call 555-0100 about the invoice of jane@example.com before Monday"
    start = text.index("jane")
    assert excerpt(text, [span(start, start + 16, "EMAIL_ADDRESS")], start, start + 16) == "or call ▪ about the invoice of [EMAIL_ADDRESS] before ▪"


def test_excerpts_hide_names_in_scripts_without_capitals() -> None:
    text = "the patients 王小明 and محمد علي and ǅemal wrote to a@b.example"
    assert excerpt(text, [span(49, 60, "EMAIL_ADDRESS", 1.0)], 49, 60) == "▪ and ▪ ▪ and ▪ wrote to [EMAIL_ADDRESS]"


def test_excerpts_keep_the_term_of_a_rule() -> None:
    text = "The entry was backdated by Smith."
    assert excerpt(text, [], 14, 23) == "▪ entry was backdated by ▪."


def test_excerpts_are_bounded() -> None:
    assert len(excerpt("x" * 5000, [], 1000, 4000)) == 200
