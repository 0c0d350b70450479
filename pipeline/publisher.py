"""Publishes what the webhooks tell about themselves: into the log, and to whom config.yaml names."""

from collections.abc import Sequence
from typing import Any

from pipeline.config.webhooks import Notify
from pipeline.jobs.calls import now_ms
from pipeline.jobs.queues import Queues
from pipeline.notices import notification
from pipeline.store.event import Event, event_id
from pipeline.store.idempotency import JOB, Answer, Claim
from pipeline.store.log import Log

_ADDED = Answer(status=201, headers={}, body=JOB)


class Publisher:
    def __init__(self, log: Log, queues: Queues, notify: Notify | None, *, prefix: str) -> None:
        """`prefix`: of our own keys."""
        self._prefix = prefix
        self._log = log
        self._queues = queues
        self._notify = notify

    async def __call__(self, type: str, data: dict[str, Any], *, identity: Sequence[object]) -> None:
        """The same event once more has the same id, and finds the notification that is there."""
        event = Event(id=event_id(type, *identity), type=type, timestamp=now_ms(), data=data)
        await self._log.append([event])
        if self._notify and (told := notification(self._notify, type, data)):
            claim = Claim(key=f"{self._prefix}:once:notice:{event.id}", fingerprint="")
            await self._queues.add("notifications", "send-notification", told, claim=claim, answer=_ADDED)
