"""The whole configuration as frozen models: what config.yaml and the environment may say, and the built-in values."""

import base64
import binascii
import ipaddress
import re
from collections import Counter
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from pipeline.store import sentinel
from pipeline.units import Duration, Size

PROCESSOR_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*")
KEY_PREFIX = "hk_"
"""Of a service API key: tells it from a JWT."""
EXTERNAL = "external"
"""The processor of a job that a foreign BullMQ worker does."""


class Section(BaseModel):
    # Defaults are written as in the file ("1MiB", "25s") and validated like it; a type checker sees the text beside the int that
    # it becomes, hence the `type: ignore[assignment]` of each.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        # pydantic takes true for 1 and `yes` for true: `concurrency: true` is a mistake, and YAML 1.2 has no `yes`.
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and wanted in (int, int | None):
            raise ValueError("should be a number")
        if wanted is bool and not isinstance(value, bool) and value not in ("true", "false"):
            raise ValueError("should be true or false (yes, no, on and off are text in YAML 1.2)")
        return value


class Server(Section):
    host: str = "127.0.0.1"
    port: int = Field(3000, ge=0, le=65535)
    body_limit: Size = "1MiB"  # type: ignore[assignment]
    upload_limit: Size = "100MiB"  # type: ignore[assignment]
    public_url: str | None = Field(None, pattern=r"^https?://[^\s?#]+$")
    """Where other services reach this one, for the callbacks of pushed jobs; None: `http://<host>:<port>`."""
    drain: Duration = "25s"  # type: ignore[assignment]
    """How long running jobs and deliveries may go on after SIGTERM; what is left then is handed back."""


class Redis(Section):
    url: SecretStr | None = None
    """None: the embedded Valkey in the data folder."""

    @field_validator("url")
    @classmethod
    def _reachable(cls, value: SecretStr | None) -> SecretStr | None:
        # It may hold a password, so no message repeats it.
        url = urlsplit(value.get_secret_value()) if value else None
        if url and url.scheme in sentinel.SCHEMES:
            try:
                sentinel.settings(url.geturl())
            except ValueError:
                raise ValueError(f"should be {url.scheme}://[user:password@]host:port,host:port/service[/db]") from None
            return value
        if url and url.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("should begin with redis://, rediss:// or unix://")
        try:
            _ = url.port if url else None
        except ValueError:
            raise ValueError("its port should be a number up to 65535") from None
        return value

    prefix: str = Field("hookline", pattern=r"^[A-Za-z0-9._-]{1,64}$")


class BullMQ(Section):
    prefix: str = Field("bull", pattern=r"^[A-Za-z0-9._-]{1,64}$")


def _api_key(key: SecretStr) -> SecretStr:
    if not key.get_secret_value().startswith(KEY_PREFIX):
        raise ValueError(f"should begin with {KEY_PREFIX}; make one with: echo {KEY_PREFIX}$(openssl rand -hex 24)")
    return key


class Auth(Section):
    jwt_secret: SecretStr | None = None
    jwks_url: str | None = None
    algorithms: tuple[Literal["HS256", "HS384", "HS512", "RS256", "ES256"], ...] = ("HS256",)
    role_claim: str = "role"
    issuer: str | None = None
    audience: str | None = None
    anonymous_jobs: bool = False
    api_keys: dict[str, Annotated[SecretStr, AfterValidator(_api_key)]] = {}
    """Name → `hk_…` key; its holder has the role `service`."""

    @model_validator(mode="after")
    def _algorithms_fit(self) -> Self:
        by_key_set = [name for name in self.algorithms if not name.startswith("HS")]
        if self.jwks_url and not by_key_set:
            raise ValueError("jwks_url needs RS256 or ES256 in algorithms: as it is, no token could be accepted")
        if by_key_set and not self.jwks_url:
            raise ValueError(f"{by_key_set[0]} in algorithms needs jwks_url")
        return self


class Storage(Section):
    url: str = "./storage"


class Backoff(Section):
    type: Literal["fixed", "exponential"] = "exponential"
    delay: Duration = "1s"  # type: ignore[assignment]


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
    processors: dict[str, str] = {}
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


class Uploads(Section):
    workflow: str = "document-upload"


class Endpoint(Section):
    """A webhook endpoint declared in config.yaml (read-only by API)."""

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")
    url: str
    types: tuple[str, ...] = ("*",)
    secret: SecretStr
    schedule: tuple[Duration, ...] | None = None
    timeout: Duration | None = None
    concurrency: int | None = Field(None, ge=1, le=1000)
    rate: str | None = None
    """Attempts in a time, such as `100/1m`."""
    ordering: str | None = None
    """Path of the key within which deliveries keep their order, such as `data.documentId`."""
    filter: str | None = None
    """CEL over `event`, such as `event.data.score < 50`."""
    payload: Literal["full", "thin"] | None = None
    asymmetric: bool | None = None
    """Sign with ed25519 (`v1a`) too."""
    headers: dict[str, str] = {}

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname or url.username is not None:
            raise ValueError("should be http(s)://host/…, without a user name")
        return value


class Events(Section):
    """What may be published by `POST /api/events`."""

    strict: bool = False
    """Only types registered by `PUT /api/events/types/{type}`."""


class Notify(Section):
    """Whom a `send-notification` job tells of endpoints that fail and are disabled."""

    type: Literal["email", "slack", "sms", "push"]
    to: str | None = None
    """Fills `{to}` in the channel's URL."""


