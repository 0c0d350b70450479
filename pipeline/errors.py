"""The one tree of errors, named by what the caller must do about them.

HooklineError
├── InvalidInput      mend the request, then send it again
│   ├── TooLarge      send less
│   └── Unsupported   send another media type
├── Unauthenticated   sign in
├── Forbidden         ask somebody with the right role
├── NotFound          look elsewhere
│   └── Gone          it was here; it will not come back
├── Conflict          look at the present state first
│   └── InFlight      the same request is being answered; wait
├── Unavailable       try again later
├── ConfigError       mend the configuration and start again
├── AttemptFailed     (of a job) this attempt failed; another may succeed
└── PermanentFailure  (of a job) do not run it again
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an input: where it is and what would be right."""

    path: str
    """Where, as a dotted path (`steps.analyze.needs`); empty for the whole."""
    message: str
    line: int | None = None
    """1-based, where the input is a file."""
    column: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class HooklineError(Exception):
    """Base of every error that Hookline raises on purpose; its text may be shown to the caller."""

    code = "internal"
    """Stable, kebab-case; the last segment of the problem's `type`."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(HooklineError):
    code = "invalid-input"

    def __init__(self, message: str, *, faults: tuple[Fault, ...] = (), hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.faults = faults
        if code:
            self.code = code


class TooLarge(InvalidInput):
    code = "too-large"


class Unsupported(InvalidInput):
    code = "unsupported-media-type"


class Unauthenticated(HooklineError):
    code = "unauthenticated"


class Forbidden(HooklineError):
    code = "forbidden"


class NotFound(HooklineError):
    code = "not-found"


class Gone(NotFound):
    code = "gone"

    def __init__(self, message: str, *, earliest: str | None = None) -> None:
        super().__init__(message)
        self.earliest = earliest


class Conflict(HooklineError):
    code = "conflict"


class InFlight(Conflict):
    code = "in-flight"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(HooklineError):
    code = "unavailable"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConfigError(HooklineError):
    """The configuration cannot be used; carries every fault found, each with file, line and column where known."""

    code = "invalid-configuration"

    def __init__(self, message: str, *, file: str | None = None, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(message)
        self.file = file
        self.faults = faults

    def __str__(self) -> str:
        lines = [self.message]
        for fault in self.faults:
            # A fault without a line is not in the file but in the environment or on the command line: its path says so.
            where = ":".join(str(part) for part in (self.file, fault.line, fault.column) if part is not None) if fault.line else ""
            lines.append(f"  {where}: {fault}" if where else f"  {fault}")
        return "\n".join(lines)


class AttemptFailed(HooklineError):
    """An attempt at a job failed, and this says why; the queue's retries decide whether there is another one."""

    code = "attempt-failed"


class PermanentFailure(HooklineError):
    """Raised by a processor when another attempt cannot help: the job fails at once, with this text as its reason."""

    code = "permanent-failure"
