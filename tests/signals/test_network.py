"""The network signals: range lists, AS numbers, precedence, what is refused in a list."""

from __future__ import annotations

import ipaddress
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import DataError, SettingError
from guardrail.model.facts import NETWORK_KINDS
from guardrail.signals import ClientNetworkSignal, NetworkSignal, Signal
from guardrail.signals.network import KINDS

NOW = 1_780_000_000


@pytest.fixture
def open_lists(tmp_path):
    """Return a function that writes lists, by their kind, to files and opens them."""

    def open_them(**lists: str) -> NetworkSignal:
        paths = {}
        for kind, text in lists.items():
            path = tmp_path / f"{kind}.txt"
            path.write_text(text, encoding="utf-8")
            paths[kind] = [path]
        return NetworkSignal.open(paths)

    return open_them


def test_every_kind_can_be_listed_but_other():
    assert {*KINDS, "other"} == set(NETWORK_KINDS)


def test_an_address_has_the_kind_of_the_list_it_is_on(open_lists):
    signal: Signal = open_lists(
        vpn="# exits\n5.0.0.0/24\n5.0.2.9  # one\n\n2a00:1::/32\n",
        hosting="6.0.0.0/8\r\n2a00:2::1\r\n",
    )

    def kind(ip: str) -> object:
        return signal.facts({"client.ip": ip}, NOW)["network.kind"]

    assert [kind(ip) for ip in ("5.0.0.0", "5.0.0.255", "5.0.2.9", "2a00:1:ffff::1")] == ["vpn"] * 4
    assert [kind(ip) for ip in ("6.0.0.0", "6.255.255.255", "2a00:2::1")] == ["hosting"] * 3
    assert [kind(ip) for ip in ("5.0.1.0", "5.0.2.8", "7.0.0.0", "2a00:2::2")] == ["other"] * 4
    assert signal.provides == {"network.kind"}
    assert signal.needs == {"client.ip"}


def test_the_first_and_the_last_addresses_can_be_listed(open_lists):
    signal = open_lists(tor="0.0.0.0/32\n255.255.255.255\n::/128\nff00::/8\n", vpn="0.0.0.0/0\n")

    assert signal.kind_of("0.0.0.0") == signal.kind_of("255.255.255.255") == "tor"
    assert signal.kind_of("0.0.0.1") == signal.kind_of("255.255.255.254") == "vpn"
    assert signal.kind_of("::") == signal.kind_of("ffff::") == "tor"
    assert signal.kind_of("fe00::") == "other"


def test_what_is_no_address_has_no_kind(open_lists):
    signal = open_lists(vpn="0.0.0.0/0\n::/0\n")

    for ip in ("", "unknown", "5.0.0.1:80", "5.1", "fe80::1%eth0", None, 5, b"5.0.0.1"):
        assert signal.facts({"client.ip": ip}, NOW) == {}
    assert signal.facts({}, NOW) == {}


@pytest.mark.parametrize("strong", range(len(KINDS) - 1))
def test_of_several_kinds_the_most_telling_holds(open_lists, strong):
    weaker, stronger = KINDS[strong + 1], KINDS[strong]
    wide_is_weak = open_lists(**{weaker: "5.0.0.0/8\n", stronger: "5.1.0.0/16\n"})
    wide_is_strong = open_lists(**{weaker: "5.1.0.0/16\n", stronger: "5.0.0.0/8\n"})

    assert wide_is_weak.kind_of("5.1.0.1") == wide_is_strong.kind_of("5.1.0.1") == stronger
    assert wide_is_weak.kind_of("5.2.0.1") == weaker
    assert wide_is_strong.kind_of("5.2.0.1") == stronger


def test_an_address_that_carries_another_is_on_the_lists_of_both(open_lists):
    signal = open_lists(vpn="5.0.0.0/8\n", hosting="2002::/16\n64:ff9b::/96\n::ffff:6.0.0.0/104\n")

    assert signal.kind_of("::ffff:5.1.2.3") == "vpn"
    assert signal.kind_of("64:ff9b::5.1.2.3") == signal.kind_of("2002:501:203::1") == "vpn"
    assert signal.kind_of("64:ff9b::7.1.2.3") == signal.kind_of("2002:701:203::1") == "hosting"
    assert signal.kind_of("6.1.2.3") == signal.kind_of("::ffff:6.1.2.3") == "hosting"
    assert signal.kind_of("::ffff:7.1.2.3") == "other"


def test_as_numbers_are_judged_where_a_list_names_them(open_lists):
    signal = open_lists(vpn="AS64496 # one\nas64497\n", hosting="5.0.0.0/8\nAS64497\n")

    assert signal.needs == {"client.ip", "geo.asn"}
    assert signal.kind_of("6.0.0.1", 64496) == "vpn"
    assert signal.kind_of("5.0.0.1", 64497) == "vpn"
    assert signal.kind_of("5.0.0.1", 64498) == "hosting"
    assert signal.kind_of("6.0.0.1", 64498) == "other"
    assert signal.facts({"client.ip": "6.0.0.1", "geo.asn": 64496}, NOW) == {"network.kind": "vpn"}


