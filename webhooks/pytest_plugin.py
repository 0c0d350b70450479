"""The pytest fixture `hookline_receiver`. Every pytest of an environment loads this: what the fixture needs is imported when a test asks for it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from webhooks.scripted import ScriptedReceiver


@pytest.fixture
def hookline_receiver() -> "Iterator[ScriptedReceiver]":
    """A webhook receiver: a real HTTP server that verifies what arrives and fails by script; see `webhooks.scripted`."""
    from webhooks.scripted import ScriptedReceiver

    with ScriptedReceiver() as receiver:
        yield receiver
