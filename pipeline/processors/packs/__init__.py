"""Rule packs: what a framework asks of documents, as YAML that is checked when it is read."""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError, Fault
from pipeline.processors.packs.model import Pack, Rule
from pipeline.validation import check
from pipeline.yamlsource import Source, parse, suggestion

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
    ids: dict[str, str] = {}
    frameworks: dict[str, str] = {}
    packs: list[Pack] = []
    sources = []
    for name, text in _read(further, folder, config or Source(file="config.yaml", data=None)):
        source = parse(text, name)
        pack, faults = check(Pack, source.data, source)
        if faults or pack is None:
            raise _unusable(name, tuple(faults))
        packs.append(pack)
        sources.append(source)
    # Only now is every kind known: packs may use each other's patterns.
    best = dict.fromkeys(RECOGNISERS, 1.0)
    for pattern in (pattern for pack in packs for pattern in pack.patterns):
        best[pattern.kind] = max(best.get(pattern.kind, 0), pattern.best)
    for pack, source in zip(packs, sources, strict=True):
        if faults := _useless_kinds(pack, source, best) + _repeated(pack, source, ids) + _rewritten(pack, source, frameworks):
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


def _useless_kinds(pack: Pack, source: Source, best: Mapping[str, float]) -> list[Fault]:
    """Kinds that nothing finds, or nothing with the confidence that the rule asks for; `best` is the highest of each kind."""
    faults = []
    for index, rule in enumerate(pack.rules):
        for path, kind in rule.named:
            if kind not in best:
                faults.append(source.fault(("rules", index, *path), f"unknown kind {kind!r}{suggestion(kind, best)}; or declare it under patterns"))
            elif best[kind] < rule.min_confidence:
                message = (
                    f"{kind} is found with a confidence of at most {best[kind]:g}, but the rule asks for {rule.min_confidence:g} (min_confidence)"
                )
                faults.append(source.fault(("rules", index, *path), message))
    return faults


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
