"""Which deliveries are asked for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from webhooks.errors import InvalidInput
from webhooks.matching import check_pattern, matches
from webhooks.model import Delivery, DeliveryStatus

_CODE = re.compile(r"[1-5](xx|[0-9][0-9])|none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Criteria:
    """All that is given has to hold."""

    statuses: frozenset[DeliveryStatus] = frozenset()
    """Any of these; empty: whichever."""
    endpoint: str | None = None
    event: str | None = None
    run: str | None = None
    types: tuple[str, ...] = ()
    """Any of these types or patterns (`job.*`)."""
    code: str | None = None
    """HTTP status of the last attempt: `503`, a class `5xx`, or `none` where it had no answer."""
    since: int | None = None
    """Created at or after, ms since the epoch."""
    until: int | None = None
    """Created at or before, ms since the epoch."""

    def fits(self, record: Delivery) -> bool:
        return (
            (not self.statuses or record.status in self.statuses)
            and self.endpoint in (None, record.endpoint)
            and self.event in (None, record.event)
            and self.run in (None, record.run)
            and (not self.types or matches(self.types, record.type))
            and (self.code is None or _answered(record, self.code))
            and (self.since is None or record.created >= self.since)
            and (self.until is None or record.created <= self.until)
        )


def criteria(*, statuses: Sequence[str] = (), types: Sequence[str] = (), code: str | None = None, **more: str | int | None) -> Criteria:
    """Checked. Raises InvalidInput, naming the parameter."""
    for status in statuses:
        if status not in list(DeliveryStatus):
            raise InvalidInput(f"status: {status!r} is none; there are {', '.join(DeliveryStatus)}")
    for type in types:
        try:
            check_pattern(type)
        except ValueError as error:
            raise InvalidInput(f"type: {error}") from error
    if code is not None and not _CODE.fullmatch(code):
        raise InvalidInput(f"lastStatus: {code!r} is neither an HTTP status such as 503 nor a class such as 5xx nor none")
    found = Criteria(statuses=frozenset(map(DeliveryStatus, statuses)), types=tuple(types), code=code, **more)  # type: ignore[arg-type]
    if found.since is not None and found.until is not None and found.since > found.until:
        raise InvalidInput("since: lies after until")
    return found


def _answered(record: Delivery, code: str) -> bool:
    if code == "none":
        return record.attempts > 0 and record.code is None
    return record.code is not None and re.fullmatch(code.replace("x", "."), str(record.code)) is not None
