"""Waiting for what happens instead of sleeping: the event log is the signal. What is told must be as the catalogue says."""

import asyncio
from collections.abc import Callable
from typing import Any

from jsonschema import Draft202012Validator

from pipeline.catalogue import BY_TYPE, RESERVED
from pipeline.store.event import Event
from pipeline.store.log import Log


def check_told(type: str, data: dict[str, Any]) -> None:
    """Raises ValidationError or KeyError where an event of Hookline's own is not as its schema, or not in the catalogue."""
    if type.startswith(RESERVED):
        Draft202012Validator(BY_TYPE[type].schema).validate(data)


async def events_until(log: Log, enough: Callable[[list[Event]], bool], *, seconds: float = 20.0) -> list[Event]:
    """All events of the log from its start, as soon as they are enough. Raises TimeoutError with what there was."""
    found: list[Event] = []
    async with asyncio.timeout(seconds) as limit:
        try:
            while not enough(found):
                found += await log.after(found[-1].cursor if found else "", limit=1000, block_ms=1000)
        except asyncio.CancelledError:
            if limit.expired():
                raise TimeoutError(f"only {[(event.type, event.data.get('jobId') or event.data.get('runId')) for event in found]}") from None
            raise
    for event in found:
        check_told(event.type, event.data)
    return found


def count(type: str, number: int) -> Callable[[list[Event]], bool]:
    return lambda events: sum(event.type == type for event in events) >= number
