"""How long each phase of an attempt took."""

import time
from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class Phases:
    """Seconds; None where a phase did not happen: the first three where a connection is reused. One that the time ran out in has what it had."""

    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    """From when the request was written to the answer's first byte; None where none came."""
    total: float | None = None

    def document(self) -> dict[str, float | None]:
        """In ms, as an attempt is stored and shown."""
        return {"dns": _ms(self.dns), "connect": _ms(self.connect), "tls": _ms(self.tls), "firstByte": _ms(self.first_byte), "total": _ms(self.total)}


def _ms(seconds: float | None) -> float | None:
    # To the µs; not by `round(…, 3)`, which goes by way of decimal digits.
    return None if seconds is None else round(seconds * 1_000_000) / 1000


clock = time.perf_counter
