"""Which addresses may be dialled: an own table of refused networks, judged where the socket is made."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from yarl import URL

from webhooks.errors import InvalidInput, RefusedAddress
from webhooks.resolver import AddrInfo

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
SocketFactory = Callable[[AddrInfo], socket.socket]
MAX_URL = 2048
RESOLVE_SECONDS = 5.0

# `ipaddress.is_global` calls 19 of 52 addresses of this table global (NAT64, 6to4, ::127.0.0.1, fec0::1, multicast), hence an own one.
_REFUSED_V4 = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared address space of carriers",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "a cloud's host agent",
    "169.254.0.0/16": "link-local, cloud metadata",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "6to4 relay",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
# All of IPv6 outside 2000::/3 is refused without a row of its own; these lie within, or deserve their name in the message.
_REFUSED_V6 = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::/96": "IPv4-compatible",
    "64:ff9b::/96": "NAT64, which hides an IPv4 address",
    "64:ff9b:1::/48": "NAT64, which hides an IPv4 address",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
    "2001::/23": "protocol assignments, Teredo",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4, which hides an IPv4 address",
    "3fff::/20": "documentation",
}
_TABLE_V4 = tuple((ipaddress.IPv4Network(network), what) for network, what in _REFUSED_V4.items())
_TABLE_V6 = tuple((ipaddress.IPv6Network(network), what) for network, what in _REFUSED_V6.items())
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")


@dataclass(slots=True)
class Dial:
    """What happened at the socket during one attempt."""

    address: str | None = None
    """The last one that was dialled."""
    refused: str | None = None
    """Why the last one was not."""


class Guard:
    """Judges addresses and URLs, and makes the sockets that dial no other address."""

    def __init__(self, allow_networks: Iterable[str] = (), *, make_socket: SocketFactory | None = None) -> None:
        """`allow_networks`: CIDRs that may be dialled though internal. `make_socket` replaces the making of an accepted socket.

        Raises InvalidInput for what is not a network.
        """
        self._make_socket = make_socket or (lambda info: socket.socket(info[0], info[1], info[2]))
        self._allowed: list[IPNetwork] = []
        for text in allow_networks:
            try:
                self._allowed.append(ipaddress.ip_network(text))
            except ValueError as error:
                raise InvalidInput(f"{text!r} is not a network: {error}", hint="write a CIDR such as 10.0.0.0/8 or 127.0.0.1/32") from None

    def refusal(self, address: str) -> str | None:
        """Why an IP address may not be dialled; None if it may."""
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return f"{address} is not an IP address"
        mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
        judged: IPAddress = mapped or parsed
        if any(one in network for network in self._allowed for one in (parsed, judged) if one.version == network.version):
            return None
        if isinstance(judged, ipaddress.IPv4Address):
            what = next((what for network, what in _TABLE_V4 if judged in network), None)
        else:
            what = next((what for network, what in _TABLE_V6 if judged in network), None)
            if what is None and judged not in _GLOBAL_V6:
                what = "not global unicast"
        return f"{address} is refused ({what})" if what else None

    def parse_url(self, url: str) -> URL:
        """A URL that may be asked for, as far as its text tells. Raises RefusedAddress, saying what is wrong with it."""
        if len(url) > MAX_URL:
            raise RefusedAddress(f"a webhook URL has at most {MAX_URL} characters, this one has {len(url)}")
        try:
            parsed = URL(url)
            host, port = parsed.host, parsed.port
        except (ValueError, UnicodeError) as error:
            raise RefusedAddress("this is not a URL; write one like https://example.com/hooks") from error
        if parsed.scheme not in ("http", "https"):
            raise RefusedAddress("a webhook URL begins with https:// or http://")
        if not host:
            raise RefusedAddress("the URL names no host; write one like https://example.com/hooks")
        if parsed.user is not None or parsed.password is not None:
            raise RefusedAddress("a webhook URL has no user or password in it; put them in a header of the endpoint")
        if parsed.fragment:
            raise RefusedAddress("a webhook URL has no fragment (#…): it would never be sent")
        if not port:
            raise RefusedAddress("port 0 cannot be dialled")
        return parsed

    async def check_url(self, url: str) -> list[str]:
        """The addresses that a URL stands for at present, all of them dialable; none where its name does not resolve.

        A name that does not resolve yet is no mistake (a container that starts later), and every attempt is judged again.
        Raises RefusedAddress with the reason.
        """
        parsed = self.parse_url(url)
        assert parsed.host
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                # getaddrinfo, because it also reads what only looks like a name: 127.1, 2130706433, 017700000001.
                found = await loop.getaddrinfo(parsed.host, parsed.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError):
            found = []
        name = parsed.host.rstrip(".").lower()
        if not found and (name == "localhost" or name.endswith(".localhost")):
            # Not every resolver knows these, and every one that does means loopback (RFC 6761).
            self.require(["127.0.0.1"])
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        self.require(addresses)
        return addresses

    def require(self, addresses: Sequence[str]) -> None:
        """Raises RefusedAddress if any of a name's addresses is refused: it could be dialled at that one the next time."""
        for address in addresses:
            if why := self.refusal(address):
                raise RefusedAddress(why, hint="to allow an internal network, the operator adds it to webhooks.allow_networks in config.yaml")

    def make_socket(self, dial: Dial, info: AddrInfo) -> socket.socket:
        """A socket for one address; the last judgement, at the very address that is dialled. Raises OSError, and says why in `dial`."""
        address = info[4][0]
        dial.refused = self.refusal(address)
        if dial.refused:
            raise OSError(dial.refused)
        dial.address = address
        return self._make_socket(info)
