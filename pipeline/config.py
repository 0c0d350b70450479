"""The whole configuration as frozen models: what config.yaml and the environment may say, and the built-in values."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from pipeline.units import Duration, Size


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Server(Section):
    host: str = "127.0.0.1"
    port: int = Field(3000, ge=0, le=65535)
    body_limit: Size = "1MiB"  # type: ignore[assignment]
    upload_limit: Size = "100MiB"  # type: ignore[assignment]
    drain: Duration = "25s"  # type: ignore[assignment]
    """How long running jobs and deliveries may go on after SIGTERM; what is left then is handed back."""


class Redis(Section):
    url: SecretStr | None = None
    """None: the embedded Valkey in the data folder."""
    prefix: str = Field("hookline", pattern=r"^[A-Za-z0-9._-]{1,64}$")


class BullMQ(Section):
    prefix: str = Field("bull", pattern=r"^[A-Za-z0-9._-]{1,64}$")


class Auth(Section):
    jwt_secret: SecretStr | None = None
    jwks_url: str | None = None
    algorithms: tuple[Literal["HS256", "HS384", "HS512", "RS256", "ES256"], ...] = ("HS256",)
    role_claim: str = "role"
    issuer: str | None = None
    audience: str | None = None
    anonymous_jobs: bool = False
    api_keys: dict[str, SecretStr] = {}
    """Name → `hk_…` key; its holder has the role `service`."""


class Storage(Section):
    url: str = "./storage"


class Backoff(Section):
    type: Literal["fixed", "exponential"] = "exponential"
    delay: Duration = "1s"  # type: ignore[assignment]


class Keep(Section):
    """How many finished jobs BullMQ retains."""

    completed: int = Field(100, ge=0)
    failed: int = Field(50, ge=0)


class Queue(Section):
    processors: dict[str, str] = {}
    """Job name → dotted path (`package.module:Name`)."""
    concurrency: int = Field(10, ge=1, le=1000)
    attempts: int = Field(3, ge=1, le=100)
    backoff: Backoff = Backoff()
    keep: Keep = Keep()


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
    headers: dict[str, str] = {}


class Webhooks(Section):
    allow_networks: tuple[str, ...] = ()
    schedule: tuple[Duration, ...] = ("0s", "5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h")  # type: ignore[assignment]
    endpoints: tuple[Endpoint, ...] = ()


class Retention(Section):
    events: Duration = "7d"  # type: ignore[assignment]
    log_bytes: Size = "512MiB"  # type: ignore[assignment]
    runs: Duration = "30d"  # type: ignore[assignment]
    deliveries: Duration = "30d"  # type: ignore[assignment]


class Compliance(Section):
    packs: tuple[str, ...] = ()
    """Paths of further rule packs in YAML, relative to config.yaml."""


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
    notifications: dict[str, SecretStr] = {}
    """Channel (email, slack, sms, push) → Apprise URL; `{to}` and `{userId}` are filled in, percent-encoded."""
    compliance: Compliance = Compliance()
    webhooks: Webhooks = Webhooks()
    retention: Retention = Retention()
    data_dir: str = ".hookline"
    encryption_keys: tuple[SecretStr, ...] = ()
    """base64 of 32 bytes each; the first encrypts, all decrypt."""
    dev: bool = False
    """Set by `--dev` and `demo`, never by the file: secrets are made, loopback may be dialled, unset channels go to the log."""
    log_format: Literal["json", "console"] = "console"
