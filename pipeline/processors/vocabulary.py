"""The words of vocabulary.yaml, by kind: beside a match they tell what it is, or that it is something else."""

from pathlib import Path
from typing import Any

from pipeline.yamlsource import parse

_FILE = Path(__file__).with_suffix(".yaml")
_SAID: dict[str, Any] = parse(_FILE.read_text(encoding="utf-8"), _FILE.name).data


def _words(of: dict[str, list[str]]) -> tuple[str, ...]:
    return tuple(word for words in of.values() for word in words)


def _contrary(*groups: str) -> tuple[str, ...]:
    return tuple(word for group in groups for word in _words(_SAID["contrary"][group]))


SUPPORTING: dict[str, tuple[str, ...]] = {kind: _words(words) for kind, words in _SAID["supporting"].items()}
CONTRARY: dict[str, tuple[str, ...]] = {
    "PHONE_NUMBER": _contrary("RECORD", "ACCOUNT"),
    "CREDIT_CARD": _contrary("RECORD"),
    "US_SSN": _contrary("RECORD"),
    "IP_ADDRESS": _contrary("VERSION"),
    "EMAIL_ADDRESS": _contrary("MESSAGE"),
}
