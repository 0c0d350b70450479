"""The whole configuration as frozen models: what config.yaml and the environment may say, and the built-in values."""

import base64
import binascii
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from pipeline.config.processors import Compliance, Notifications, Push
from pipeline.config.queues import BUILTIN_QUEUES, Queue
from pipeline.config.section import Section, written
from pipeline.config.webhooks import Events, Webhooks
from pipeline.units import Duration, Size

KEY_PREFIX = "hk_"
"""Of a service API key: tells it from a JWT."""


class Server(Section):
    host: str = "127.0.0.1"
    port: int = Field(3000, ge=0, le=65535)
    body_limit: Size = written("1MiB")
    upload_limit: Size = written("100MiB")
    public_url: str | None = Field(None, pattern=r"^https?://[^\s?#]+$")
    """Where other services reach this one, for the callbacks of pushed jobs; None: `http://<host>:<port>`."""
    drain: Duration = written("25s")
    """How long running jobs and deliveries may go on after SIGTERM; what is left then is handed back."""


class Redis(Section):
    url: SecretStr | None = None
    """None: the embedded Valkey in the data folder."""

    @field_validator("url")
    @classmethod
    def _reachable(cls, value: SecretStr | None) -> SecretStr | None:
        # It may hold a password, so no message repeats it.
        url = urlsplit(value.get_secret_value()) if value else None
        if url and url.scheme in ("redis+sentinel", "rediss+sentinel"):
            # Here, because it takes redis-py, which the supervisor has no use for.
            from pipeline.store import sentinel

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
    api_keys: dict[str, Annotated[SecretStr, AfterValidator(_api_key)]] = Field({})
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


class Uploads(Section):
    workflow: str = "document-upload"


class Retention(Section):
    events: Duration = written("7d")
    log_bytes: Size = written("512MiB")
    runs: Duration = written("30d")
    deliveries: Duration = written("30d")


class Config(Section):
    """What `pipeline.configfile.load` returns: defaults, config.yaml and environment merged and checked."""

    server: Server = Server()
    redis: Redis = Redis()
    bullmq: BullMQ = BullMQ()
    auth: Auth = Auth()
    storage: Storage = Storage()
    queues: dict[str, Queue] = written(BUILTIN_QUEUES)
    workflows: dict[str, Any] = Field({})
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
