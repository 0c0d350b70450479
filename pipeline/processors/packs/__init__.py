"""Rule packs: what a framework asks of documents, as YAML that is checked when it is read."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.errors import ConfigError, Fault
from pipeline.validation import check
from pipeline.yamlsource import Path as YamlPath
from pipeline.yamlsource import Source, parse, suggestion

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")
WEIGHTS: dict[Severity, int] = {"low": 3, "medium": 8, "high": 15, "critical": 30}
"""What the first finding of a rule costs of 100, unless the rule says otherwise."""
SHIPPED = ("gdpr", "sox", "hipaa", "pci-dss")
RECOGNISERS = {
    "CREDIT_CARD": "CreditCardRecognizer",
    "CRYPTO": "CryptoRecognizer",
    "EMAIL_ADDRESS": "EmailRecognizer",
    "IBAN_CODE": "IbanRecognizer",
    "IP_ADDRESS": "IpRecognizer",
    "MAC_ADDRESS": "MacAddressRecognizer",
    "PHONE_NUMBER": "PhoneRecognizer",
    "MEDICAL_LICENSE": "MedicalLicenseRecognizer",
    "US_SSN": "UsSsnRecognizer",
    "US_ITIN": "UsItinRecognizer",
    "US_MBI": "UsMbiRecognizer",
    "US_NPI": "UsNpiRecognizer",
    "US_PASSPORT": "UsPassportRecognizer",
    "US_DRIVER_LICENSE": "UsLicenseRecognizer",
    "US_BANK_NUMBER": "UsBankRecognizer",
    "UK_NHS": "NhsRecognizer",
    "UK_NINO": "UkNinoRecognizer",
    "UK_PASSPORT": "UkPassportRecognizer",
    "DE_TAX_ID": "DeTaxIdRecognizer",
    "ES_NIF": "EsNifRecognizer",
    "ES_NIE": "EsNieRecognizer",
    "IT_FISCAL_CODE": "ItFiscalCodeRecognizer",
    "IT_VAT_CODE": "ItVatCodeRecognizer",
    "PL_PESEL": "PlPeselRecognizer",
    "FI_PERSONAL_IDENTITY_CODE": "FiPersonalIdentityCodeRecognizer",
    "SE_PERSONNUMMER": "SePersonnummerRecognizer",
    "IN_AADHAAR": "InAadhaarRecognizer",
    "IN_PAN": "InPanRecognizer",
    "AU_TFN": "AuTfnRecognizer",
    "AU_MEDICARE": "AuMedicareRecognizer",
    "CA_SIN": "CaSinRecognizer",
    "SG_NRIC_FIN": "SgFinRecognizer",
}
"""Kind → the class of Presidio that finds it; a pack's patterns add further kinds."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pattern(_Part):
    """A kind of data that a regular expression finds; the whole match counts, labels included."""

    kind: str = Field(pattern=r"^[A-Z][A-Z0-9_]{1,63}$")
    regex: str
    """In the syntax of Python's re; upper and lower case do not matter, outside `(?-i:…)`."""
    confidence: float = Field(0.6, gt=0, le=1)
    context: tuple[str, ...] = ()
    """Words before a match that make it more credible."""

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            compiled = re.compile(value, re.IGNORECASE)
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        if compiled.match(""):
            raise ValueError("should not match nothing")
        return value


class Trigger(_Part):
    kinds: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.kinds and not self.terms:
            raise ValueError("should name kinds or terms")
        return self


class Missing(_Part):
    any_of: tuple[str, ...] = Field(min_length=1)
    """Statements, one of which a document must have …"""
    when: Trigger
    """… if it has any of these."""


