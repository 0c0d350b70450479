"""The compliance processor: what a document's text breaks of GDPR, SOX, HIPAA and PCI-DSS."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from pipeline.config import Config
from pipeline.errors import InvalidInput, PermanentFailure
from pipeline.jobs.model import Job
from pipeline.jobs.registry import processor
from pipeline.paths import checked_id, findings_path, resolve
from pipeline.processors import extraction, llm, packs, questions
from pipeline.processors.detection import Detector
from pipeline.processors.packs.model import Severity
from pipeline.processors.rules import Finding, findings, gravest, lost
from pipeline.processors.scoring import Loss, remaining
from pipeline.storage import Storage

SHOWN = 50
"""Findings in a result; all of them are in the file at `findingsPath`."""
EXPLAINED = 10
"""Rules in a framework's `scoring`; all of them are in that file, too."""


class AnalyzeCompliance(BaseModel):
    """The data of an `analyze-compliance` job."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    document_id: str
    user_id: str | None = None
    document_path: str
    """Relative to the storage's root; a leading slash is dropped."""
    mime_type: str | None = None
    compliance_frameworks: tuple[str, ...] = ()
    """GDPR, SOX, HIPAA, PCI-DSS, or what further packs add; none: all."""


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class RuleLoss(_Answer):
    rule: str
    findings: int
    weight: int
    lost: float


class FrameworkScore(_Answer):
    score: int | None
    findings: int
    scoring: list[RuleLoss]
    """What the costliest rules took from 100; see `scoring.py`."""


class FoundInDocument(_Answer):
    rule: str
    framework: str
    article: str
    severity: Severity
    excerpt: str
    page: int | None
    offset: int


class ComplianceAnalysed(_Answer):
    score: int | None
    """That of the worst framework: 100 means no finding at all; None that there was no text to judge."""
    frameworks: dict[str, FrameworkScore]
    findings: list[FoundInDocument]
    findings_path: str
    warnings: list[str]


@processor("analyze-compliance", input=AnalyzeCompliance, isolated=True, timeout="5m", memory="1GiB")
class ComplianceAnalysisProcessor:
    """Finds personal data and telling words in a document's text, and judges them by the rule packs."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError for a rule pack that cannot be used."""
        self._storage = Storage(config.storage.url, base=Path(config.folder))
        self._packs = packs.load(config.compliance.packs, folder=Path(config.folder))
        self._llm = config.compliance.llm
        self._detector: Detector | None = None

    def prepare(self) -> None:
        extraction.prepare()
        self._detector = Detector(self._packs)

    def process(self, job: Job, context: Any) -> ComplianceAnalysed:
        """Raises NotFound while the document is not there yet (a retry may find it); PermanentFailure for an unknown framework and
        for a document that cannot be read."""
        wanted: AnalyzeCompliance = job.data
        frameworks = self._frameworks(wanted.compliance_frameworks)
        try:
            checked_id(wanted.document_id)
            path = resolve(wanted.document_path)
        except InvalidInput as error:
            raise PermanentFailure(error.message) from error
        text, warnings = extraction.stored_text(self._storage, path, document_id=wanted.document_id, declared=wanted.mime_type)
        context.progress(10)
        at = findings_path(wanted.document_id, job.id)
        if not text.strip():
            self._write(at, path, None, [], {})
            none = {framework: FrameworkScore(score=None, findings=0, scoring=[]) for framework in frameworks}
            return ComplianceAnalysed(score=None, frameworks=none, findings=[], findings_path=at, warnings=_with(warnings, extraction.NO_TEXT))
        if self._detector is None:
            self._detector = Detector(self._packs)
        spans = self._detector.spans(text, lambda share: context.progress(10 + int(80 * share)))
        found = {framework: findings(text, spans, self._packs.rules(framework), framework) for framework in frameworks}
        if self._llm is not None:
            read = llm.read(text, spans, frameworks, self._llm, context.log)
            for finding in read.findings:
                found[finding.framework].append(finding)
            warnings = (*warnings, *read.warnings)
        losses = {framework: lost(found[framework], [*self._packs.rules(framework), *questions.concerning([framework])]) for framework in frameworks}
        scores = {framework: remaining(losses[framework]) for framework in frameworks}
        everything = [finding for framework in frameworks for finding in found[framework]]
        lowest = min(scores.values())
        self._write(at, path, lowest, everything, losses)
        context.progress(100)
        context.log.info("document analysed", score=lowest, findings=len(everything), characters=len(text))
        return ComplianceAnalysed(
            score=lowest,
            frameworks={
                framework: FrameworkScore(
                    score=scores[framework],
                    findings=len(found[framework]),
                    scoring=[RuleLoss.model_validate(asdict(loss)) for loss in losses[framework][:EXPLAINED]],
                )
                for framework in frameworks
            },
            findings=[FoundInDocument.model_validate(asdict(finding)) for finding in gravest(everything, SHOWN)],
            findings_path=at,
            warnings=list(warnings),
        )

    def _frameworks(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """In the packs' order and writing, each once."""
        known = {name: self._packs.framework(name) for name in asked}
        unknown = [name for name, framework in known.items() if framework is None]
        if unknown:
            listed, names = ", ".join(map(repr, unknown)), ", ".join(self._packs.frameworks)
            raise PermanentFailure(f"complianceFrameworks: unknown {listed}; known are {names}")
        chosen = set(known.values()) or set(self._packs.frameworks)
        return tuple(framework for framework in self._packs.frameworks if framework in chosen)

    def _write(self, path: str, document: str, lowest: int | None, everything: list[Finding], losses: dict[str, list[Loss]]) -> None:
        scoring = {framework: [asdict(loss) for loss in broken] for framework, broken in losses.items()}
        content = {"score": lowest, "scoring": scoring, "findings": [asdict(finding) for finding in everything]}
        self._storage.write_derived(path, orjson.dumps(content, option=orjson.OPT_INDENT_2).decode(), document=document)


def _with(warnings: tuple[str, ...], warning: str) -> list[str]:
    return [*(known for known in warnings if known != warning), warning]
