"""Hosts in one spelling, and which addresses they may turn out to have."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureworker.core.addresses import (
    BadHost,
    HostPort,
    parse_address,
    parse_host,
    parse_host_port,
    why_not,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.com:443", HostPort("example.com", 443)),
        ("EXAMPLE.com:443", HostPort("example.com", 443)),
        ("xn--bcher-kva.example:1", HostPort("xn--bcher-kva.example", 1)),
        ("localhost:65535", HostPort("localhost", 65535)),
        ("10.0.0.1:80", HostPort("10.0.0.1", 80)),
        ("[::1]:80", HostPort("::1", 80)),
        ("[2001:DB8::1]:80", HostPort("2001:db8::1", 80)),
    ],
)
def test_a_host_and_port_are_read(text: str, expected: HostPort) -> None:
    assert parse_host_port(text) == expected
    assert str(expected) == text.lower()


def test_a_port_may_be_left_out_where_there_is_a_usual_one() -> None:
    assert parse_host_port("a.example", 80) == HostPort("a.example", 80)
    assert parse_host_port("[::1]", 80) == HostPort("::1", 80)
    with pytest.raises(BadHost):
        parse_host_port("a.example:", 80)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "example.com",
        "example.com:",
        "example.com:0",
        "example.com:00443",
        "example.com:65536",
        "example.com:443:443",
        "example.com:+443",
        "example.com:\uff14\uff14\uff13",
        "example.com.:443",
        ".example.com:443",
        "example..com:443",
        "*.example.com:443",
        "-a.example:443",
        "a-.example:443",
        "a_b.example:443",
        "user@example.com:443",
        "user:pass@example.com:443",
        "example.com:443@elsewhere:443",
        "exämple.com:443",
        "example.com\x00:443",
        "example.com\n:443",
        " example.com:443",
        "127.1:443",
        "0177.0.0.1:443",
        "0x7f.0.0.1:443",
        "0x7f000001:443",
        "2130706433:443",
        "127.0.0.01:443",
        "127.0.0.1.:443",
        "1.2.3.4.5:443",
        "example.0x1:443",
        "::1:443",
        "[::1:443",
        "[::1]443",
        "[::1]",
        "[]:443",
        "[127.0.0.1]:443",
        "[::ffff:127.0.0.1]:443",
        "[::ffff:7f00:1]:443",
        "[0:0:0:0:0:0:0:1]:443",
        "[fe80::1%eth0]:443",
        "[fe80::1%25eth0]:443",
        "a" * 64 + ".example:443",
        "a." * 127 + "aa:443",
    ],
)
def test_every_other_spelling_of_a_host_is_refused(text: str) -> None:
    with pytest.raises(BadHost):
        parse_host_port(text)


@given(st.text())
def test_whatever_is_written_is_a_host_in_lower_case_or_refused(text: str) -> None:
    try:
        place = parse_host_port(text)
    except BadHost:
        return
    assert parse_host(place.host) == place.host == place.host.lower()
    assert parse_host_port(str(place)) == place


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "127.0.0.1", "100.64.0.1", "192.168.0.1", "::1", "fd00::1", "::ffff:10.1.1.1"]
)
def test_an_internal_name_may_be_private_or_this_host(text: str) -> None:
    assert why_not(ip_address(text), "a.internal", internal=True) == ""


def test_a_policy_may_name_any_single_address() -> None:
    address = ip_address("169.254.169.254")
    assert why_not(address, "169.254.169.254", internal=True) == ""
    assert why_not(address, "169.254.169.254", internal=False)
    assert why_not(address, "169.254.169.253", internal=True)
    assert why_not(ip_address("224.0.0.1"), "224.0.0.1", internal=True)


def test_an_address_has_one_form() -> None:
    assert parse_address("::1") is not None
    assert [parse_address(text) for text in ("0::1", "::0001", "a.example", "1.2.3", "")] == [None] * 5