@pytest.mark.parametrize("asn", [None, "AS64496", 64496.0, True])
def test_an_unknown_as_number_leaves_the_kind_unknown_outside_the_ranges(open_lists, asn):
    signal = open_lists(vpn="AS64496\n", hosting="5.0.0.0/8\n")

    assert signal.facts({"client.ip": "6.0.0.1", "geo.asn": asn}, NOW) == {}
    assert signal.kind_of("5.0.0.1", asn) == "hosting"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5.0.0.0/33", "`5.0.0.0/33` has too long a prefix; write at most /32"),
        ("2a00::/129", "`2a00::/129` has too long a prefix; write at most /128"),
        ("5.0.0.1/8", "`5.0.0.1/8` has bits set beyond its prefix; write `5.0.0.0/8`"),
        ("2a00::1/16", "`2a00::1/16` has bits set beyond its prefix; write `2a00::/16`"),
        ("5.0.0/24", "`5.0.0/24` is not a network; write"),
        ("5.0.0.0/", "`5.0.0.0/` is not a network; write"),
        ("5.0.0.0/8/9", "`5.0.0.0/8/9` is not a network; write"),
        ("5.0.0.0/255.0.0.0", "is not a network; write"),
        ("5.0.0.0/-1", "is not a network; write"),
        ("5.0.0.0/٨", "is not a network; write"),
        ("05.0.0.0/8", "is not a network; write"),
        ("5.0.0.1-5.0.0.9", "is not a network; write"),
        ("fe80::1%eth0", "is not a network; write"),
        ("<html>", "is not a network; write"),
        ("AS", "is not a network; write"),
        ("AS12x", "is not a network; write"),
        ("AS0", "`AS0` is no AS number; write AS1 to AS4294967294"),
        ("AS4294967295", "is no AS number"),
        ("AS" + "9" * 5000, "is not a network"),
    ],
)
def test_a_line_that_is_no_network_is_refused_with_its_place(open_lists, line, message):
    with pytest.raises(DataError) as caught:
        open_lists(vpn=f"5.0.0.0/8\n# comment\n{line}\n")

    assert "vpn.txt:3: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing today\n"])
def test_a_list_of_nothing_is_refused(open_lists, text):
    with pytest.raises(DataError, match=r"vpn\.txt` lists nothing; fetch it again or leave it out"):
        open_lists(vpn=text)


def test_files_that_are_no_lists_are_refused_by_name(tmp_path):
    (tmp_path / "packed.gz").write_bytes(b"\x1f\x8b\x08\x00\xff\xfe")

    with pytest.raises(DataError, match=r"lost\.txt`: no such file or directory; check the path"):
        NetworkSignal.open({"vpn": [tmp_path / "lost.txt"]})
    with pytest.raises(DataError, match=r"packed\.gz` is not text"):
        NetworkSignal.open({"vpn": [tmp_path / "packed.gz"]})


@pytest.mark.parametrize(
    ("kind", "hint"),
    [("hostng", "did you mean `hosting`?"), ("other", "write one of tor, vpn"), ("VPN!", "write")],
)
def test_a_kind_that_no_list_can_give_is_refused(tmp_path, kind, hint):
    with pytest.raises(SettingError) as caught:
        NetworkSignal.open({kind: [tmp_path / "list.txt"]})

    assert f"`{kind}` is not a kind of network" in str(caught.value)
    assert hint in str(caught.value)


def test_sources_name_the_lists_and_their_days(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("﻿5.0.0.0/8\n", encoding="utf-8")
        os.utime(tmp_path / name, (NOW, NOW))

    signal = NetworkSignal.open({"tor": [tmp_path / "a.txt"], "vpn": [str(tmp_path / "b.txt")]})

    assert signal.sources == ("a.txt 2026-05-28", "b.txt 2026-05-28")


def _networks(version: int, base: str) -> st.SearchStrategy[str]:
    width = 32 if version == 4 else 128
    return st.builds(
        lambda address, bits: str(ipaddress.ip_network((address, width - bits), strict=False)),
        st.ip_addresses(network=base),
        st.integers(0, 9),
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.one_of(_networks(4, "5.0.0.0/23"), _networks(6, "2a00::/119")),
        ),
        min_size=1,
        max_size=12,
    ),
    st.lists(
        st.one_of(st.ip_addresses(network="5.0.0.0/22"), st.ip_addresses(network="2a00::/118")),
        max_size=20,
    ),
)
def test_the_look_up_agrees_with_a_search_through_every_line(tmp_path_factory, lines, addresses):
    folder = tmp_path_factory.mktemp("lists")
    lists: dict[str, list[str]] = {}
    for number, (kind, network) in enumerate(lines):
        (folder / f"{number}.txt").write_text(network)
        lists.setdefault(kind, []).append(str(folder / f"{number}.txt"))
    edges = [
        edge
        for _, network in lines
        for edge in (ipaddress.ip_network(network)[0], ipaddress.ip_network(network)[-1])
    ]
    signal = NetworkSignal.open(lists)

    for address in [*addresses, *edges, *(edge + 1 for edge in edges), *(e - 1 for e in edges)]:
        listed = {kind for kind, network in lines if address in ipaddress.ip_network(network)}
        expected = next((kind for kind in KINDS if kind in listed), "other")

        assert signal.kind_of(str(address)) == expected


def test_the_network_of_a_client_is_established_from_its_address():
    signal: Signal = ClientNetworkSignal()

    assert signal.provides == {"client.network"}
    assert signal.needs == {"client.ip"}
    assert signal.sources == ()
    assert signal.facts({"client.ip": "5.1.2.3"}, NOW) == {"client.network": "5.1.2.3"}
    assert signal.facts({"client.ip": "::ffff:5.1.2.3"}, NOW) == {"client.network": "5.1.2.3"}
    assert signal.facts({"client.ip": "2a00:1:2:3:4::5"}, NOW) == {
        "client.network": "2a00:1:2:3::/64"
    }
    assert signal.facts({"client.ip": "unknown"}, NOW) == signal.facts({}, NOW) == {}
