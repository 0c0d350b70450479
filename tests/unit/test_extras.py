"""A shipped processor without its libraries: what an operator reads, which is what to install."""

import sys
from collections.abc import Callable

import pytest

from pipeline.config import Config
from pipeline.errors import AttemptFailed
from pipeline.processors import extraction, packs
from pipeline.processors.detection import Detector
from tests.support.processing import run

MAIL = {"userId": "u-1", "type": "email", "subject": "Hello", "message": "World"}


@pytest.mark.parametrize(
    ("library", "extra", "use"),
    [
        ("kreuzberg", "documents", extraction.prepare),
        ("presidio_analyzer", "compliance", lambda: Detector(packs.load())),
        (
            "apprise",
            "notifications",
            lambda: run("pipeline.processors.notifications:NotificationProcessor", Config(notifications={"email": "json://127.0.0.1/"}), MAIL),
        ),
    ],
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, library: str, extra: str, use: Callable[[], object]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(AttemptFailed, match=rf"^{library} is not installed .*: pip install 'hookline\[{extra}\]'$"):
        use()
