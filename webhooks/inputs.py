"""What may be said about an endpoint, by API or in config.yaml, checked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from webhooks.errors import Fault, InvalidInput
from webhooks.matching import MAX_TYPES, check_pattern
from webhooks.model import DEFAULT_CONCURRENCY, DEFAULT_TIMEOUT_MS, HIDDEN, Payload
from webhooks.selecting import Filters
from webhooks.signing import key_of
from webhooks.units import Rate, ms, parse_duration, parse_rate

ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
MAX_SCHEDULE = 30
MAX_DELAY_MS = 7 * 24 * 3_600_000
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 1_000, 30_000
DEFAULT_OVERLAP_MS, MAX_OVERLAP_MS = 24 * 3_600_000, 7 * 24 * 3_600_000
MAX_CONCURRENCY = 1_000
MAX_FILTER = 1_000
MAX_ORDERING = 128
MAX_HEADERS = 20
MAX_HEADER_BYTES = 4_096
_PATH = re.compile(r"data(\.[A-Za-z0-9_]+)+")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
# What says how the message is framed, how the connection is used or whom it is from; and what the sender writes itself.
_RESERVED = {"host", "connection", "keep-alive", "te", "trailer", "trailers", "transfer-encoding", "upgrade", "expect", "http2-settings", "via",
             "accept-encoding", "date", "user-agent", "traceparent", "tracestate", "cookie", "set-cookie", "forwarded"}  # fmt: skip
_RESERVED_PREFIXES = ("webhook-", "content-", "proxy-", "sec-", "x-forwarded-")

Rate_ = Annotated[Rate, BeforeValidator(parse_rate)]

Time = Annotated[int, BeforeValidator(ms)]
"""ms since the epoch; comes as ISO-8601 with a zone."""
Duration = Annotated[int, BeforeValidator(lambda value: value if type(value) is int and value == 0 else parse_duration(value))]


class _Rules(BaseModel):
    """Checks that creating, changing and declaring share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("types", check_fields=False)
    @classmethod
    def _types(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for pattern in value or ():
            check_pattern(pattern)
        return None if value is None else tuple(dict.fromkeys(value))

    @field_validator("schedule", check_fields=False)
    @classmethod
    def _schedule(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if value is None else check_schedule(value)

    @field_validator("timeout", check_fields=False)
    @classmethod
    def _timeout(cls, value: int | None) -> int | None:
        if value is not None and not MIN_TIMEOUT_MS <= value <= MAX_TIMEOUT_MS:
            raise ValueError("a timeout is from 1s to 30s")
        return value

    @field_validator("headers", check_fields=False)
    @classmethod
    def _headers(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        return None if value is None else _check_headers(value)

    @field_validator("ordering", check_fields=False)
    @classmethod
    def _ordering(cls, value: str | None) -> str | None:
        if value is not None and not (_PATH.fullmatch(value) and len(value) <= MAX_ORDERING):
            raise ValueError(f"an ordering key is a path in the data of at most {MAX_ORDERING} characters, for example data.documentId")
        return value

    @field_validator("filter", check_fields=False)
    @classmethod
    def _filter(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            (info.context or Filters()).check(value)
        return value

    @field_validator("secret", check_fields=False)
    @classmethod
    def _secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            key_of(value.get_secret_value())
        return value


class NewEndpoint(_Rules):
    url: str
    types: tuple[str, ...] = Field(("*",), min_length=1, max_length=MAX_TYPES)
    description: str = Field("", max_length=500)
    schedule: tuple[Duration, ...] | None = None
    timeout: Duration = DEFAULT_TIMEOUT_MS
    concurrency: int = Field(DEFAULT_CONCURRENCY, ge=1, le=MAX_CONCURRENCY, strict=True)
    rate: Rate_ | None = None
    ordering: str | None = None
    filter: str | None = Field(None, min_length=1, max_length=MAX_FILTER)
    payload: Payload = Payload.FULL
    asymmetric: bool = Field(False, strict=True)
    headers: dict[str, str] = {}
    secret: SecretStr | None = None
    """None: one is made."""


class NewReplay(_Rules):
    since: Time
    until: Time | None = None
    """None: now."""
    status: tuple[Literal["delivered", "exhausted", "skipped"], ...] | None = None
    """None: exhausted and skipped, unless only what is missing is asked for."""
    types: tuple[str, ...] = Field((), max_length=MAX_TYPES)
    missing: bool = Field(False, strict=True)
    rate: Rate_ | None = None
    dryRun: bool = Field(False, strict=True)


class EndpointChanges(_Rules):
    """What is not given stays as it is; null returns `schedule` to the default one and takes `rate`, `ordering` and `filter` away."""

    url: str | None = None
    types: tuple[str, ...] | None = Field(None, min_length=1, max_length=MAX_TYPES)
    description: str | None = Field(None, max_length=500)
    schedule: tuple[Duration, ...] | None = None
    timeout: Duration | None = None
    concurrency: int | None = Field(None, ge=1, le=MAX_CONCURRENCY, strict=True)
    rate: Rate_ | None = None
    ordering: str | None = None
    filter: str | None = Field(None, min_length=1, max_length=MAX_FILTER)
    payload: Payload | None = None
    asymmetric: bool | None = Field(None, strict=True)
    headers: dict[str, str] | None = None

    @field_validator("url", "types", "description", "timeout", "concurrency", "payload", "asymmetric", "headers")
    @classmethod
    def _not_null(cls, value: Any) -> Any:
        # Runs only for what is given.
        if value is None:
            raise ValueError("cannot be null; leave it out to keep it as it is")
        return value


class Rotation(_Rules):
    secret: SecretStr | None = None
    """None: one is made."""
    overlap: Duration = DEFAULT_OVERLAP_MS
    """ms for which former secrets go on signing beside it."""

    @field_validator("overlap")
    @classmethod
    def _overlap(cls, value: int) -> int:
        if value > MAX_OVERLAP_MS:
            raise ValueError("an overlap is from 0s to 7d")
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """An endpoint of config.yaml."""

    id: str
    url: str = field(repr=False)
    types: tuple[str, ...]
    secret: str = field(repr=False)
    schedule: tuple[int, ...] | None = None
    """ms before each attempt."""
    timeout: int | None = None
    """ms"""
    concurrency: int | None = None
    rate: str | None = None
    ordering: str | None = None
    filter: str | None = None
    payload: str | None = None
    asymmetric: bool | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def checked(self, filters: Filters | None = None) -> NewEndpoint:
        """Raises InvalidInput, naming the endpoint, for what is wrong with it."""
        if not ID.fullmatch(self.id) or self.id in (".", ".."):
            raise InvalidInput(f"{self.id!r} is not an endpoint's id; use letters, digits, dots, _ and -, at most 128")
        given: dict[str, Any] = {
            "url": self.url,
            "types": self.types,
            "secret": self.secret,
            "schedule": None if self.schedule is None else [f"{ms}ms" for ms in self.schedule],
            "timeout": None if self.timeout is None else f"{self.timeout}ms",
            "concurrency": self.concurrency,
            "rate": self.rate,
            "ordering": self.ordering,
            "filter": self.filter,
            "payload": self.payload,
            "asymmetric": self.asymmetric,
            "headers": dict(self.headers),
        }
        try:
            return parse(NewEndpoint, {name: value for name, value in given.items() if value is not None}, filters)
        except InvalidInput as error:
            faults = tuple(Fault(f"{self.id}.{fault.path}", fault.message) for fault in error.faults)
            raise InvalidInput(f"the endpoint {self.id} is not usable: {error.message}", faults=faults) from None


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], document: Mapping[str, Any], filters: Filters | None = None) -> Model:
    """Raises InvalidInput with every fault; none of them quotes what was given, which may be a secret."""
    try:
        return model.model_validate(dict(document), context=filters)
    except ValidationError as error:
        faults = tuple(
            Fault(".".join(map(str, one["loc"])), _plainly(one["msg"], one["type"], model))
            for one in error.errors(include_url=False, include_input=False, include_context=False)
        )
    # Outside the handler: pydantic's error quotes its input, and must not become the cause.
    raise InvalidInput("; ".join(f"{fault.path}: {fault.message}" if fault.path else fault.message for fault in faults), faults=faults)


def _plainly(message: str, kind: str, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        return f"is not known; there are {', '.join(model.model_fields)}"
    if kind == "missing":
        return "is missing"
    if kind == "tuple_type":
        return "must be a list"
    if kind == "dict_type":
        return "must be an object"
    if kind == "bool_type":
        return "must be true or false"
    # What pydantic says of its own kinds names Python's.
    return re.sub(
        r"^(Input|String|Tuple|List) should (be|have)\b", r"must \2", message.removeprefix("Value error, ").partition(" after validation")[0]
    )


def check_schedule(schedule: Sequence[int]) -> tuple[int, ...]:
    """Raises ValueError for a schedule without an attempt, with too many, or with one too far off."""
    if not 1 <= len(schedule) <= MAX_SCHEDULE:
        raise ValueError(f"a schedule has 1 to {MAX_SCHEDULE} delays, one before each attempt, for example [0s, 5s, 5m]")
    if any(not 0 <= ms <= MAX_DELAY_MS for ms in schedule):
        raise ValueError("each delay of a schedule is at most 7d")
    return tuple(schedule)


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"an endpoint has at most {MAX_HEADERS} headers of its own")
    lowered = {name.lower(): value for name, value in headers.items()}
    if len(lowered) < len(headers):
        raise ValueError("two headers differ only in case")
    for name, value in lowered.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError("a header's name has letters, digits and -, at most 64")
        if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
            raise ValueError(
                f"the header {name} is reserved: the sender or the connection sets it; use a name of your own, such as authorization or x-…"
            )
        if len(value) > MAX_HEADER_BYTES or not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name} has at most {MAX_HEADER_BYTES} printable ASCII characters")
        if value == HIDDEN:
            raise ValueError(f"the value of the header {name} is only what is shown in its place; give the real one")
    return lowered
