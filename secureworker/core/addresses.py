"""Hosts, ports and addresses: one spelling of each host, and which addresses a name may turn out to have.

What blocks of addresses are for is in `address_blocks`.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from secureworker.core.address_blocks import Address, embedded, is_a_place, is_a_sites_own, is_global

MAX_HOST: Final = 253
"""RFC 1035, without the final dot."""
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# A last label of this form makes the C library, and browsers, read the whole as a number: 127.1, 0x7f.1, 017700000001.
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_MAX_PORT = 65535


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
    address = embedded(address) or address
    # 2.
    if is_global(address):
        return ""
    # 3.
    if not internal:
        return f"{address} is not an address of the public Internet, and the policy does not say internal: true"
    # 4.
    if str(address) == named and is_a_place(address):
        return ""
    # 5.
    if is_a_sites_own(address):
        return ""
    return f"{address} is not an address that internal: true opens"
