"""The script that makes the embedded database, and what its README says of it."""

from __future__ import annotations

import hashlib
import importlib.util
import ipaddress
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.signals.geo import EMBEDDED, GeoSignal

ROOT = Path(__file__).parents[2]
BUILT = 1_782_362_039
HEADER = """\
# Generated: Thu, 25 Jun 2026 04:33:59 GMT
# Vendor:    IPFire Project
# License:   CC BY-SA 4.0
#
"""
V4 = """\
15726992,15726999,??
16777216,16777471,AU
16777472,16778239,CN
3232235520,3232301055,EU
"""
V6 = "2001:200::,2001:200:134:ffff:ffff:ffff:ffff:ffff,JP\n2a00::,2a00::ffff,DE\n"


@pytest.fixture(scope="module")
def make_geo() -> ModuleType:
    """The script as a module."""
    pytest.importorskip("mmdb_writer")
    spec = importlib.util.spec_from_file_location("make_geo", ROOT / "scripts" / "make_geo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_geo"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(make_geo, tmp_path, monkeypatch):
    """Return a function that runs the script over two source texts."""

    def run_it(v4: str = HEADER + V4, v6: str = HEADER + V6, name: str = "made.mmdb") -> int:
        (tmp_path / "geoip").write_text(v4)
        (tmp_path / "geoip6").write_text(v6)
        monkeypatch.setattr(sys, "argv", ["make_geo.py", str(tmp_path), str(tmp_path / name)])
        return int(make_geo.main())

    return run_it


def test_the_same_source_makes_the_same_bytes(make_geo, tmp_path):
    ranges = [make_geo.Range(5, 80, "DE"), make_geo.Range(90, 95, "FR")]
    for name in ("one", "two"):
        make_geo.write(ranges, ranges, BUILT, tmp_path / name)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_database_that_lacks_known_answers_is_reported(run, capsys):
    assert run() == 1
    assert "is wrong at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("v4", "message"),
    [
        (HEADER + "1,2\n", "geoip:5: `1,2` is not first,last,code"),
        (HEADER + "1,2,3,4\n", "is not first,last,code"),
        (HEADER + "a,b,DE\n", "is not first,last,code"),
        (V4, "the header lacks a date or the licence"),
        (HEADER.replace("BY-SA", "BY-NC") + V4, "the header lacks a date or the licence"),
    ],
)
def test_a_source_that_is_not_as_expected_is_refused(run, capsys, v4, message):
    assert run(v4=v4) == 1
    assert message in capsys.readouterr().err


def test_only_ranges_of_countries_are_taken(make_geo, tmp_path):
    (tmp_path / "geoip").write_text(HEADER + V4)
    (tmp_path / "geoip6").write_text(HEADER + V6)

    v4 = list(make_geo.ranges_in(tmp_path / "geoip"))
    v6 = list(make_geo.ranges_in(tmp_path / "geoip6"))

    assert [each.country for each in v4] == ["AU", "CN"]
    assert v4[0] == make_geo.Range(16777216, 16777471, "AU")
    assert ipaddress.IPv6Address(v6[1].last) == ipaddress.IPv6Address("2a00::ffff")
    assert make_geo.generated(tmp_path / "geoip") == BUILT


def _spread(edges: list[int], countries: list[str]) -> list[tuple[int, int, str]]:
    firsts = sorted(edges)[::2]
    lasts = sorted(edges)[1::2]
    return list(zip(firsts, lasts, countries, strict=False))


def _ranges(base: str) -> st.SearchStrategy[list[tuple[int, int, str]]]:
    addresses = st.ip_addresses(network=base).map(int)
    return st.builds(
        _spread,
        st.lists(addresses, min_size=2, max_size=16, unique=True),
        st.lists(st.sampled_from(["DE", "FR", "US"]), min_size=8, max_size=8),
    )


@given(_ranges("5.0.0.0/22"), _ranges("2a00::/118"))
def test_every_address_has_the_country_of_its_range(make_geo, tmp_path_factory, v4, v6):
    path = tmp_path_factory.mktemp("geo") / "made.mmdb"
    as_ranges = [[make_geo.Range(*each) for each in ranges] for ranges in (v4, v6)]
    make_geo.write(*as_ranges, BUILT, path)
    signal = GeoSignal.open(path)

    assert list(make_geo.differences(path, as_ranges[0], 32)) == []
    assert list(make_geo.differences(path, as_ranges[1], 128)) == []
    for address, ranges in (
        *((ipaddress.IPv4Address(at), v4) for at in range(0x4FFFFFE, 0x5000402, 7)),
        *((ipaddress.IPv6Address((0x2A00 << 112) + at), v6) for at in range(-2, 1026, 7)),
    ):
        expected = next((c for first, last, c in ranges if first <= int(address) <= last), None)

        assert signal.country_of(str(address), 0) == expected


def test_the_check_finds_what_differs(make_geo, tmp_path):
    made = [make_geo.Range(10 << 24, (11 << 24) - 1, "DE")]
    meant = [
        make_geo.Range(10 << 24, (10 << 24) + 9, "DE"),
        make_geo.Range(11 << 24, 12 << 24, "FR"),
    ]
    make_geo.write(made, made, BUILT, tmp_path / "made.mmdb")

    assert list(make_geo.differences(tmp_path / "made.mmdb", meant, 32)) == [
        "11.0.0.0 is None, not FR",
        "12.0.0.0 is None, not FR",
        "10.0.0.10 is DE, not None",
    ]


def test_the_readme_states_the_date_licence_and_digest_of_the_embedded_database():
    readme = (EMBEDDED.parent / "README.md").read_text(encoding="utf-8")

    assert f"generated {GeoSignal.open().sources[0].split()[-1]}" in readme
    assert hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() in readme
    assert b"CC BY-SA 4.0" in EMBEDDED.read_bytes()
    assert "CC BY-SA 4.0" in readme
