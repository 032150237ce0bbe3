"""The geo signal: record layouts, codes, address traps, the embedded database."""

from __future__ import annotations

import pytest

from guardrail.model.facts import COUNTRIES
from guardrail.signals import Signal
from guardrail.signals.geo import EMBEDDED, GeoSignal

BUILT = 1_780_000_000  # what `write_database` dates its files
EVERYWHERE = {"::/1": "AU", "8000::/1": "AU"}
ASNS = {"8.8.8.0/24": {"autonomous_system_number": 15169}}


def country(signal: GeoSignal, ip: object) -> object:
    """Return the country that a signal establishes, or None."""
    return signal.facts({"client.ip": ip}, BUILT).get("geo.country")


@pytest.mark.parametrize(
    "record",
    [
        {"country": {"iso_code": "DE", "names": {"en": "Germany"}}, "continent": {"code": "EU"}},
        {"country_code": "DE"},
        {"country_code": "DE", "country": "Germany", "continent_code": "EU"},
        {"country": "DE", "country_name": "Germany"},
        "DE",
    ],
)
@pytest.mark.usefixtures("either_reader")
def test_every_record_layout_is_understood(write_database, record):
    signal = GeoSignal.open(write_database({"5.0.0.0/8": record, "2a00::/16": record}))

    assert country(signal, "5.1.2.3") == "DE"
    assert country(signal, "2a00::1") == "DE"
    assert country(signal, "6.1.2.3") is None
    assert country(signal, "2b00::1") is None
    assert signal.country_of("5.1.2.3", BUILT) == "DE"


@pytest.mark.usefixtures("either_reader")
def test_a_database_that_knows_regions_establishes_them(write_database):
    california = {"country": {"iso_code": "US"}, "subdivisions": [{"iso_code": "CA"}]}
    path = write_database(
        {
            "5.0.0.0/8": california,
            "6.0.0.0/8": {"country": {"iso_code": "DE"}},
            "7.0.0.0/8": {"country": {"iso_code": "US"}, "subdivisions": []},
            "9.0.0.0/8": {"country": {"iso_code": "US"}, "subdivisions": [{"iso_code": "c?"}]},
        }
    )
    signal = GeoSignal.open(path)

    assert "geo.region" in signal.provides
    regions = [
        signal.facts({"client.ip": ip}, BUILT).get("geo.region")
        for ip in ("5.1.2.3", "6.1.2.3", "7.1.2.3", "9.1.2.3", "10.1.2.3")
    ]
    assert regions == ["US-CA", None, None, None, None]


def test_a_database_of_countries_alone_establishes_no_region(write_database):
    for signal in (GeoSignal.open(write_database({"5.0.0.0/8": "DE"})), GeoSignal.open()):
        assert "geo.region" not in signal.provides
        assert "geo.region" not in signal.facts({"client.ip": "5.1.2.3"}, BUILT)


def test_where_a_network_is_registered_is_not_where_it_is(write_database):
    path = write_database(
        {
            "5.0.0.0/8": {"country": {"iso_code": "DE"}},
            "6.0.0.0/8": {"registered_country": {"iso_code": "US"}},
            "7.0.0.0/8": {"country": {"names": {"en": "Nowhere"}}},
        }
    )

    signal = GeoSignal.open(path)

    assert country(signal, "6.1.2.3") is None
    assert country(signal, "7.1.2.3") is None


@pytest.mark.parametrize("layout", ["bare", "nested", "flat"])
@pytest.mark.parametrize(
    "code",
    ["None", "EU", "AP", "??", "ZZ", "XX", "UK", "A1", "", "de", "DEU", 49, ["DE"], {}, True],
)
def test_codes_that_are_no_countries_are_no_countries(write_database, layout, code):
    def record(value: object) -> object:
        return {"bare": value, "nested": {"country": {"iso_code": value}}}.get(
            layout, {"country_code": value}
        )

    signal = GeoSignal.open(write_database({"5.0.0.0/8": record("DE"), "6.0.0.0/8": record(code)}))

    assert country(signal, "5.1.2.3") == "DE"
    assert country(signal, "6.1.2.3") is None


SPECIAL = [
    "0.1.2.3",
    "10.1.2.3",
    "100.64.1.1",
    "100.127.255.255",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::8.8.8.8",
    "::ffff:10.1.2.3",
    "64:ff9b::192.168.1.1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:a01:203::1",
    "2002:7f00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "ff02::1",
]


@pytest.mark.parametrize("ip", SPECIAL)
def test_special_addresses_have_no_country_whatever_the_database_says(write_database, ip):
    signal = GeoSignal.open(write_database(EVERYWHERE))

    assert country(signal, "8.8.8.8") == "AU"
    assert country(signal, "2a00::1") == "AU"
    assert country(signal, ip) is None


@pytest.mark.parametrize(
    "ip",
    [
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2001:db7:ffff::1",
        "2001:db9::1",
        "3fff:1000::1",
        "2000::1",
    ],
)
def test_addresses_beside_special_ones_have_their_country(write_database, ip):
    assert country(GeoSignal.open(write_database(EVERYWHERE)), ip) == "AU"


