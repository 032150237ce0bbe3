"""The address of a client: from the right, through declared proxies, never from anyone else."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guardrail.errors import SettingError
from guardrail.signals import ClientAddress, Proxies, client_address
from guardrail.signals.addresses import network_of
from guardrail.signals.client import pieces
from tests.effort import lines_of

TRUSTED = ("10.0.0.0/8", "127.0.0.0/8", "::1")
XFF = Proxies.declare(TRUSTED)
FORWARDED = Proxies.declare(TRUSTED, "forwarded")
CLOUD = Proxies.declare(TRUSTED, "CF-Connecting-IP")


def xff(*lines: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", line.encode()) for line in lines]


def seen(peer: str | None, headers: list[tuple[bytes, bytes]], proxies: Proxies = XFF) -> object:
    return client_address(peer, headers, proxies).ip


VECTORS = {
    "01 header of a stranger": ("203.0.113.9", xff("1.2.3.4"), XFF, "203.0.113.9"),
    "02 forged left entry": ("10.0.0.2", xff("6.6.6.6, 198.51.100.7"), XFF, "198.51.100.7"),
    "03 two lines": (
        "10.0.0.2",
        xff("6.6.6.6", "198.51.100.7, 10.0.0.3"),
        XFF,
        "198.51.100.7",
    ),
    "04 mapped peer": ("::ffff:10.0.0.2", xff("198.51.100.7"), XFF, "198.51.100.7"),
    "05 mapped hop": ("10.0.0.2", xff("198.51.100.7, ::ffff:10.0.0.3"), XFF, "198.51.100.7"),
    "06 ports": ("10.0.0.2", xff("198.51.100.7:5678, 10.0.0.3:99"), XFF, "198.51.100.7"),
    "07 brackets": ("10.0.0.2", xff("[2001:db8:1:2::abcd]:443"), XFF, "2001:db8:1:2::abcd"),
    "08 unknown": ("10.0.0.2", xff("unknown, 10.0.0.3"), XFF, None),
    "09 empty element": ("10.0.0.2", xff("198.51.100.7,, 10.0.0.3"), XFF, "198.51.100.7"),
    "10 empty header": ("10.0.0.2", xff(""), XFF, "10.0.0.2"),
    "10 lone comma": ("10.0.0.2", xff(","), XFF, "10.0.0.2"),
    "11 all trusted": ("10.0.0.2", xff("10.0.0.9, 10.0.0.3"), XFF, "10.0.0.9"),
    "12 underscores": ("10.0.0.2", [(b"X_Forwarded_For", b"6.6.6.6")], XFF, "10.0.0.2"),
    "13 forwarded": (
        "10.0.0.2",
        [(b"Forwarded", b'for="[2001:db8:cafe::17]:4711", for=198.51.100.7')],
        FORWARDED,
        "198.51.100.7",
    ),
    "14 hidden": ("10.0.0.2", [(b"forwarded", b"for=_gazonk")], FORWARDED, None),
    "15 named header of a stranger": (
        "203.0.113.9",
        [(b"cf-connecting-ip", b"1.2.3.4")],
        CLOUD,
        "203.0.113.9",
    ),
    "16 no peer": (None, [], XFF, None),
    "17 long": (
        "10.0.0.2",
        xff("6.6.6.6, " * 50_000 + "198.51.100.7, 10.0.0.3"),
        XFF,
        "198.51.100.7",
    ),
}


@pytest.mark.parametrize(("peer", "headers", "proxies", "client"), VECTORS.values(), ids=VECTORS)
def test_the_client_is_the_first_stranger_from_the_right(peer, headers, proxies, client):
    assert seen(peer, headers, proxies) == client


def test_limits_go_by_the_last_certain_hop_where_the_client_is_unknown():
    found = client_address("10.0.0.2", xff("unknown, 10.0.0.3"), XFF)

    assert found.hop == "10.0.0.3"
    assert found.facts() == {"client.network": "10.0.0.3"}
    assert found.note is not None
    assert "x-forwarded-for" in found.note


def test_the_limit_key_of_an_ipv6_client_is_its_64():
    facts = client_address("10.0.0.2", xff("[2001:db8:1:2::abcd]:443"), XFF).facts()

    assert facts == {"client.ip": "2001:db8:1:2::abcd"}
    assert network_of(facts["client.ip"]) == "2001:db8:1:2::/64"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("\t198.51.100.7 ", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("[::ffff:198.51.100.7]:1", "198.51.100.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("fe80::7%eth0", "fe80::7"),
        ("[fe80::7%25eth0]:80", "fe80::7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("198.51.100.7:", None),
        ("198.51.100.7:123456", None),
        ("198.51.100.7:80:80", None),
        ("198.51.100.7%eth0", None),
        ("[198.51.100.7]", None),
        ("[2001:db8::7", None),
        ("2001:db8::7]", None),
        ("[2001:db8::7]80", None),
        ("[2001:db8::7]:x", None),
        ("0198.51.100.7", None),
        ("0x7f.0.0.1", None),
        ("2130706433", None),
        ("127.1", None),
        ("\uff11\uff19\uff18.51.100.7", None),
        ("198.51.100.7\x00", None),
        ("198.51.100.7 6.6.6.6", None),
        ('"198.51.100.7"', None),
        ("for=198.51.100.7", None),
        ("_hidden", None),
        ("localhost", None),
        ("9" * 100_000, None),
    ],
)
def test_one_parser_reads_what_proxies_write_and_nothing_else(text, address):
    assert seen("10.0.0.2", xff(text)) == address


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("for=198.51.100.7", "198.51.100.7"),
        ("For=198.51.100.7; proto=https;by=10.0.0.2", "198.51.100.7"),
        ('proto=https;for="198.51.100.7:80"', "198.51.100.7"),
        ('for="[2001:db8::7]:80"', "2001:db8::7"),
        ("for=[2001:db8::7]:80", "2001:db8::7"),
        (r'for="198.51\.100.7"', "198.51.100.7"),
        ('for=6.6.6.6, for=198.51.100.7;host="a,b;c", for=10.0.0.3', "198.51.100.7"),
        # What the client left open cannot swallow what a proxy appended.
        ('for="6.6.6.6, for=198.51.100.7', "198.51.100.7"),
        ('for=6.6.6.6, for="evil, for=198.51.100.7;by="x"', "198.51.100.7"),
        ("for=198.51.100.7;for=6.6.6.6", None),
        ("proto=https", None),
        ("for=unknown", None),
        ("for=", None),
        ("198.51.100.7", None),
        ('for="198.51.100.7', None),
        ("for=198.51.100.7 for=6.6.6.6", None),
        ("for=6.6.6.6;" + "a=b;" * 10_000, None),
    ],
)
def test_forwarded_is_read_as_its_standard_says(line, address):
    assert seen("10.0.0.2", [(b"forwarded", line.encode())], FORWARDED) == address


def test_only_the_chosen_header_is_read():
    others = [*xff("6.6.6.6"), (b"forwarded", b"for=6.6.6.6"), (b"x-real-ip", b"6.6.6.6")]
    chosen = [(b"CF-connecting-IP", b"198.51.100.7")]

    assert seen("10.0.0.2", [*others, *chosen], CLOUD) == "198.51.100.7"
    assert seen("10.0.0.2", others, CLOUD) == "10.0.0.2"


@pytest.mark.parametrize("proxies", [XFF, FORWARDED], ids=["xff", "forwarded"])
@pytest.mark.parametrize("filler", ["6.6.6.6,", ",", "10.0.0.3,", '"', '",', "\\,"])
def test_a_long_header_costs_little_whatever_it_is_made_of(proxies, filler):
    def of(many):
        return client_address("10.0.0.2", [(proxies.header, filler.encode() * many)], proxies)

    assert lines_of(lambda: of(500_000)) <= lines_of(lambda: of(5_000)) + 100
    assert of(500_000).ip != "10.0.0.2"


def test_a_request_through_too_many_proxies_has_no_address():
    few = Proxies.declare(TRUSTED, most_hops=3)

    assert seen("10.0.0.2", xff("198.51.100.7, 10.0.0.5, 10.0.0.4, 10.0.0.3"), few) == (
        "198.51.100.7"
    )
    far = client_address("10.0.0.2", xff("198.51.100.7" + ", 10.0.0.3" * 5), few)
    assert (far.ip, far.hop) == (None, "10.0.0.3")


@pytest.mark.parametrize("peer", ["10.0.0.2", "192.168.1.1", "::1", "fe80::1%eth0", "127.0.0.1"])
def test_a_private_peer_without_declared_proxies_yields_nothing_and_warns(peer):
    found = client_address(peer, xff("198.51.100.7"), Proxies())

    assert found.facts() == {}
    assert found.note is not None
    assert "no proxy is declared" in found.note


def test_a_public_peer_without_declared_proxies_is_the_client():
    assert client_address("8.8.8.8", xff("198.51.100.7"), Proxies()) == ("8.8.8.8", "8.8.8.8", None)


@pytest.mark.parametrize("peer", ["testclient", "", "/run/app.sock", "10.0.0.2:80"])
def test_a_peer_that_is_no_address_is_none(peer):
    assert client_address(peer, xff("198.51.100.7"), XFF) == ClientAddress(None)


def test_the_peer_of_a_unix_socket_can_be_declared_a_proxy():
    unix = Proxies.declare(["unix", "10.0.0.0/8"])

    assert seen(None, xff("6.6.6.6, 198.51.100.7, 10.0.0.3"), unix) == "198.51.100.7"
    assert seen(None, [], unix) is None
    assert seen("203.0.113.9", xff("6.6.6.6"), unix) == "203.0.113.9"


def test_an_address_that_only_translates_to_a_proxys_is_no_proxy():
    for peer in ("64:ff9b::10.0.0.2", "2002:a00:2::1"):
        assert seen(peer, xff("6.6.6.6")) == peer.replace("10.0.0.2", "a00:2")


@pytest.mark.parametrize(
    ("trusted", "message"),
    [
        (["10.0.0.0/33"], "`10.0.0.0/33` is not the network of a proxy; write"),
        (["10.0.0.1/8"], "has bits set beyond its prefix; write `10.0.0.0/8`"),
        (["*"], "`*` is not the network of a proxy"),
        (["proxy.internal"], "is not the network of a proxy"),
        (["0.0.0.0/0"], "the trusted proxies are every address"),
        (["::/1", "8000::/1"], "the trusted proxies are every address"),
        (["fe80::1%eth0/64"], "is not the network of a proxy"),
    ],
)
def test_a_trust_that_cannot_be_meant_is_refused(trusted, message):
    with pytest.raises(SettingError) as caught:
        Proxies.declare(trusted)

    assert message in str(caught.value)


@pytest.mark.parametrize("header", ["", "x forwarded", "für", "x:y"])
def test_a_header_that_cannot_be_is_refused(header):
    with pytest.raises(SettingError, match="is not the name of a header"):
        Proxies.declare(TRUSTED, header)


ELEMENTS = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(network="10.0.0.0/8").map(str),
    st.ip_addresses(v=4).map(lambda ip: f"::ffff:{ip}"),
    st.sampled_from(["", " ", "unknown", "::1"]),
)


def _expected(peer: str, lines: list[list[str]]) -> object:
    """Walk a list of all elements, as the algorithm is written down."""
    trusted = [ipaddress.ip_network(network) for network in TRUSTED]

    def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        found = ipaddress.ip_address(text)
        return getattr(found, "ipv4_mapped", None) or found

    last = address(peer)
    left = [text.strip() for line in lines for text in line if text.strip()]
    while any(last.version == network.version and last in network for network in trusted):
        if not left:
            break
        try:
            last = address(left.pop())
        except ValueError:
            return None
    return last


@given(st.lists(st.lists(ELEMENTS, max_size=5), max_size=4), ELEMENTS.filter(lambda e: e.strip()))
@example([["6.6.6.6"], []], "10.0.0.1")
def test_the_walk_agrees_with_a_list_of_all_elements(lines, peer):
    found = client_address(peer, xff(*(",".join(line) for line in lines)), XFF).ip
    if peer == "unknown":
        assert found is None
        return
    expected = _expected(peer, lines)

    assert (None if found is None else ipaddress.ip_address(found)) == expected


@given(st.binary(max_size=60), st.sampled_from([XFF, FORWARDED]))
def test_any_bytes_give_an_address_or_none(line, proxies):
    found = client_address("10.0.0.2", [(proxies.header, line)], proxies)

    for text in (found.ip, found.hop):
        assert text is None or str(ipaddress.ip_address(text))


@given(st.text("a, \t", max_size=12))
@example("")
@example(",a")
def test_the_elements_of_a_line_are_read_from_the_right_the_empty_ones_too(line):
    elements = line.encode().split(b",")

    assert list(pieces(line.encode())) == [element.strip(b" \t") for element in reversed(elements)]
