"""Hosts, ports and addresses: one spelling of each host, and which addresses a name may turn out to have."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

MAX_HOST: Final = 253
"""RFC 1035, without the final dot."""
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# A last label of this form makes the C library, and browsers, read the whole as a number: 127.1, 0x7f.1, 017700000001.
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_MAX_PORT = 65535

_GLOBAL_IPV6 = IPv6Network("2000::/3")
"""All that IANA has ever given out as global unicast. Python 3.11 takes fec0::/10 and others for global too."""
_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = IPv6Network("::/96")
_NOT_GLOBAL: Final = (
    IPv4Network("192.88.99.0/24"),  # 6to4 relays, withdrawn (RFC 7526)
    IPv6Network("2002::/16"),  # 6to4: an IPv4 address in disguise
    IPv6Network("2001::/23"),  # IETF protocols, Teredo among them: the same
    IPv6Network("3fff::/20"),  # documentation (RFC 9637), which Python 3.11 does not know
)
METADATA: Final[frozenset[Address]] = frozenset(
    {
        IPv4Address("169.254.169.254"),  # most clouds
        IPv4Address("169.254.170.2"),  # AWS ECS
        IPv4Address("100.100.100.200"),  # Alibaba
        IPv4Address("192.0.0.192"),  # Oracle
        IPv4Address("168.63.129.16"),  # Azure; by its number it is a global address
        IPv6Address("fd00:ec2::254"),  # AWS
        IPv6Address("fd20:ce::254"),  # Google
    }
)
"""Services of clouds that hand out a machine's credentials."""
_INTERNAL: Final = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("127.0.0.0/8"),
    IPv6Network("fc00::/7"),
    IPv6Network("::1/128"),
)
"""What `internal: true` opens. Not among them: link-local, where metadata services live."""


class BadHost(ValueError):
    """A host, a port, or the two together are not in the one form expected."""


def parse_address(text: str) -> Address | None:
    """Read an address in its one usual form, without a zone; None for all else, names included."""
    if "%" in text:
        return None
    try:
        address: Address = IPv6Address(text) if ":" in text else IPv4Address(text)
    except ValueError:
        return None
    return address if str(address) == text else None


def parse_host(text: str) -> str:
    """Check a host: a name in lower case without a dot at its end, or an address in its usual form, without brackets.

    Raises:
        BadHost: it is another spelling of a host, or none. `127.1`, `0x7f.1` and `2130706433` are numbers, not names.
    """
    if ":" in text:
        address = parse_address(text)
        if not isinstance(address, IPv6Address) or address.ipv4_mapped is not None:
            raise BadHost("no IPv6 address in its shortest form, lower case, without zone or IPv4 in it")
        return text
    if len(text) > MAX_HOST or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise BadHost("no host name: letters, digits, dashes and single dots are expected")
    if _NUMERIC.fullmatch(text.rpartition(".")[2]) and parse_address(text) is None:
        raise BadHost("a number, but no IPv4 address of four decimal parts")
    return text


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where a connection goes."""

    host: str
    """As `parse_host` gives it."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host_port(text: str, default_port: int | None = None) -> HostPort:
    """Read `host:port`; letters of a name may be upper case. Without a port, the default one where there is any.

    Raises:
        BadHost: it is something else. User information, zones and dots at the end are something else.
    """
    if not text.isascii():
        raise BadHost("a character that is not ASCII")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise BadHost("no address in brackets")
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = text.partition(":")
    host = parse_host(host.lower())
    if not colon and default_port is not None:
        return HostPort(host, default_port)
    if not _PORT.fullmatch(port) or int(port) > _MAX_PORT:
        raise BadHost("no port from 1 to 65535")
    return HostPort(host, int(port))


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Give the IPv4 address that an IPv6 address leads to, where it is a form that this host may route so."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else None


def is_global(address: Address) -> bool:
    """Say whether an address is one of the public Internet, and no service of a cloud's own."""
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_global(inner)
        if address not in _GLOBAL_IPV6 or address in _IPV4_COMPATIBLE:
            return False
    if address in METADATA or address.is_multicast or address.is_reserved:
        return False
    return address.is_global and not any(address in network for network in _NOT_GLOBAL)


def why_not(address: Address, named: str, *, internal: bool) -> str:
    """Say why a connection may not go to an address; nothing where it may.

    1. An IPv4 address within an IPv6 one is judged for itself.
    2. A global address is fine: the host is one that the policy names.
    3. Without `internal`, nothing else is.
    4. With it, the policy may name the very address, whatever it is.
    5. Or a name, which may turn out to be private or a loopback address, but no metadata service and nothing else.

    Args:
        address: what the name was resolved to.
        named: the host as the policy has it.
        internal: what the policy says of it.
    """
    # 1.
    if isinstance(address, IPv6Address):
        address = _embedded(address) or address
    # 2.
    if is_global(address):
        return ""
    # 3.
    if not internal:
        return f"{address} is not an address of the public Internet, and the policy does not say internal: true"
    # 4.
    if str(address) == named and not address.is_multicast and not address.is_unspecified:
        return ""
    # 5.
    if address not in METADATA and any(address in network for network in _INTERNAL):
        return ""
    return f"{address} is not an address that internal: true opens"
