"""What this package needs from outside, as small Protocols, so that it could be lifted out of Hookline."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Event(Protocol):
    """An event of the log, as a subscriber may receive it."""

    @property
    def id(self) -> str:
        """`evt_…`, the same whenever the same thing is told again."""

    @property
    def type(self) -> str: ...
    @property
    def timestamp(self) -> int:
        """When it happened, ms since the epoch."""

    @property
    def data(self) -> dict[str, Any]: ...
    @property
    def cursor(self) -> str:
        """Its position in the log (a stream id)."""

    def document(self) -> dict[str, Any]:
        """The body `{type, timestamp, data}`."""


class EventLog(Protocol):
    """The log of events, read as one consumer group; the fan-out script acknowledges entries itself, hence `key` and `group`."""

    key: str
    group: str

    async def read(self, *, count: int, block_ms: int) -> Sequence[Event]:
        """Entries delivered to this consumer next: first those left unacknowledged by a dead consumer, then new ones."""

    async def left(self, *, count: int) -> Sequence[Event]:
        """Those alone that a dead consumer left, or that this one has kept for long."""

    async def ack(self, cursors: Sequence[str]) -> None: ...


class History(Protocol):
    """The log of events as it is looked back on, by who explains and repairs."""

    async def find(self, event: str) -> Event | None:
        """The event with this id, if it is among those looked through; see `searched`."""

    async def of_run(self, run: str) -> Sequence[Event]:
        """The events of a run, oldest first, as far as they are known; one that is no longer in the log has an empty cursor."""

    async def after(self, cursor: str, *, limit: int) -> Sequence[Event]:
        """Entries later than a cursor, oldest first; what the log no longer has is left out."""

    def cursor_at(self, at: int) -> str:
        """The cursor before the first entry logged at or after a time (ms since the epoch)."""

    async def start(self) -> int | None:
        """When the earliest entry that is kept was logged, ms since the epoch; None: the log is empty."""

    async def fanned_out(self, cursor: str) -> bool:
        """Whether the fan-out has acknowledged every entry up to this one."""

    async def behind(self) -> int:
        """The age in ms of the oldest entry that the fan-out has not acknowledged; 0 if there is none."""


class Publish(Protocol):
    """Append one event to the log (`endpoint.disabled`, `delivery.exhausted`); a repeated id is harmless to receivers."""

    async def __call__(self, type: str, data: dict[str, Any], *, identity: Sequence[object]) -> None: ...


class Predicate(Protocol):
    """A compiled filter."""

    def __call__(self, event: Mapping[str, Any], /) -> bool:
        """Whether it is true of `{id, type, timestamp, data}`, `timestamp` in ISO-8601. Raises ValueError, saying why, where that cannot be told.

        Ends soon, whatever the event: it runs in the fan-out, which waits for it.
        """


class Compile(Protocol):
    """Compile a filter's text. Raises ValueError that says where it is wrong and how to mend it."""

    def __call__(self, text: str, /) -> Predicate: ...
