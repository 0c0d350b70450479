"""The libraries of the shipped processors, each an extra of its own: what to install when one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import AttemptFailed


@contextmanager
def needed(extra: str) -> Iterator[None]:
    """Imports within it raise AttemptFailed with the command that installs the extra."""
    try:
        yield
    except ImportError as error:
        raise AttemptFailed(f"{error.name} is not installed where this worker runs; install it with: pip install 'hookline[{extra}]'") from error
