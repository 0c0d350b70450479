"""The one tree of this package's errors, named by what the caller must do about them.

WebhookError
├── InvalidInput        mend the request, then send it again
│   └── RefusedAddress  give a URL that may be dialled, or have the operator allow its network
├── NotFound            look elsewhere
├── Conflict            look at the present state first
│   └── ReadOnly        change config.yaml instead
├── MissingKey          give back the encryption key that an endpoint's secrets were written with
└── VerificationError   (of a received webhook) answer 400 or 401
    ├── MissingHeader · MalformedHeader · MalformedBody
    ├── TimestampTooOld · TimestampTooNew
    └── NoMatchingSignature
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an input."""

    path: str
    """Where, as a dotted path (`types.0`); empty for the whole."""
    message: str


class WebhookError(Exception):
    """Base of every error that this package raises on purpose; its text may be shown to the caller."""

    code = "webhook-error"
    """Stable, kebab-case."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(WebhookError):
    code = "invalid-input"

    def __init__(self, message: str, *, faults: tuple[Fault, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.faults = faults


class RefusedAddress(InvalidInput):
    code = "refused-address"


class NotFound(WebhookError):
    code = "not-found"


class Conflict(WebhookError):
    code = "conflict"


class ReadOnly(Conflict):
    code = "read-only"


class MissingKey(WebhookError):
    code = "missing-key"


class VerificationError(WebhookError):
    code = "not-verified"


class MissingHeader(VerificationError):
    code = "missing-header"


class MalformedHeader(VerificationError):
    code = "malformed-header"


class MalformedBody(VerificationError):
    code = "malformed-body"


class TimestampTooOld(VerificationError):
    code = "timestamp-too-old"


class TimestampTooNew(VerificationError):
    code = "timestamp-too-new"


class NoMatchingSignature(VerificationError):
    code = "no-matching-signature"
