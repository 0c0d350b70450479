"""Runs as this process left them, so that their next transition need not read them; bounded in bytes."""

from pipeline.workflows.model import Run

ROOM = 32 << 20
"""Bytes, counted as the JSON of the runs' states."""


class Moved:
    """A commit over a run that others have moved since is refused, and then it is read: what is here may be old, and does no harm."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._runs: dict[str, tuple[Run, str, int]] = {}

    def put(self, run: Run, version: str, size: int) -> None:
        """`size`: bytes of its state."""
        self.take(run.id)
        self._runs[run.id] = (run, version, size)
        self._room -= size
        while self._room < 0:
            self.take(next(iter(self._runs)))

    def take(self, run_id: str) -> tuple[Run, str] | None:
        """The run and its version, if it is here; then it is here no more."""
        if (found := self._runs.pop(run_id, None)) is None:
            return None
        run, version, size = found
        self._room += size
        return run, version
