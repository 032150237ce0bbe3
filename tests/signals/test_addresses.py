"""Addresses: what is one, which IPv4 address one carries, which are public, whose network."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guardrail.signals.addresses import (
    SPECIAL_V4,
    SPECIAL_V6,
    is_public,
    network_of,
    parse,
    text_of,
    unwrap,
)

ADDRESSES = st.one_of(
    st.ip_addresses(v=4),
    st.ip_addresses(v=6),
    *(st.ip_addresses(network=block) for block in ("2001::/16", "2002::/16", "64:ff9b::/96")),
    *(st.ip_addresses(network=block) for block in ("::ffff:0:0/96", "3f00::/8", "192.0.0.0/8")),
)

NOT_ADDRESSES = [
    "",
    " ",
    "unknown",
    "_hidden",
    "localhost",
    "8.8.8.8:53",
    "[2001:4860::1]",
    "[2001:4860::1]:443",
    "fe80::1%eth0",
    "2001:4860:4860::8888%1",
    "8.8.8.8/32",
    "8.8.8.8 ",
    " 8.8.8.8",
    "8.8.8.8\n",
    "8.8.8.8\0",
    "8.8",
    "134744072",
    "0x8080808",
    "010.8.8.8",
    "8.8.8.256",
    "8.8.8.8.8",
    "::1::",
    "1:2:3:4:5:6:7:8:9",
    "٨.٨.٨.٨",
    "\ud800",
    "9" * 100_000,
    ":" * 100_000,
    None,
    134744072,
    b"8.8.8.8",
    ["8.8.8.8"],
    {"ip": "8.8.8.8"},
    float("nan"),
    True,
]


@pytest.mark.parametrize("text", NOT_ADDRESSES, ids=lambda text: repr(text)[:30])
def test_what_is_not_in_standard_notation_is_no_address(text):
    assert parse(text) is None
    assert network_of(text) is None


@given(ADDRESSES)
def test_parsing_agrees_with_the_standard_library(address):
    assert parse(str(address)) == address.packed
    assert parse(address.exploded) == address.packed
    assert parse(text_of(address.packed)) == address.packed


@given(st.text(alphabet="0123456789abcdef:.%/[] x", max_size=45))
def test_text_is_an_address_where_the_standard_library_takes_it_for_one(text):
    try:
        expected = ipaddress.ip_address(text).packed
    except ValueError:
        expected = None

    assert parse(text) == (None if "%" in text else expected)


@pytest.mark.parametrize(
    ("text", "carried"),
    [
        ("::ffff:8.8.8.8", "8.8.8.8"),
        ("::ffff:808:808", "8.8.8.8"),
        ("64:ff9b::8.8.8.8", "8.8.8.8"),
        ("2002:808:808::1", "8.8.8.8"),
        ("2002:808:808:ffff:ffff:ffff:ffff:ffff", "8.8.8.8"),
        ("::8.8.8.8", "::8.8.8.8"),
        ("64:ff9b:1::8.8.8.8", "64:ff9b:1::808:808"),
        ("::ffff:0:8.8.8.8", "::ffff:0:808:808"),
        ("2001:0:808:808::1", "2001:0:808:808::1"),
        ("8.8.8.8", "8.8.8.8"),
    ],
)
def test_only_mapped_nat64_and_6to4_addresses_carry_another(text, carried):
    address = parse(text)

    assert address is not None
    assert unwrap(address) == parse(carried)


@given(ADDRESSES)
@example(ipaddress.ip_address("192.88.99.1"))
def test_what_is_public_is_global_to_the_standard_library(address):
    judged = ipaddress.ip_address(unwrap(address.packed))
    # It counts a few anycast addresses of protocols, and what came before 6to4's end, as global.
    exceptions = [
        ipaddress.ip_network(block)
        for block in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20", "224.0.0.0/4")
    ]
    outside_unicast = judged.version == 6 and judged not in ipaddress.ip_network("2000::/3")

    if outside_unicast or any(judged in block for block in exceptions):
        assert not is_public(judged.packed)
    else:
        assert is_public(judged.packed) == judged.is_global


@given(ADDRESSES)
def test_first_bytes_that_are_not_special_need_no_second_look(address):
    table = SPECIAL_V4 if address.version == 4 else SPECIAL_V6

    if not table[address.packed[0]]:
        assert is_public(address.packed)
        assert unwrap(address.packed) == address.packed


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("64:ff9b::198.51.100.7", "198.51.100.7"),
        ("2002:c633:6407:1::1", "198.51.100.7"),
        ("2001:db8:1:2::abcd", "2001:db8:1:2::/64"),
        ("2001:0DB8:0001:0002:ffff:0:0:1", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
    ],
)
def test_the_network_is_the_ipv4_address_or_the_ipv6_64(text, network):
    assert network_of(text) == network


@given(ADDRESSES, st.integers(0, 2**64 - 1))
def test_all_addresses_of_a_64_are_one_network(address, host):
    if len(unwrap(address.packed)) == 16:
        neighbour = ipaddress.ip_address(address.packed[:8] + host.to_bytes(8, "big"))
        network = network_of(str(address))

        assert network is not None
        assert ipaddress.ip_network(network).prefixlen == 64
        assert neighbour in ipaddress.ip_network(network)
        if len(unwrap(neighbour.packed)) == 16:
            assert network_of(str(neighbour)) == network
