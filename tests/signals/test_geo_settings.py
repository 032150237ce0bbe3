"""What the geo signal is told: how old a database may be, and where it is."""

from __future__ import annotations

import math

import pytest

from guardrail.errors import SettingError
from guardrail.signals.geo import MOST_REMEMBERED, GeoSignal

BUILT = 1_780_000_000  # what `write_database` dates its files
DAY = 86_400.0
ASNS = {"8.8.8.0/24": {"autonomous_system_number": 15169}}


def country(signal: GeoSignal, ip: object, now: float = BUILT) -> object:
    """Return the country that a signal establishes, or None."""
    return signal.facts({"client.ip": ip}, now).get("geo.country")


def test_age_is_warned_of_and_then_ends_what_a_database_says(write_database):
    signal = GeoSignal.open(write_database({"5.0.0.0/8": "DE"}))

    assert signal.warnings(BUILT + 30 * DAY) == ()
    assert country(signal, "5.1.2.3", BUILT + 90 * DAY) == "DE"
    assert signal.warnings(BUILT + 31 * DAY) == (
        "geo database `test.mmdb` is 31 days old (of 2026-05-28); replace it: over 90, it no "
        "longer counts",
    )
    assert country(signal, "5.1.2.3", BUILT + 90 * DAY + 1) is None
    assert signal.warnings(BUILT + 91 * DAY) == (
        "geo database `test.mmdb` is 91 days old (of 2026-05-28): over 90, it no longer counts; "
        "replace it",
    )


def test_each_database_ages_by_itself(write_database):
    old = write_database(ASNS, name="asn.mmdb", built=BUILT - int(60 * DAY))
    signal = GeoSignal.open(write_database({"8.0.0.0/8": "US"}), asn=old)
    known = {"client.ip": "8.8.8.8"}

    assert signal.facts(known, BUILT) == {"geo.country": "US", "geo.asn": 15169}
    assert signal.facts(known, BUILT + 31 * DAY) == {"geo.country": "US"}
    assert len(signal.warnings(BUILT + 31 * DAY)) == 2


def test_replaying_what_came_before_the_database_was_built_is_no_matter_of_age(write_database):
    signal = GeoSignal.open(write_database({"5.0.0.0/8": "DE"}))

    assert country(signal, "5.1.2.3", BUILT - 400 * DAY) == "DE"
    assert signal.warnings(BUILT - 400 * DAY) == ()


def test_the_embedded_database_warns_but_never_stops_counting_by_itself():
    signal = GeoSignal.open()
    released = 1_782_362_039

    assert signal.warnings(released + 30 * DAY) == ()
    assert signal.warnings(released + 1000 * DAY) == (
        "geo database `country.mmdb` is 1000 days old (of 2026-06-25); name a current one in `geo` "
        "or GUARDRAIL_GEO",
    )
    assert country(signal, "8.8.8.8", released + 1000 * DAY) == "US"
    assert country(GeoSignal.open(max_age=90 * DAY), "8.8.8.8", released + 91 * DAY) is None


def test_the_greatest_age_can_be_set(write_database):
    path = write_database({"5.0.0.0/8": "DE"})
    weekly, forever = GeoSignal.open(path, max_age=7 * DAY), GeoSignal.open(path, max_age=math.inf)

    assert country(weekly, "5.1.2.3", BUILT + 8 * DAY) is None
    assert "over 7, it no longer counts" in weekly.warnings(BUILT + 8 * DAY)[0]
    assert country(forever, "5.1.2.3", BUILT + 9000 * DAY) == "DE"
    assert forever.warnings(BUILT + 9000 * DAY)[0].endswith("(of 2026-05-28); replace it")


def test_what_is_remembered_of_an_address_counts_as_long_as_the_database_does(write_database):
    signal = GeoSignal.open(write_database({"8.8.8.0/24": "DE"}), max_age=7 * DAY)
    for age, expected in ((1, "DE"), (6, "DE"), (8, None), (1, "DE"), (8, None)):
        assert country(signal, "8.8.8.8", BUILT + age * DAY) == expected
        assert country(signal, f"8.8.8.{age}", BUILT + age * DAY) == expected
    assert country(signal, "8.8.8.8", BUILT + DAY) == "DE"


def test_no_more_addresses_are_remembered_than_there_is_room_for(write_database):
    signal = GeoSignal.open(write_database({"8.0.0.0/8": "DE"}))
    for number in range(MOST_REMEMBERED * 2 + 5):
        assert country(signal, f"8.{number >> 16}.{number >> 8 & 255}.{number & 255}", BUILT)
        assert len(signal._recent) <= MOST_REMEMBERED


def test_what_is_too_long_for_an_address_is_not_remembered(write_database):
    signal = GeoSignal.open(write_database({"8.0.0.0/8": "DE"}))
    for number in range(100):
        assert country(signal, f"{number}" + "x" * 100_000, BUILT) is None
    assert not signal._recent


@pytest.mark.parametrize("max_age", [0, -1.0, math.nan])
def test_a_greatest_age_that_is_no_time_is_refused(max_age):
    with pytest.raises(SettingError, match="give one above 0"):
        GeoSignal.open(max_age=max_age)


def test_a_missing_extension_is_warned_of(either_reader):
    expected = either_reader == "pure python"

    assert any("C extension" in text for text in GeoSignal.open().warnings(0)) == expected


def test_the_argument_beats_the_environment_and_that_the_embedded_database(write_database):
    argument = write_database({"8.0.0.0/8": "DE"}, name="argument.mmdb")
    environ = {"GUARDRAIL_GEO": str(write_database({"8.0.0.0/8": "FR"}, name="environ.mmdb"))}

    assert country(GeoSignal.configured(argument, environ), "8.8.8.8") == "DE"
    assert country(GeoSignal.configured(str(argument), {}), "8.8.8.8") == "DE"
    assert country(GeoSignal.configured(None, environ), "8.8.8.8") == "FR"
    assert country(GeoSignal.configured(None, {}), "8.8.8.8") == "US"
    assert country(GeoSignal.configured(None, {"GUARDRAIL_GEO": ""}), "8.8.8.8") == "US"


def test_the_environment_can_name_as_numbers_and_the_greatest_age(write_database):
    environ = {
        "GUARDRAIL_GEO": str(write_database({"8.0.0.0/8": "US"})),
        "GUARDRAIL_GEO_ASN": str(write_database(ASNS, name="asn.mmdb")),
    }
    known = {"client.ip": "8.8.8.8"}
    later = BUILT + 119 * DAY
    default = GeoSignal.configured(None, environ)
    longer = GeoSignal.configured(None, environ | {"GUARDRAIL_GEO_MAX_AGE": "120d"})
    never = GeoSignal.configured(None, environ | {"GUARDRAIL_GEO_MAX_AGE": "never"})

    assert default.facts(known, later) == {}
    assert longer.facts(known, later) == {"geo.country": "US", "geo.asn": 15169}
    assert longer.facts(known, later + 2 * DAY) == {}
    assert never.facts(known, later + 2 * DAY) == {"geo.country": "US", "geo.asn": 15169}


@pytest.mark.parametrize("text", ["120", "soon", "-1d", "1.5d", "0d", "12h", "٣d", "inf"])
def test_an_age_that_is_not_in_days_is_refused(text):
    with pytest.raises(SettingError):
        GeoSignal.configured(None, {"GUARDRAIL_GEO_MAX_AGE": text})
