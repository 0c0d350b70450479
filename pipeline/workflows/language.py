"""CEL itself, without its command line, for which it would bring a terminal toolkit of 150 modules into every process."""

import sys
from types import ModuleType

_CLI = "cel.cli"
_absent = _CLI not in sys.modules
if _absent:
    sys.modules[_CLI] = ModuleType(_CLI)

import cel  # noqa: E402  what stands in for its command line must be there first

if _absent:
    del sys.modules[_CLI]

__all__ = ["cel"]
