"""Commits of transitions: those of several runs go to the store in one script."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from pipeline.jobs.plain import ADD_ALL, Plain
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.event import Event
from pipeline.store.keys import Keys
from pipeline.store.scripts import Argument, composed, lua, pack_each
from pipeline.workflows.model import Run

COMMIT = composed(ADD_ALL + lua("pipeline.workflows", "advance.lua"), "addStandardJob", "removeJob")
TOGETHER = 32
"""Transitions that one script should commit at most: it holds up everybody else's commands for as long as it takes."""


@dataclass(slots=True)
class Commit:
    """A transition on its way into the store."""

    run: Run
    """As it will be."""
    version: str
    """Of the run as it was read."""
    state: bytes
    """The run, encoded."""
    cursor: str
    """The entry of the log that it acknowledges, if it does."""
    timeline: Sequence[bytes]
    events: Sequence[Event]
    jobs: Sequence[Plain]
    rare: dict[str, Any]
    """What else follows, by the names that it has there."""

    def packed(self) -> bytes:
        """As advance.lua wants it."""
        counts = len(self.timeline), len(self.events), len(self.jobs)
        parts: list[Any] = [self.version, self.state, self.cursor, *counts, *self.timeline]
        for event in self.events:
            parts += event.fields()
        for job in self.jobs:
            parts += job
        parts.append(self.rare)
        return pack_each(parts)


class Commits:
    def __init__(self, redis: Store, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def send(self, commits: Sequence[Commit], *, group: str) -> list[bool | ResponseError]:
        """Commit transitions of different runs, each by itself; `group` is the consumer group whose entries they acknowledge.

        True for each that was made, False where somebody else has moved the run meanwhile, and an error of the script where the run has
        not moved. Raises the store's errors.
        """
        keys = [self._keys.log, self._keys.timers]
        args: list[Argument] = [group]
        for commit in commits:
            keys += (self._keys.run(commit.run.id), self._keys.timeline(commit.run.id))
            args.append(commit.packed())
        try:
            answers = await COMMIT(self._redis, keys, args)
        except STORE_ERRORS:
            raise
        except ResponseError as error:
            return [error] * len(commits)
        return [ResponseError(said) if isinstance(said, str) else bool(said) for said in answers]
