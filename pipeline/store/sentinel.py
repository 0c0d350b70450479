"""Redis Sentinel: the URL that names the sentinels, and the question to them where the primary is."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

SCHEMES = ("redis+sentinel", "rediss+sentinel")
PORT = 26379
ANSWER_SECONDS = 1.0
"""How long one sentinel may take before the next is asked."""


class Primary:
    """Asks the sentinels anew for each connection; redis-py's connections take it for their pool."""

    is_master = True
    check_connection = False

    def __init__(self, sentinels: list[tuple[str, int]], service: str, settings: dict[str, Any]) -> None:
        self._sentinels = sentinels
        self._service = service
        self._settings = settings

    async def get_master_address(self) -> tuple[str, int]:
        failures = []
        for place, (host, port) in enumerate(self._sentinels):
            async with Redis(host=host, port=port, **self._settings) as sentinel:
                try:
                    masters: Any = await sentinel.sentinel_masters()
                except (ConnectionError, TimeoutError, ResponseError) as error:
                    failures.append(f"{host}:{port}: {error}")
                    continue
            found = masters.get(self._service)
            if found and found["is_master"] and not (found["is_sdown"] or found["is_odown"]):
                # The one that answers is asked first the next time.
                self._sentinels.insert(0, self._sentinels.pop(place))
                return found["ip"], found["port"]
            failures.append(f"{host}:{port} knows {'it, and that it is down' if found else 'no such service'}")
        raise MasterNotFoundError(f"no sentinel names a primary of {self._service!r} ({'; '.join(failures)})")


def settings(url: str) -> dict[str, Any]:
    """What `Pool` needs to know of `redis+sentinel://[user:password@]host[:port],host[:port]…/service[/db][?options]`.

    User and password are the store's; the sentinels' own are `sentinel_username` and `sentinel_password` among the options.
    With `rediss+sentinel` both are spoken to over TLS. Raises ValueError for what is none.
    """
    parts = urlsplit(url)
    user, _, places = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    sentinels = [_address(place) for place in places.split(",")]
    if not service or not all(host for host, _ in sentinels):
        raise ValueError("should be redis+sentinel://host:port,host:port/service")
    own = dict(parse_qsl(parts.query))
    credentials = {name: own.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in own}
    found = dict(parse_url(urlunsplit((parts.scheme.partition("+")[0], f"{user}@unused" if user else "unused", f"/{db}", urlencode(own), ""))))
    for name in ("host", "port"):
        found.pop(name, None)
    secure = found.pop("connection_class", None) is SSLConnection
    asked: dict[str, Any] = {
        **credentials,
        **{name: value for name, value in found.items() if name.startswith("ssl_")},
        "ssl": secure,
        "socket_timeout": ANSWER_SECONDS,
        "socket_connect_timeout": ANSWER_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "decode_responses": True,
    }
    return {
        **found,
        "connection_class": SentinelManagedSSLConnection if secure else SentinelManagedConnection,
        "connection_pool": Primary(sentinels, service, asked),
    }


def _address(place: str) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    return parts.hostname or "", parts.port or PORT
