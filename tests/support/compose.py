"""docker/compose.yaml as Compose reads it: variables filled in, merge keys resolved."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.service import ROOT

FILE = ROOT / "docker" / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<operator>:-|:\?)?(?P<word>[^}]*)\}")


class Missing(Exception):
    """A variable that Compose would refuse to start without; its argument is the name."""


def loaded(environ: Mapping[str, str]) -> dict[str, Any]:
    """The file's content. Raises Missing."""
    return dict(_filled(yaml.safe_load(FILE.read_text()), environ))


def _filled(node: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _filled(value, environ) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(item, environ) for item in node]
    return _VARIABLE.sub(lambda match: _value(match, environ), node) if isinstance(node, str) else node


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    value = environ.get(match["name"], "")
    if value or match["operator"] == ":-":
        return value or match["word"]
    raise Missing(match["name"])
