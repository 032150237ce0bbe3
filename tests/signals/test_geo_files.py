"""Files of the geo signal: missing, damaged, of something else, replaced, used after a fork."""

from __future__ import annotations

import os

import pytest

from guardrail.errors import DataError
from guardrail.signals.geo import GeoSignal

BUILT = 1_780_000_000  # what `write_database` dates its files
DAY = 86_400.0
ASNS = {"8.8.8.0/24": {"autonomous_system_number": 15169}}


def country(signal: GeoSignal, ip: object, now: float = BUILT) -> object:
    """Return the country that a signal establishes, or None."""
    return signal.facts({"client.ip": ip}, now).get("geo.country")


@pytest.mark.parametrize("content", [b"", b"not a database", b"\0" * 100_000])
@pytest.mark.usefixtures("either_reader")
def test_a_file_that_is_no_database_is_refused_by_name(tmp_path, content):
    path = tmp_path / "geo.mmdb"
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"geo\.mmdb` is damaged or no MaxMind database; replace"):
        GeoSignal.open(path)


def test_a_missing_file_or_a_folder_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"lost\.mmdb` does not exist; check the path"):
        GeoSignal.open(tmp_path / "lost.mmdb")
    with pytest.raises(DataError, match=r"` is not a file; check the path"):
        GeoSignal.open(tmp_path)


def test_a_database_of_something_else_is_refused(write_database):
    asns, countries = write_database(ASNS, name="asn.mmdb"), write_database({"5.0.0.0/8": "DE"})

    with pytest.raises(DataError, match=r"asn\.mmdb` is of type `Test` and names no countries"):
        GeoSignal.open(asns)
    with pytest.raises(DataError, match=r"test\.mmdb` is of type `Test` and names no AS numbers"):
        GeoSignal.open(asn=countries)


@pytest.mark.usefixtures("either_reader")
def test_damage_found_only_at_a_look_up_is_told_from_no_answer(write_database):
    path = write_database({"5.0.0.0/8": "DE", "6.0.0.0/8": "FR", "7.0.0.0/8": "IT"})
    # A string of two bytes becomes a pointer past the end of the file.
    path.write_bytes(path.read_bytes().replace(b"\x42FR", b"\x3f\xff\xff\xff\xff"[:3]))
    signal = GeoSignal.open(path)

    assert country(signal, "5.1.2.3") == "DE"
    with pytest.raises(DataError, match=r"test\.mmdb` is damaged") as caught:
        signal.facts({"client.ip": "6.1.2.3"}, BUILT)
    assert "6.1.2.3" not in str(caught.value)
    with pytest.raises(DataError):
        signal.country_of("6.1.2.3", BUILT)


@pytest.mark.usefixtures("either_reader")
def test_a_text_that_is_not_utf8_is_damage(write_database):
    path = write_database({"5.0.0.0/8": "DE", "6.0.0.0/8": "FR"})
    path.write_bytes(path.read_bytes().replace(b"\x42FR", b"\x42\xff\xfe"))

    with pytest.raises(DataError, match="is damaged"):
        GeoSignal.open(path).country_of("6.1.2.3", BUILT)


def test_a_replaced_file_is_read_after_a_refresh(write_database):
    path = write_database({"5.0.0.0/8": "DE"})
    signal = GeoSignal.open(path, max_age=7 * DAY)
    assert signal.refreshed() is signal

    write_database({"5.0.0.0/8": "FR"}, name="new.mmdb", built=BUILT + 100).replace(path)
    refreshed = signal.refreshed()

    assert country(signal, "5.1.2.3") == "DE"
    assert country(refreshed, "5.1.2.3") == "FR"
    assert country(refreshed, "5.1.2.3", BUILT + 8 * DAY) is None


def test_one_replaced_file_of_two_is_enough_for_a_refresh(write_database):
    place = write_database({"8.0.0.0/8": "DE"})
    signal = GeoSignal.open(place, asn=write_database(ASNS, name="asn.mmdb"), max_age=7 * DAY)
    known = {"client.ip": "8.8.8.8"}

    write_database({"8.0.0.0/8": "FR"}, name="new.mmdb", built=BUILT + int(DAY)).replace(place)
    refreshed = signal.refreshed()

    assert refreshed.facts(known, BUILT) == {"geo.country": "FR", "geo.asn": 15169}
    assert refreshed.facts(known, BUILT + 7.5 * DAY) == {"geo.country": "FR"}


def test_a_replaced_file_that_is_damaged_leaves_the_old_one_in_use(write_database, tmp_path):
    path = write_database({"5.0.0.0/8": "DE"})
    signal = GeoSignal.open(path)

    (tmp_path / "new").write_bytes(b"cut short")
    (tmp_path / "new").replace(path)

    with pytest.raises(DataError):
        signal.refreshed()
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        signal.refreshed()
    assert country(signal, "5.1.2.3") == "DE"


def test_a_signal_opened_before_a_fork_answers_after_it():
    signal = GeoSignal.open()
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:
        os.write(writing, str(country(signal, "8.8.8.8")).encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reading, 10) == b"US"
    os.close(reading)
    os.close(writing)
