"""What blocks of addresses are for: which are the public Internet, which a site's own, and which a cloud's metadata.

The tables are here, and not taken from `ipaddress`: what counts as global there differs between releases of Python
(192.0.0.0/24 did until 3.13, 3fff::/20 does until then), and the answer must not change with the interpreter.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

_SPECIAL_IPV4: Final = tuple(
    IPv4Network(block)
    for block in (
        # IANA IPv4 Special-Purpose Address Registry; those too that it calls globally reachable: no policy's host is
        # the nearest relay or sink of a protocol.
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' own
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocols
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT relays
        "192.88.99.0/24",  # 6to4 relays, withdrawn (RFC 7526)
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GLOBAL_IPV6: Final = IPv6Network("2000::/3")
"""All that IANA has ever given out as global unicast."""
_SPECIAL_IPV6: Final = tuple(
    IPv6Network(block)
    for block in (
        # IANA IPv6 Special-Purpose Address Registry, as far as it lies in the block above.
        "2001::/23",  # IETF protocols, Teredo among them: an IPv4 address in disguise
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # 6bone, given back (RFC 3701)
        "3fff::/20",  # documentation (RFC 9637)
    )
)
_METADATA_IPV4: Final = tuple(
    IPv4Network(block)
    for block in (
        "169.254.0.0/16",  # AWS, Azure, Google, Oracle, OpenStack and nearly all others; containers' credentials
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle's first
        "168.63.129.16/32",  # Azure's wire server; by its number it is a global address
    )
)
_METADATA_IPV6: Final = tuple(
    IPv6Network(block)
    for block in (
        "fd00:ec2::/32",  # AWS: instances, and the credentials of EKS pods
        "fd00:c1::/32",  # Oracle
        "fd00:42::/32",  # Scaleway
        "fd20:ce::/32",  # Google
        "fd00:a9fe:a9fe::/48",  # Akamai's Linode
        "fe80::/10",  # OpenStack, and whatever else is on the link
    )
)
_MAGIC: Final = 0xA9FE_A9FE
"""169.254.169.254: clouds write it into the end of IPv6 addresses too, and so do translators to IPv4 (RFC 6052)."""
_SITES_IPV4: Final = tuple(
    IPv4Network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8")
)
_SITES_IPV6: Final = (IPv6Network("fc00::/7"), IPv6Network("::1/128"))

_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""In front of an IPv4 address, in the lower half of an IPv6 one (RFC 5214)."""
_LOW_32: Final = 0xFFFF_FFFF


def embedded(address: Address) -> IPv4Address | None:
    """Give the IPv4 address that an IPv6 address leads to, where it is a form that this host may route so."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & _LOW_32) if address in _NAT64 else None


def is_metadata(address: Address) -> bool:
    """Say whether an address is, or may be, that of a service which hands out a machine's credentials."""
    inner = embedded(address)
    if inner is not None:
        return is_metadata(inner)
    if isinstance(address, IPv4Address):
        return any(address in block for block in _METADATA_IPV4)
    return int(address) & _LOW_32 == _MAGIC or any(address in block for block in _METADATA_IPV6)


def is_global(address: Address) -> bool:
    """Say whether an address is one of the public Internet, and no service of a cloud's own."""
    inner = embedded(address)
    if inner is not None:
        return is_global(inner)
    if is_metadata(address):
        return False
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _SPECIAL_IPV4)
    if _is_disguised(address):
        return False
    return address in _GLOBAL_IPV6 and not any(address in block for block in _SPECIAL_IPV6)


def is_a_sites_own(address: Address) -> bool:
    """Say whether an address is private, or of this very host: what a policy's `internal: true` opens to a name."""
    inner = embedded(address)
    if inner is not None:
        return is_a_sites_own(inner)
    if is_metadata(address):
        return False
    if isinstance(address, IPv4Address):
        return any(address in block for block in _SITES_IPV4)
    return not _is_disguised(address) and any(address in block for block in _SITES_IPV6)


def _is_disguised(address: IPv6Address) -> bool:
    """Say whether it is meant for one link only, or for the end of an ISATAP tunnel."""
    return address.scope_id is not None or int(address) >> 32 & _LOW_32 in _ISATAP


def is_a_place(address: Address) -> bool:
    """Say whether an address is of one machine at all: not of many, and not of none."""
    inner = embedded(address) or address
    return not inner.is_multicast and not inner.is_unspecified and inner != IPv4Address(_LOW_32)
