"""Where a request goes, as read once from a URL."""

from dataclasses import dataclass, field

from yarl import URL


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    tls: bool
    host: str
    """Without brackets, in ASCII."""
    port: int
    authority: str
    """For the header `Host`."""
    path: str = field(repr=False)
    """With the query, which may be a secret."""

    @property
    def place(self) -> tuple[bool, str, int]:
        """Whose connections serve each other's requests."""
        return self.tls, self.host, self.port

    @classmethod
    def of(cls, url: URL) -> "Target":
        """Of a URL that `Guard.parse_url` gave."""
        assert url.raw_host
        assert url.port
        return cls(
            tls=url.scheme == "https",
            host=url.raw_host,
            port=url.port,
            authority=url.host_port_subcomponent or url.raw_host,
            path=url.raw_path_qs or "/",
        )
