"""One request to a receiver of the test's own, on either loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from webhooks.guard import Guard
from webhooks.sender import Outcome, Request, Sender
from webhooks.signing import generate_secret, key_of

GUARD = Guard(["127.0.0.0/8", "::1/128"])
KEY = key_of(generate_secret())
Run = Callable[[Coroutine[Any, Any, None]], None]
both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
"""asyncio's, which other tests use, and the one on which the service runs."""


async def send(sender: Sender, url: str, *, timeout: float = 5.0) -> Outcome:
    return await sender.send(Request(url=url, event="evt_1", body=b"{}", keys=[KEY], headers={}, timeout=timeout, trace="t"), 0)