class Webhooks(Section):
    allow_networks: tuple[str, ...] = ()
    schedule: tuple[Duration, ...] = ("0s", "5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h")  # type: ignore[assignment]
    endpoints: tuple[Endpoint, ...] = ()
    disable_after: Duration | None = "5d"  # type: ignore[assignment]
    """How long an endpoint may be without a success; null or 0s: for ever."""
    notify: Notify | None = None

    @field_validator("allow_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"{error}; write an address range such as 10.0.0.0/8") from error
        return value

    @field_validator("schedule")
    @classmethod
    def _schedule(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("should have at least one time; the first is the wait before the first attempt")
        return value

    @field_validator("endpoints")
    @classmethod
    def _distinct(cls, value: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        twice = [id for id, count in Counter(endpoint.id for endpoint in value).items() if count > 1]
        if twice:
            raise ValueError(f"the id {twice[0]!r} is used by more than one endpoint")
        return value


class Retention(Section):
    events: Duration = "7d"  # type: ignore[assignment]
    log_bytes: Size = "512MiB"  # type: ignore[assignment]
    runs: Duration = "30d"  # type: ignore[assignment]
    deliveries: Duration = "30d"  # type: ignore[assignment]


class Push(Section):
    """Jobs that another service does (a queue's processor is a URL)."""

    secret: SecretStr | None = None
    """`whsec_…`: signs the requests, as Standard Webhooks."""
    timeout: Duration = "15s"  # type: ignore[assignment]
    """For one request, its answer included."""
    callback_timeout: Duration = "1h"  # type: ignore[assignment]
    """How long a job that was answered with 202 waits for its callback."""


class LanguageModel(Section):
    """An OpenAI-compatible model that reads what rules cannot; documents' texts are sent to it, pseudonymised."""

    url: str
    """Of its chat completions, in full."""
    model: str = Field(min_length=1, max_length=200)
    key: SecretStr | None = None
    timeout: Duration = "30s"  # type: ignore[assignment]
    """For one document, all attempts included."""
    max_chars: int = Field(20_000, ge=500, le=400_000)
    """Of a document's text; what follows is not sent."""

    @field_validator("url")
    @classmethod
    def _completions(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname or url.username is not None or "/chat/completions" not in url.path:
            raise ValueError("should be the whole URL of chat completions, without a user name, such as https://api.example.com/v1/chat/completions")
        return value

    @field_validator("key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        # A line break at its end, from a file, would only show when a document is analysed; no message repeats it.
        if value and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("should be printable ASCII without spaces and line breaks")
        return value

    @field_validator("timeout")
    @classmethod
    def _within_the_analysis(cls, value: int) -> int:
        if not 100 <= value <= 120_000:
            raise ValueError("should be from 100ms to 2m: the whole analysis has 5 minutes")
        return value


class Compliance(Section):
    packs: tuple[str, ...] = ()
    """Paths of further rule packs in YAML, relative to config.yaml."""
    llm: LanguageModel | None = None


CHANNELS = ("email", "slack", "sms", "push")


class Template(Section):
    """How a channel's notifications read; a part that is left out is the job's own. `pipeline.processors.templates` checks them."""

    subject: str | None = None
    text: str | None = None
    html: str | None = None

    def parts(self) -> tuple[tuple[Literal["subject", "text", "html"], str], ...]:
        """Those that are given."""
        given: tuple[tuple[Literal["subject", "text", "html"], str | None], ...] = (
            ("subject", self.subject),
            ("text", self.text),
            ("html", self.html),
        )
        return tuple((kind, text) for kind, text in given if text is not None)


class Templates(Section):
    email: Template | None = None
    slack: Template | None = None
    sms: Template | None = None
    push: Template | None = None


class Notifications(Section):
    """Channel → Apprise URL; `{to}` and `{userId}` are filled in, percent-encoded."""

    email: SecretStr | None = None
    slack: SecretStr | None = None
    sms: SecretStr | None = None
    push: SecretStr | None = None
    templates: Templates = Templates()


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


class Config(Section):
    """What `pipeline.configfile.load` returns: defaults, config.yaml and environment merged and checked."""

    server: Server = Server()
    redis: Redis = Redis()
    bullmq: BullMQ = BullMQ()
    auth: Auth = Auth()
    storage: Storage = Storage()
    queues: dict[str, Queue] = BUILTIN_QUEUES  # type: ignore[assignment]
    workflows: dict[str, Any] = {}
    """As written; `pipeline.workflows.definition` checks and compiles them."""
    uploads: Uploads = Uploads()
    notifications: Notifications = Notifications()
    compliance: Compliance = Compliance()
    push: Push = Push()
    events: Events = Events()
    webhooks: Webhooks = Webhooks()
    retention: Retention = Retention()
    data_dir: str = ".hookline"
    encryption_keys: tuple[SecretStr, ...] = ()
    """base64 of 32 bytes each; the first encrypts, all decrypt."""
    dev: bool = False
    """Set by `--dev` and `demo`, never by the file: secrets are made, loopback may be dialled, unset channels go to the log."""
    log_format: Literal["json", "console"] = "console"
    folder: str = "."
    """Where config.yaml is: relative paths of processors, storage and rule packs start here. Set by `load`, as is the next."""
    warnings: tuple[str, ...] = ()
    """What an operator should know although it is no error; to be logged at start."""

    @field_validator("encryption_keys")
    @classmethod
    def _keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, key in enumerate(value, 1):
            try:
                size = len(base64.b64decode(key.get_secret_value(), validate=True))
            except (binascii.Error, ValueError):
                size = 0
            if size != 32:
                raise ValueError(f"key {number} is not the base64 of 32 bytes; make one with: openssl rand -base64 32")
        return value
