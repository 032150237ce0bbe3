"""Files of the geo signal: missing, damaged, of something else, replaced, used after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from guardrail.errors import DataError
from guardrail.signals import geo
from guardrail.signals.geo import EMBEDDED, GeoSignal, databases
from guardrail.signals.geo.verifying import verify

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
@pytest.mark.parametrize(
    ("damage", "why"),
    [(b"\x3f\xff\xff", "point out of bounds"), (b"\x42\xff\xfe", "text that is not UTF-8")],
)
def test_damage_in_one_record_is_found_when_the_file_is_opened(write_database, damage, why):
    path = write_database({"5.0.0.0/8": "DE", "6.0.0.0/8": "FR", "7.0.0.0/8": "IT"})
    path.write_bytes(path.read_bytes().replace(b"\x42FR", damage))

    with pytest.raises(DataError, match=rf"test\.mmdb` is damaged .*{why}"):
        GeoSignal.open(path)


@pytest.mark.usefixtures("either_reader")
def test_a_file_overwritten_cut_short_or_removed_after_it_was_opened_does_no_harm(write_database):
    path = write_database({"5.0.0.0/8": "DE"})
    signal = GeoSignal.open(path)

    os.truncate(path, 0)
    assert country(signal, "5.1.2.3") == "DE"
    path.write_bytes(b"\xff" * 4096)
    assert country(signal, "5.1.2.3") == "DE"
    path.unlink()
    assert country(signal, "5.1.2.3") == "DE"


NETWORKS = {
    f"{n}.0.0.0/8": {"country": {"iso_code": code, "n": n}}
    for n, code in enumerate(["DE", "FR", "IT", "US", "CN", "JP", "BR", "CA"], 20)
}
FLIPS = """
import random, sys
from pathlib import Path
from guardrail.errors import DataError
from guardrail.signals import geo
from guardrail.signals.geo import EMBEDDED, GeoSignal, databases
from guardrail.signals.geo.verifying import verify
source, target = Path(sys.argv[1]), Path(sys.argv[2])
data, rng = source.read_bytes(), random.Random(int(sys.argv[3]))
asked = [f"{n}.{rng.randrange(256)}.1.1" for n in range(1, 224)] + ["2001:4860::8888"]
refused = 0
for _ in range(int(sys.argv[4])):
    broken = bytearray(data)
    # Where a reader goes on from what it reads: half of them beyond the tree of nodes.
    first = rng.choice((0, len(data) - 400))
    broken[rng.randrange(first, len(data))] ^= 1 << rng.randrange(8)
    target.write_bytes(broken)
    try:
        signal = GeoSignal.open(target, asn=None)
    except DataError:
        refused += 1
        continue
    for ip in asked:
        try:
            signal.country_of(ip, 0.0)
        except DataError:
            refused += 1
            break
print(refused)
"""


def flipped(source: Path, folder: Path, count: int) -> int:
    """Return how many of so many files with one flipped bit were refused; none may kill."""
    ran = subprocess.run(
        [sys.executable, "-c", FLIPS, str(source), str(folder / "flip.mmdb"), "7", str(count)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, (ran.returncode, ran.stderr)
    return int(ran.stdout)


def test_no_flipped_bit_of_a_database_ends_the_process(write_database, tmp_path):
    refused = flipped(write_database(NETWORKS), tmp_path, 600)

    # Most bits of the metadata and of lengths are seen; those of texts make other texts.
    assert 50 < refused < 600


def test_no_flipped_bit_of_the_embedded_database_ends_the_process(tmp_path):
    flipped(EMBEDDED, tmp_path, 3)


def test_the_embedded_database_is_known_by_its_digest_and_whole(monkeypatch):
    walked = []
    monkeypatch.setattr(databases, "verify", lambda data: walked.append(len(data)))
    GeoSignal.open()
    assert walked == []

    verify(EMBEDDED.read_bytes())
    monkeypatch.setattr(geo, "EMBEDDED_DIGEST", "of another release")
    GeoSignal.open()
    assert walked == [EMBEDDED.stat().st_size]


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


@pytest.mark.parametrize("lacking", [["_in_memory"], ["_in_memory", "_in_temporary_file"]])
def test_a_copy_is_read_wherever_there_is_place_for_one(write_database, monkeypatch, lacking):
    path = write_database({"5.0.0.0/8": "DE"})

    def unable(data):
        raise PermissionError

    for name in lacking:
        monkeypatch.setattr(databases, name, unable)
    signal = GeoSignal.open(path)
    path.unlink()

    assert country(signal, "5.1.2.3") == "DE"


@pytest.mark.parametrize(("around", "whole"), [(14, True), (20, False)])
def test_a_record_may_go_as_deep_as_the_reader_pointers_counted(write_database, around, whole):
    def wrapped(record, times):
        for _ in range(times):
            record = {"in": record}
        return record

    shared = wrapped({"iso_code": "DE"}, 14)
    data = write_database(
        {"5.0.0.0/8": {"it": shared}, "6.0.0.0/8": {"it": wrapped(shared, around)}}
    ).read_bytes()

    if whole:
        verify(data)
    else:
        with pytest.raises(ValueError, match="too deep"):
            verify(data)
