"""`queues`: who does which jobs, how many at once, how often they are tried and how many are kept."""

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from pipeline.config.section import Section, written
from pipeline.units import Duration

PROCESSOR_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*")
EXTERNAL = "external"
"""The processor of a job that a foreign BullMQ worker does."""


class Backoff(Section):
    type: Literal["fixed", "exponential"] = "exponential"
    delay: Duration = written("1s")


class Keep(Section):
    """How many finished jobs BullMQ retains."""

    completed: int = Field(100, ge=-1)
    """The last so many; -1: all, for ever. The same for `failed`."""
    failed: int = Field(50, ge=-1)


class Limiter(Section):
    """At most `max` jobs in `duration`, counted over all workers of the queue."""

    max: int = Field(ge=1)
    duration: Duration

    def options(self) -> dict[str, int]:
        """As BullMQ's scripts want it: ms."""
        return {"max": self.max, "duration": self.duration}


class Queue(Section):
    processors: dict[str, str] = Field({})
    """Job name → dotted path (`package.module:Name`), `http(s)://…` (the job is pushed there), or `external` (a foreign BullMQ worker)."""
    concurrency: int = Field(10, ge=1, le=1000)
    attempts: int = Field(3, ge=1, le=100)
    backoff: Backoff = Backoff()
    keep: Keep = Keep()
    limiter: Limiter | None = None

    @field_validator("processors")
    @classmethod
    def _paths(cls, value: dict[str, str]) -> dict[str, str]:
        for name, path in value.items():
            web = urlsplit(path) if path.startswith(("http://", "https://")) else None
            if not (path == EXTERNAL or (web and web.hostname) or PROCESSOR_PATH.fullmatch(path)):
                raise ValueError(f"{name}: {path!r} is no processor; write package.module:Name, an http(s):// URL, or {EXTERNAL}")
        foreign = [name for name, path in value.items() if path == EXTERNAL]
        own = [name for name, path in value.items() if path != EXTERNAL]
        if foreign and own:
            raise ValueError(
                f"{foreign[0]!r} is {EXTERNAL} and {own[0]!r} is not: BullMQ fetches by queue, so each worker would be given the other's jobs; "
                f"put the {EXTERNAL} jobs on a queue of their own, or map {own[0]!r} to {EXTERNAL} too"
            )
        return value

    @property
    def external(self) -> bool:
        """Whether foreign BullMQ workers do all jobs of this queue: then ours never fetch from it."""
        return EXTERNAL in self.processors.values()


BUILTIN_QUEUES: dict[str, dict[str, Any]] = {
    "document-processing": {
        "processors": {"process-document": "pipeline.processors.documents:DocumentProcessingProcessor"},
        "attempts": 3,
        "backoff": {"type": "exponential", "delay": "2s"},
    },
    "compliance-analysis": {
        "processors": {"analyze-compliance": "pipeline.processors.compliance:ComplianceAnalysisProcessor"},
        "attempts": 3,
        "backoff": {"type": "exponential", "delay": "5s"},
    },
    "notifications": {
        "processors": {"send-notification": "pipeline.processors.notifications:NotificationProcessor"},
        "attempts": 5,
        "backoff": {"type": "exponential", "delay": "1s"},
    },
}
"""The original system's three queues; a `queues:` section adds to them and overrides them key by key."""
