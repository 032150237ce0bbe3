"""The signals over databases and lists made by others: known answers, files broken on purpose."""

from __future__ import annotations

import gzip
import ipaddress
import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from guardrail.errors import DataError
from guardrail.model.facts import COUNTRIES
from guardrail.signals import NetworkSignal
from guardrail.signals.addresses import is_public, unwrap
from guardrail.signals.geo import GeoSignal

FOREVER = 1e12
WIDE = [f"{a}.{b}.3.4" for a in range(1, 256, 6) for b in (0, 77, 255)]
WIDE += [f"{a:x}:{b:x}::1" for a in range(0x2001, 0x4000, 311) for b in (0, 0x218, 0xFFFF)]


@pytest.fixture
def databases(test_data: Path) -> Path:
    """The folder of MaxMind's test databases."""
    return test_data / "conformance" / "maxmind-db"


def answers(path: Path, role: str) -> list[Mapping[str, object] | None]:
    """Return what a file says of many addresses, None for a DataError; other errors are raised."""
    try:
        if role == "country":
            signal = GeoSignal.open(path, max_age=FOREVER)
        else:
            signal = GeoSignal.open(asn=path, max_age=FOREVER)
    except DataError:
        return [None]
    found: list[Mapping[str, object] | None] = []
    for ip in WIDE:
        try:
            found.append(signal.facts({"client.ip": ip}, 0))
        except DataError:
            found.append(None)
    return found


@pytest.mark.parametrize("role", ["country", "asn"])
@pytest.mark.usefixtures("either_reader")
def test_no_file_provokes_anything_but_a_data_error(databases, role):
    for folder in ("bad-data", "test-data"):
        paths = [path for path in sorted((databases / folder).rglob("*")) if path.is_file()]
        assert len(paths) > 10
        for path in paths:
            for found in answers(path, role):
                if found is not None:
                    assert found.get("geo.country", "DE") in COUNTRIES
                    assert found.get("geo.asn", 1) != 0


@pytest.mark.usefixtures("either_reader")
def test_a_database_with_any_byte_changed_provokes_nothing_but_a_data_error(databases, tmp_path):
    chance = random.Random(4)
    original = (databases / "test-data" / "GeoLite2-Country-Test.mmdb").read_bytes()
    path = tmp_path / "changed.mmdb"
    outcomes = set()
    for _ in range(150):
        changed = bytearray(original)
        for _ in range(chance.choice((1, 3, 30))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        path.write_bytes(changed)
        outcomes |= {found is None for found in answers(path, "country")}

    assert outcomes == {True, False}


def expected_answers(source: Path, *member: str) -> dict[str, object]:
    """Return the first address of each network in a database's source, and what it has there."""
    found: dict[str, object] = {}
    for entry in json.loads(source.read_text(encoding="utf-8")):
        for network, value in entry.items():
            for name in member:
                value = value.get(name, {})
            found[network.partition("/")[0]] = value or None
    return found


@pytest.mark.parametrize(
    "name",
    ["GeoLite2-Country", "GeoIP2-Country", "GeoLite2-City", "GeoIP2-City", "GeoIP2-Enterprise"],
)
@pytest.mark.usefixtures("either_reader")
def test_countries_are_those_of_the_source(databases, name):
    signal = GeoSignal.open(databases / "test-data" / f"{name}-Test.mmdb", max_age=FOREVER)
    expected = expected_answers(
        databases / "source-data" / f"{name}-Test.json", "country", "iso_code"
    )
    located = 0
    for ip, country in expected.items():
        address = unwrap(ipaddress.ip_address(ip).packed)
        public = is_public(address)
        if len(address) == 4 and ":" in ip:
            continue  # answered from the IPv4 address it carries, which is another entry
        located += signal.country_of(ip, 0) is not None

        assert signal.country_of(ip, 0) == (country if public else None)
    assert located > 5


@pytest.mark.parametrize("name", ["GeoLite2-ASN", "GeoIP2-ISP"])
@pytest.mark.usefixtures("either_reader")
def test_as_numbers_are_those_of_the_source(databases, name):
    signal = GeoSignal.open(asn=databases / "test-data" / f"{name}-Test.mmdb", max_age=FOREVER)
    expected = expected_answers(
        databases / "source-data" / f"{name}-Test.json", "autonomous_system_number"
    )
    asked = {
        ip: asn
        for ip, asn in expected.items()
        if is_public(unwrap(ipaddress.ip_address(ip).packed))
    }

    assert len(asked) > 20
    assert {ip: signal.facts({"client.ip": ip}, 0).get("geo.asn") for ip in asked} == asked


@pytest.fixture(scope="module")
def lists(test_data: Path) -> dict[str, list[Path]]:
    """Published range lists, by the kind they give."""
    published = test_data / "conformance"
    vpn = [*(published / "lists-vpn/output/vpn").glob("ip*.txt")]
    return {
        "hosting": [*(published / "lists-vpn/output/datacenter").glob("ip*.txt")],
        "vpn": [*vpn, *(published / "ipranges/protonvpn").glob("*.txt")],
        "proxy": [*(published / "ipranges/apple-proxy").glob("*.txt")],
    }


def test_published_lists_are_judged_as_a_search_through_every_line_does(lists):
    chance = random.Random(5)
    lines = {
        kind: [ipaddress.ip_network(line) for path in paths for line in path.read_text().split()]
        for kind, paths in lists.items()
    }
    signal = NetworkSignal.open(lists)
    everything = [network for networks in lines.values() for network in networks]
    addresses = [
        edge for network in chance.sample(everything, 60) for edge in (network[0], network[-1])
    ]
    addresses += [address + 1 for address in addresses]
    addresses += [ipaddress.IPv4Address(chance.randrange(1 << 32)) for _ in range(60)]
    seen = set()
    for address in addresses:
        listed = {kind for kind, networks in lines.items() if any(address in n for n in networks)}
        expected = next((kind for kind in ("vpn", "proxy", "hosting") if kind in listed), "other")
        seen.add(expected)

        assert signal.kind_of(str(address)) == expected
    assert seen == {"vpn", "proxy", "hosting", "other"}


def test_published_lists_of_as_numbers_are_read(test_data):
    inputs = test_data / "conformance" / "lists-vpn" / "input"
    signal = NetworkSignal.open(
        {"vpn": [inputs / "vpn" / "ASN.txt"], "hosting": [inputs / "datacenter" / "ASN.txt"]}
    )

    assert signal.kind_of("203.0.113.1", 9009) == "vpn"
    assert signal.kind_of("203.0.113.1", 45090) == "hosting"
    assert signal.kind_of("203.0.113.1", 64496) == "other"
    assert signal.kind_of("203.0.113.1") is None


def test_recorded_client_addresses_are_mostly_placed(test_data):
    path = next((test_data / "traces").glob("weblog_elastic_apache*"))
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        sessions = {json.loads(line)["session"] for line in lines}
    signal = GeoSignal.open()
    placed = [signal.country_of(ip, 0) for ip in sessions]

    assert len(sessions) > 1500
    assert sum(country is not None for country in placed) > 0.95 * len(placed)