@pytest.mark.parametrize(
    "ip", ["::ffff:5.1.2.3", "::ffff:501:203", "64:ff9b::5.1.2.3", "2002:501:203::1"]
)
@pytest.mark.parametrize("ip_version", [4, 6])
@pytest.mark.usefixtures("either_reader")
def test_an_address_that_carries_an_ipv4_address_is_where_that_is(write_database, ip, ip_version):
    signal = GeoSignal.open(write_database({"5.0.0.0/8": "DE"}, ip_version=ip_version))

    assert country(signal, ip) == "DE"


@pytest.mark.usefixtures("either_reader")
def test_a_database_of_ipv4_alone_knows_no_ipv6(write_database):
    signal = GeoSignal.open(write_database({"5.0.0.0/8": "DE"}, ip_version=4))

    assert country(signal, "5.1.2.3") == "DE"
    assert country(signal, "2a00::1") is None


@pytest.mark.usefixtures("either_reader")
def test_a_database_of_ipv6_alone_knows_no_ipv4(write_database):
    signal = GeoSignal.open(write_database({"2a00::/16": "DE"}))

    assert country(signal, "2a00::1") == "DE"
    assert country(signal, "5.1.2.3") is None


@pytest.mark.parametrize(
    "ip",
    [
        *(
            "",
            "unknown",
            "8.8.8.8:53",
            "[2a00::1]",
            "2a00::1%eth0",
            "8.8",
            "134744072",
            "010.8.8.8",
        ),
        *("8.8.8.8\0", "\ud800", ":", "%", "9" * 10_000, None, 134744072, b"8.8.8.8", ["8.8.8.8"]),
    ],
    ids=lambda ip: repr(ip)[:30],
)
@pytest.mark.usefixtures("either_reader")
def test_what_is_no_address_has_no_country(write_database, ip):
    signal = GeoSignal.open(write_database(EVERYWHERE), asn=write_database(ASNS, name="a.mmdb"))

    assert signal.facts({"client.ip": ip}, BUILT) == {}
    assert signal.country_of(ip, BUILT) is None
    assert signal.asn_of is not None
    assert signal.asn_of(ip, BUILT) is None


def test_without_an_address_nothing_is_established():
    assert GeoSignal.open().facts({}, BUILT) == {}


@pytest.mark.parametrize(
    "record",
    [
        {"autonomous_system_number": 15169, "autonomous_system_organization": "Google"},
        {"asn": "AS15169", "as_name": "Google"},
        {"asn": 15169},
    ],
)
@pytest.mark.usefixtures("either_reader")
def test_as_numbers_are_established_when_a_database_has_them(write_database, record):
    networks = {"8.8.8.0/24": record, "5.0.0.0/8": dict.fromkeys(record, "AS0")}
    signal = GeoSignal.open(asn=write_database(networks))

    assert signal.facts({"client.ip": "8.8.8.8"}, BUILT) == {"geo.country": "US", "geo.asn": 15169}
    assert "geo.asn" not in signal.facts({"client.ip": "5.1.2.3"}, BUILT)
    assert "geo.asn" not in signal.facts({"client.ip": "10.1.2.3"}, BUILT)


def test_the_signal_says_what_it_establishes_and_from_what(write_database):
    signal: Signal = GeoSignal.open(write_database({"5.0.0.0/8": "DE"}))
    both: Signal = GeoSignal.open(asn=write_database(ASNS, name="asn.mmdb"))

    assert signal.provides == {"geo.country"}
    assert both.provides == {"geo.country", "geo.asn"}
    assert signal.needs == both.needs == {"client.ip"}
    assert signal.sources == ("test.mmdb Test 2026-05-28",)
    assert both.sources == ("country.mmdb guardrail-country 2026-06-25", "asn.mmdb Test 2026-05-28")


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("8.8.8.8", "US"),
        ("1.1.1.1", "AU"),
        ("114.114.114.114", "CN"),
        ("2001:4860:4860::8888", "US"),
        ("::ffff:8.8.8.8", "US"),
        ("192.168.1.1", None),
        ("10.0.0.1", None),
        ("fd00::1", None),
    ],
)
@pytest.mark.usefixtures("either_reader")
def test_the_embedded_database_answers(ip, expected):
    assert country(GeoSignal.open(), ip) == expected


def test_the_embedded_database_stays_small_and_names_only_countries():
    content = EMBEDDED.read_bytes()
    data = content[content.rindex(b"\0" * 16) + 16 : content.rindex(b"\xab\xcd\xefMaxMind.com")]
    codes = {data[at + 1 : at + 3].decode() for at in range(0, len(data), 3)}

    assert len(content) < 3_500_000
    assert set(data[::3]) == {0x42}
    assert len(codes) == len(data) // 3 > 230
    assert codes <= COUNTRIES
