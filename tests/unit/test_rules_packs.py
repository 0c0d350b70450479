"""Rule packs: one's own beside the shipped ones, what is refused in them, and where `hookline validate` says it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.processors import packs
from pipeline.processors.rules import Span, findings
from tests.support.processing import put, run

PATH = "pipeline.processors.compliance:ComplianceAnalysisProcessor"


def write(folder: Path, text: str) -> tuple[str, ...]:
    (folder / "own.yaml").write_text(text)
    return ("own.yaml",)


OWN = """
framework: HOUSE
patterns:
  - {kind: PROJECT_CODE, regex: 'PRJ-\\d{4}', confidence: 0.9}
rules:
  - id: house-project-codes
    article: "3.1"
    title: Project code
    kinds: [PROJECT_CODE]
    severity: high
"""


def test_a_pack_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path, OWN)
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
        (("'PRJ-\\d{4}'", "'x*'"), 4, "should not match an empty text"),
        (("'PRJ-\\d{4}'", '"PRJ-\\d{4}"'), 4, "in single quotes, a backslash is only a backslash"),
        (("HOUSE", "Häuser"), 2, "should be at most 64 letters (A to Z), digits, spaces and . _ -, such as HOUSE"),
        (("kind: PROJECT_CODE", "kind: project-code"), 4, "should be 2 to 64 capital letters, digits and _, such as PROJECT_CODE"),
        (("house-project-codes", "House_Codes"), 6, "should be at most 64 small letters, digits and hyphens, such as house-codes"),
        (('"3.1"', "3.1"), 7, "should be text; write it in quotes"),
        (("severity: high", "severity: hihg"), 10, "did you mean 'high'?"),
        (("kinds: [PROJECT_CODE]", "kinds: PROJECT_CODE"), 9, "should be a list"),
        # What would never be found, or everywhere.
        (("0.9}", "0.3}"), 4, "less than 0.35 is dropped, unless words of context support it"),
        (("0.9}", "0.4}"), 9, "PROJECT_CODE is found with a confidence of at most 0.4, but the rule asks for 0.5 (min_confidence)"),
        (("0.9}", "0.9, context: ['']}"), 4, "should be a word or phrase, but is empty"),
        (("kinds: [PROJECT_CODE]", "terms: [' ']"), 9, "should be a word or phrase, but is empty"),
        (("kinds: [PROJECT_CODE]", "missing: {any_of: [''], when: {terms: [form]}}"), 9, "should be a word or phrase, but is empty"),
        # What would have no effect.
        (("severity: high", "severity: high\n    min_confidence: 0.2"), 11, "should be greater than or equal to 0.35"),
        (("severity: high", "severity: high\n    within: 9"), 6, "within has no effect beside kinds"),
        (("kinds: [PROJECT_CODE]", "terms: [form]\n    min_confidence: 0.6"), 6, "min_confidence has no effect beside terms"),
        (("kinds: [PROJECT_CODE]", "missing: {any_of: [a], when: {terms: [b]}}\n    once: true"), 6, "once has no effect beside missing"),
        (("    kinds: [PROJECT_CODE]\n", ""), 6, "should say one of kinds, all_of, terms, missing; it says none"),
        (("framework: HOUSE", "framework: gdpr"), 2, "is written 'GDPR' in another pack"),
        (("house-project-codes", "gdpr-contact-data"), 6, "the id 'gdpr-contact-data' is already used in gdpr.yaml"),
    ],
)
def test_a_pack_with_a_mistake_is_refused_with_its_line(tmp_path: Path, change: tuple[str, str], line: int, says: str) -> None:
    text = OWN
    assert change[0] in text
    with pytest.raises(ConfigError) as caught:
        packs.load(write(tmp_path, text.replace(*change)), folder=tmp_path)
    assert caught.value.file == "own.yaml"
    assert says in str(caught.value)
    assert line in [fault.line for fault in caught.value.faults], str(caught.value)


def test_what_words_of_context_can_support_is_of_use(tmp_path: Path) -> None:
    packs.load(write(tmp_path, OWN.replace("0.9}", "0.2, context: [project]}")), folder=tmp_path)


def test_packs_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path, OWN)
    with pytest.raises(ConfigError) as caught:
        packs.load(("owns.yaml", "own.yaml", "far/away.yaml"), folder=tmp_path)
    assert [str(fault) for fault in caught.value.faults] == [
        "compliance.packs[0]: cannot read owns.yaml: No such file or directory; did you mean 'own.yaml'?",
        "compliance.packs[2]: cannot read far/away.yaml: No such file or directory",
    ]


def test_every_shipped_rule_says_what_to_do() -> None:
    shipped = packs.load()
    for framework in shipped.frameworks:
        assert shipped.rules(framework)
        for known in shipped.rules(framework):
            assert known.advice, known.id


def test_a_list_of_many_persons_is_one_more_finding() -> None:
    rules = packs.load().rules("GDPR")
    spans = [Span(start=10 * n, end=10 * n + 9, kind="EMAIL_ADDRESS", confidence=1.0) for n in range(50)]
    found = [finding.rule for finding in findings("x" * 500, spans, rules, "GDPR")]
    assert found.count("gdpr-contact-data") == 50
    assert found.count("gdpr-many-persons") == 1
    assert "gdpr-many-persons" not in {finding.rule for finding in findings("x" * 500, spans[1:], rules, "GDPR")}


@pytest.mark.parametrize(("statement", "broken"), [("It is irrevocable.", True), ("You may revoke this\nauthorization in writing.", False)])
def test_an_authorization_without_the_right_to_revoke(statement: str, broken: bool) -> None:
    found = findings(f"Authorization for release of information. {statement}", [], packs.load().rules("HIPAA"), "HIPAA")
    assert [finding.rule for finding in found] == ["hipaa-authorization-without-revocation"] * broken


# --- hookline validate ---


def validate(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", "validate", "config.yaml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", "COLUMNS": "300"})


def test_validate_counts_the_rules_of_packs(tmp_path: Path) -> None:
    write(tmp_path, OWN)
    (tmp_path / "config.yaml").write_text("compliance: {packs: [own.yaml]}\n")
    done = validate(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "HOUSE 1" in done.stdout


@pytest.mark.parametrize(
    ("config", "pack", "says"),
    [
        (
            "own.yaml",
            OWN.replace("[PROJECT_CODE]", "[PROJECT_CODES]"),
            "own.yaml:9:13: rules[0].kinds[0]: unknown kind 'PROJECT_CODES'; did you mean",
        ),
        ("onw.yaml", OWN, "config.yaml:2:11: compliance.packs[0]: cannot read onw.yaml: No such file or directory; did you mean 'own.yaml'?"),
        ("own.yaml", "framework: [\n", "own.yaml:2:1: "),
    ],
)
def test_validate_shows_a_packs_mistakes_where_they_are(tmp_path: Path, config: str, pack: str, says: str) -> None:
    write(tmp_path, pack)
    (tmp_path / "config.yaml").write_text(f"compliance:\n  packs: [{config}]\n")
    done = validate(tmp_path)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