class Rule(_Part):
    """What is looked for: exactly one of kinds, all_of, terms, missing."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    article: str = Field(min_length=1, max_length=80)
    title: str = Field(max_length=200)
    severity: Severity
    weight: int | None = Field(None, ge=1, le=100)
    advice: str = Field("", max_length=500)
    kinds: tuple[str, ...] = ()
    """Each occurrence of any of them is a finding."""
    all_of: tuple[tuple[str, ...], ...] = ()
    """Groups of kinds: one of each within `within` characters of each other are a finding."""
    within: int = Field(500, ge=1, le=100_000)
    terms: tuple[str, ...] = ()
    """Words or phrases, each occurrence of which is a finding; case and line breaks do not matter."""
    missing: Missing | None = None
    min_confidence: float = Field(0.5, ge=0, le=1)
    min_count: int = Field(1, ge=1)
    """Fewer occurrences are no finding."""
    once: bool = False
    """However many occurrences there are, the first alone is a finding: for what a document is, not for each thing in it."""

    @property
    def cost(self) -> int:
        return self.weight or WEIGHTS[self.severity]

    @property
    def named(self) -> tuple[tuple[YamlPath, str], ...]:
        """Every kind that the rule names, with where in it."""
        groups = [(("all_of", index, place), kind) for index, group in enumerate(self.all_of) for place, kind in enumerate(group)]
        when = self.missing.when.kinds if self.missing else ()
        return (
            *((("kinds", place), kind) for place, kind in enumerate(self.kinds)),
            *groups,
            *((("missing", "when", "kinds", place), kind) for place, kind in enumerate(when)),
        )

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("kinds", "all_of", "terms", "missing") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"should say one of kinds, all_of, terms, missing; it says {' and '.join(given) or 'none'}")
        if self.all_of and (len(self.all_of) < 2 or not all(self.all_of)):
            raise ValueError("all_of should have at least two groups, none of them empty; for one, write kinds")
        return self


class Pack(_Part):
    framework: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")
    title: str = Field("", max_length=200)
    patterns: tuple[Pattern, ...] = ()
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.rules and not self.patterns:
            raise ValueError("should have rules, patterns or both")
        return self


class Packs:
    """All packs in force. Several of one framework add up."""

    def __init__(self, packs: tuple[Pack, ...]) -> None:
        self.patterns = tuple(pattern for pack in packs for pattern in pack.patterns)
        self._rules: dict[str, tuple[Rule, ...]] = {}
        for pack in packs:
            self._rules[pack.framework] = (*self._rules.get(pack.framework, ()), *pack.rules)

    @property
    def frameworks(self) -> tuple[str, ...]:
        return tuple(self._rules)

    @property
    def kinds(self) -> frozenset[str]:
        """What is looked for: the kinds that any rule names, and those that patterns find."""
        named = {kind for rules in self._rules.values() for rule in rules for _, kind in rule.named}
        return frozenset(named | {pattern.kind for pattern in self.patterns})

    def framework(self, name: str) -> str | None:
        """The framework as it is written here: `pci dss` → `PCI-DSS`; None if there is no such one."""
        return next((known for known in self._rules if _essence(known) == _essence(name)), None)

    def rules(self, framework: str) -> tuple[Rule, ...]:
        return self._rules[framework]


def load(further: tuple[str, ...] = (), *, folder: Path = Path(), config: Source | None = None) -> Packs:
    """The shipped packs and those at `further` paths, which start at `folder`; `config` is where those paths stand.

    Raises ConfigError with every fault of the first file that has any.
    """
    known: set[str] = set(RECOGNISERS)
    ids: dict[str, str] = {}
    frameworks: dict[str, str] = {}
    packs: list[Pack] = []
    sources = []
    for name, text in _read(further, folder, config or Source(file="config.yaml", data=None)):
        source = parse(text, name)
        pack, faults = check(Pack, source.data, source)
        if faults or pack is None:
            raise _unusable(name, tuple(faults))
        known |= {pattern.kind for pattern in pack.patterns}
        packs.append(pack)
        sources.append(source)
    # Only now is every kind known: packs may use each other's patterns.
    for pack, source in zip(packs, sources, strict=True):
        if faults := _unknown_kinds(pack, source, known) + _repeated(pack, source, ids) + _rewritten(pack, source, frameworks):
            raise _unusable(source.file, tuple(faults))
    return Packs(tuple(packs))


def _read(further: tuple[str, ...], folder: Path, config: Source) -> list[tuple[str, str]]:
    """Name and text of each pack, the shipped ones first. Raises ConfigError that names each one that cannot be read."""
    shipped = [(f"{name}.yaml", (Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8")) for name in SHIPPED]
    own: list[tuple[str, str]] = []
    faults: list[Fault] = []
    for index, path in enumerate(further):
        try:
            own.append((path, (folder / path).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            beside = (folder / path).parent
            there = sorted(str(Path(path).parent / file.name) for file in beside.glob("*.y*ml")) if beside.is_dir() else []
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            # A pack from elsewhere than the file (the environment, a test) has no place in it; then the message must do.
            faults.append(config.fault(("compliance", "packs", index), f"cannot read {path}: {reason}{suggestion(path, there)}"))
    if faults:
        raise ConfigError("some rule packs cannot be read", file=config.file, faults=tuple(faults))
    return [*shipped, *own]


def _unknown_kinds(pack: Pack, source: Source, known: set[str]) -> list[Fault]:
    return [
        source.fault(("rules", index, *path), f"unknown kind {kind!r}{suggestion(kind, known)}; or declare it under patterns")
        for index, rule in enumerate(pack.rules)
        for path, kind in rule.named
        if kind not in known
    ]


def _repeated(pack: Pack, source: Source, ids: dict[str, str]) -> list[Fault]:
    faults = []
    for index, rule in enumerate(pack.rules):
        if rule.id in ids:
            faults.append(source.fault(("rules", index, "id"), f"the id {rule.id!r} is already used in {ids[rule.id]}"))
        ids[rule.id] = source.file
    return faults


def _rewritten(pack: Pack, source: Source, frameworks: dict[str, str]) -> list[Fault]:
    """A framework of two writings would be two, of which jobs could ask for one alone."""
    written = frameworks.setdefault(_essence(pack.framework), pack.framework)
    return [] if written == pack.framework else [source.fault(("framework",), f"is written {written!r} in another pack; write it so here, too")]


def _unusable(name: str, faults: tuple[Fault, ...]) -> ConfigError:
    return ConfigError(f"the rule pack {name} cannot be used", file=name, faults=faults)


def _essence(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
