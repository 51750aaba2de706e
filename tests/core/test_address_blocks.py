"""What blocks of addresses are for, by tables that do not change with the release of Python."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.address_blocks import is_a_sites_own, is_global, is_metadata
from secureworker.core.addresses import why_not

GLOBAL = [
    "1.1.1.1", "8.8.8.8", "93.184.216.34", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0",
    "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0",
    "192.0.3.0", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "223.255.255.255", "2001:200::1", "2001:db7::1", "2001:db9::1", "2606:4700::1111",
    "2a00:1450::1", "2003::1", "3ffd::1", "64:ff9b::808:808", "::ffff:8.8.8.8",
]  # fmt: skip
"""Those at the edges of the blocks that are not, too."""
METADATA = [
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.0.23", "169.254.0.0", "169.254.255.255",
    "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd00:ec2::23", "fd00:ec2:ffff::1",
    "fd00:c1::a9fe:a9fe", "fd00:42::42", "fd20:ce::254", "fd20:ce:1::1", "fd00:a9fe:a9fe::1", "fe80::1",
    "fe80::a9fe:a9fe",
    "fe80::1%eth0", "fd12:3456::a9fe:a9fe", "2001:67c::a9fe:a9fe", "::ffff:169.254.169.254", "::ffff:100.100.100.200",
    "64:ff9b::a9fe:a9fe", "64:ff9b::6464:64c8", "64:ff9b::a83f:8110", "64:ff9b:1::a9fe:a9fe",
]  # fmt: skip
OTHERS = [
    "0.0.0.0", "0.1.2.3", "192.0.0.1", "192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.170", "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1", "192.88.99.1", "192.88.99.2", "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::127.0.0.1", "::808:808",
    "::ffff:0:127.0.0.1", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808", "100::1", "100:0:0:1::1", "2001::1", "2001:1::1",
    "2001:0:7f00:1::1", "2001:2::1", "2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1", "2001:30::1",
    "2001:db8::1",
    "2002:7f00:1::1", "2002:808:808::1", "2620:4f:8000::1", "3ffe::1", "3fff::1", "3fff:fff::1", "4000::1", "5f00::1",
    "8000::1", "fec0::1", "ff02::1", "ff0e::1", "fd00::5efe:7f00:1", "fd00::200:5efe:808:808", "2a00::5efe:7f00:1",
    "fd00::1%eth0", "2a00::1%eth0", "64:ff9b::", "64:ff9b::e000:1",
]  # fmt: skip
"""Neither public nor a site's own."""
SITES = [
    "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.199", "100.127.255.255", "127.0.0.1", "127.255.255.254",
    "172.16.0.1", "172.31.255.255", "192.168.1.1", "::1", "fc00::1", "fd00::1", "fd00:ec1::1", "fd00:c2::1", "fdff::1",
    "::ffff:10.1.1.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
]  # fmt: skip


@pytest.mark.parametrize("text", GLOBAL)
def test_addresses_of_the_internet_are_open_to_every_name(text: str) -> None:
    assert is_global(ip_address(text))
    assert not is_metadata(ip_address(text))
    assert not is_a_sites_own(ip_address(text))
    assert why_not(ip_address(text), "a.example", internal=False) == ""


@pytest.mark.parametrize("text", [*METADATA, *OTHERS, *SITES])
def test_other_addresses_are_refused_whatever_form_they_take(text: str) -> None:
    assert not is_global(ip_address(text))
    assert why_not(ip_address(text), "a.example", internal=False)


@pytest.mark.parametrize("text", SITES)
def test_an_internal_name_may_be_private_or_this_host(text: str) -> None:
    assert is_a_sites_own(ip_address(text))
    assert why_not(ip_address(text), "a.internal", internal=True) == ""


@pytest.mark.parametrize("text", METADATA)
def test_an_internal_name_is_never_a_metadata_service(text: str) -> None:
    assert is_metadata(ip_address(text))
    assert not is_a_sites_own(ip_address(text))
    assert why_not(ip_address(text), "a.internal", internal=True)


@pytest.mark.parametrize("text", OTHERS)
def test_an_internal_name_is_nothing_special(text: str) -> None:
    assert not is_a_sites_own(ip_address(text))
    assert why_not(ip_address(text), "a.internal", internal=True)


@given(st.integers(0, 2**32 - 1))
def test_no_more_ipv4_addresses_are_global_than_for_the_interpreter(number: int) -> None:
    address = IPv4Address(number)
    assert not is_global(address) or address.is_global


@given(st.integers(0, 2**128 - 1))
def test_no_more_ipv6_addresses_are_global_than_for_the_interpreter(number: int) -> None:
    address = IPv6Address(number)
    assert not is_global(address) or address.is_global


@given(st.integers(0, 2**128 - 1) | st.integers(0, 2**32 - 1).map(lambda low: (0xFD << 120) | low))
def test_every_ipv6_address_is_one_of_public_private_or_shut(number: int) -> None:
    address = IPv6Address(number)
    assert sum((is_global(address), is_a_sites_own(address), is_metadata(address))) <= 1


@given(st.integers(0, 2**32 - 1), st.sampled_from([0xFFFF << 32, 0x0064_FF9B << 96]))
def test_an_ipv4_address_in_ipv6_is_judged_as_the_one_it_is(number: int, around: int) -> None:
    plain, inside = IPv4Address(number), IPv6Address(around | number)
    for internal in (False, True):
        assert why_not(inside, "a.example", internal=internal) == why_not(plain, "a.example", internal=internal)
