"""The store: one client with the settings that BullMQ's scripts and blocking reads need, and the checks before it is used."""

import socket
from typing import Any

from redis.asyncio.connection import parse_url
from redis.exceptions import AuthenticationError, ConnectionError, OutOfMemoryError, ReadOnlyError, RedisError, TimeoutError
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from pipeline.errors import ConfigError
from pipeline.store import sentinel
from pipeline.store.client import Client
from pipeline.store.pool import Pool

Store = Any
"""A client made by `connect`. redis-py types each reply as `bytes | str | None | …`; with `decode_responses` they are what the commands say."""

STORE_ERRORS = (ConnectionError, TimeoutError, OSError, OutOfMemoryError, ReadOnlyError)
"""What a store raises that is away, full, or failing over: the same command may do later. Anything else is a mistake of ours."""
OLDEST = (6, 2)
_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in {
        "TCP_KEEPIDLE": 30,
        "TCP_KEEPALIVE": 30,  # macOS's name for it
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        # ms. Keep-alive does not speak while something is unacknowledged: without this a command to a machine that has vanished
        # would hang for a quarter of an hour.
        "TCP_USER_TIMEOUT": 30_000,
    }.items()
    if hasattr(socket, name)
}


def connect(url: str, *, connections: int = 64, retries: int = 4) -> Store:
    """A client that yields strings; of blocking commands, up to `connections` at a time.

    Connecting is tried again up to `retries` times, and so is what `Client` may send again.
    """
    settings: dict[str, Any] = {
        # What scripts answer is the same in both protocols, and the older one needs no HELLO.
        "protocol": 2,
        "decode_responses": True,
    }
    # A unix socket has no keep-alive: when its peer dies, the kernel says so at once.
    if not url.startswith("unix:"):
        settings |= {"socket_connect_timeout": 5, "socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}
    parsed = sentinel.settings(url) if url.startswith(sentinel.SCHEMES) else parse_url(url)
    # redis-py's default of 5 s, or one that a URL asks for, would cut blocking reads short (redis-py#4125).
    return Client(Pool(max_connections=connections, retries=retries, **(settings | parsed | {"socket_timeout": None})))


async def wait_until_up(redis: Store, *, seconds: float = 30.0) -> None:
    """Return when the store answers; raises ConfigError when it does not within `seconds` or refuses our credentials."""
    try:
        async for attempt in AsyncRetrying(
            # To redis-py, refused credentials are a lost connection; waiting does not mend them.
            retry=retry_if_exception(lambda error: isinstance(error, STORE_ERRORS) and not isinstance(error, AuthenticationError)),
            stop=stop_after_delay(seconds),
            wait=wait_random_exponential(multiplier=0.05, max=1.0),
            reraise=True,
        ):
            with attempt:
                await redis.ping()
    except AuthenticationError as error:
        raise ConfigError(f"redis.url: the store refused the credentials: {error}") from error
    except STORE_ERRORS as error:
        raise ConfigError(f"redis.url: the store did not answer within {seconds:.0f} s: {error}") from error
    except RedisError as error:
        raise ConfigError(f"redis.url: what answers there is no Redis that Hookline can use: {error}") from error


async def check(redis: Store, *, owner: str, bull_prefix: str) -> list[str]:
    """Refuse a store that would lose work, claim the BullMQ prefix for `owner`, and return warnings for the operator.

    Raises ConfigError for Redis Cluster, a version before 6.2, an eviction policy other than `noeviction`, and for a
    BullMQ prefix that another deployment (another `redis.prefix`) has claimed.
    """
    info = await redis.info()
    if info.get("cluster_enabled"):
        raise ConfigError("redis.url: this is a Redis Cluster, which Hookline does not support yet; use a single primary (or Sentinel)")
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < OLDEST:
        raise ConfigError(f"redis.url: the store is version {info['redis_version']}; Hookline needs Redis 6.2 or newer, or Valkey")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigError(
            f"redis.url: the store evicts keys (maxmemory-policy {policy}), which loses jobs; set: CONFIG SET maxmemory-policy noeviction"
        )
    claim = f"{bull_prefix}:hookline:owner"
    held = await redis.get(claim)
    if held is None:
        await redis.set(claim, owner, nx=True)
        held = await redis.get(claim)
    if held != owner:
        raise ConfigError(
            f"bullmq.prefix {bull_prefix!r} is used by another Hookline deployment (redis.prefix {held!r}); use another bullmq.prefix, "
            f"or the same redis.prefix; if that deployment is gone for good: DEL {claim}"
        )
    return await _durability_warnings(redis, info)


async def _durability_warnings(redis: Store, info: dict[str, object]) -> list[str]:
    try:
        settings = await redis.config_get("append*")
    except RedisError:
        return ["the store hides its CONFIG: whether it may lose the last seconds cannot be told"]
    if settings.get("appendonly") != "yes":
        return ["the store has no append-only file: a restart of it may lose everything since its last snapshot (appendonly yes, appendfsync always)"]
    if settings.get("appendfsync") != "always":
        return [f"the store may lose the last seconds when it dies (appendfsync {settings.get('appendfsync')}; `always` loses nothing)"]
    return []
