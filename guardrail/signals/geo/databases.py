"""Databases in MaxMind's file layout: how one is opened, and how an address is looked up in it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from socket import AF_INET, inet_pton
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar

import maxminddb

from guardrail.errors import DataError
from guardrail.model.facts import COUNTRIES, REGION
from guardrail.signals.addresses import (
    NOT_AN_ADDRESS,
    SPECIAL_V4,
    SPECIAL_V6,
    is_public,
    parse,
    text_of,
    unwrap,
)
from guardrail.signals.geo.verifying import BrokenError, verify

_T = TypeVar("_T")

# Codes by themselves: one look-up checks a code and swaps the text just read for a constant.
_CODES = {code: code for code in COUNTRIES}
_MAX_ASN = 2**32 - 1  # reserved, as 0 is (RFC 7300, RFC 7607)
_SAMPLE = 2_000
REPLACE = "replace it by renaming a new file over it"
_ADVICE = "check the path in `geo`, GUARDRAIL_GEO or GUARDRAIL_GEO_ASN"


def _asn(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"AS[0-9]{1,10}", value):
        value = int(value[2:])
    return value if type(value) is int and 0 < value < _MAX_ASN else None


# How a record states its country: the embedded database (a bare code); MaxMind and DB-IP; flat
# files; older IPinfo files. `registered_country` is where a network's holder is, not the network.
_COUNTRY_LAYOUTS: tuple[Callable[[Any], str | None], ...] = (
    _CODES.get,
    lambda record: _CODES.get(record["country"]["iso_code"]),
    lambda record: _CODES.get(record["country_code"]),
    lambda record: _CODES.get(record["country"]),
)


def _region(record: Any) -> str | None:
    code = f"{record['country']['iso_code']}-{record['subdivisions'][0]['iso_code']}"
    return code if REGION.fullmatch(code) else None


_REGION_LAYOUTS: tuple[Callable[[Any], str | None], ...] = (_region,)
_ASN_LAYOUTS: tuple[Callable[[Any], int | None], ...] = (
    lambda record: _asn(record["autonomous_system_number"]),
    lambda record: _asn(record["asn"]),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An open database file, its type and the instant it was built as its metadata states them.

    `built` and `max_age` are in seconds; `identity` changes when the file is replaced.
    """

    path: Path
    identity: tuple[int, int, int]
    reader: maxminddb.Reader
    type: str
    built: float
    has_ipv6: bool
    max_age: float

    @property
    def is_pure_python(self) -> bool:
        """Whether it is read without the C extension, some twenty times slower."""
        return isinstance(self.reader, maxminddb.Reader)

    @property
    def day(self) -> str:
        """The day it was built, in UTC: `2026-06-25`."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.built))

    @property
    def expires(self) -> float:
        """The instant after which it no longer counts."""
        return self.built + self.max_age


def open_database(path: Path, max_age: float, *, known: str = "") -> Database:
    """Open a file that counts until it is `max_age` seconds old.

    All of it is verified, unless its digest is the `known` one, and then read from a copy that is
    this process's own: what happens to the file afterwards changes nothing.

    Raises:
        DataError: there is no such file, or it is no database, or it is damaged.
    """
    identity = identity_of(path)
    if identity is None:
        why = "is not a file" if path.exists() else "does not exist"
        raise DataError(f"geo database `{path}` {why}; {_ADVICE}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"geo database `{path}` may not be read; {_ADVICE}") from error
    if identity_of(path) != identity or len(data) != identity[2]:
        raise DataError(f"geo database `{path}` changed while it was read; {REPLACE}")
    if not known or digest_of(data) != known:
        try:
            verify(data)
        except BrokenError as error:
            raise _broken(path, str(error)) from error
    try:
        reader = _reader_of(data)
        metadata = reader.metadata()
        time.gmtime(metadata.build_epoch)
        return Database(
            path=path,
            identity=identity,
            reader=reader,
            type=str(metadata.database_type),
            built=float(metadata.build_epoch),
            has_ipv6=metadata.ip_version == 6,
            max_age=max_age,
        )
    except Exception as error:  # whatever a broken file provokes in either reader
        raise _broken(path) from error


def digest_of(data: bytes) -> str:
    """Return what a database's bytes are known by."""
    return blake2b(data, digest_size=20).hexdigest()


def _reader_of(data: bytes) -> maxminddb.Reader:
    """Return a reader of a copy in memory, which no other process can change or shorten.

    The C reader takes paths alone, so the copy is a file without a name; where there can be none,
    it is read in Python.
    """
    for nameless in (_in_memory, _in_temporary_file):
        with contextlib.suppress(OSError, AttributeError):
            return nameless(data)
    return maxminddb.open_database(_Copy(data), maxminddb.MODE_FD)


class _Copy(BytesIO):
    """A copy in memory that has a name, as readers before version 3 ask of a file."""

    name = "a copy in memory"


def _in_memory(data: bytes) -> maxminddb.Reader:
    copy = os.memfd_create("guardrail-geo", os.MFD_CLOEXEC)
    with open(copy, "wb") as file:
        file.write(data)
        file.flush()
        return maxminddb.open_database(f"/proc/self/fd/{copy}")


def _in_temporary_file(data: bytes) -> maxminddb.Reader:
    with NamedTemporaryFile(prefix="guardrail-geo-") as file:
        file.write(data)
        file.flush()
        return maxminddb.open_database(file.name)


def country_lookup(database: Database) -> Callable[[str, float], str | None]:
    """Return the function from an address and the present instant to a country.

    It returns None where the database has no country or no longer counts, and raises DataError
    where it turns out to be damaged.

    Raises:
        DataError: the database names no countries, or is damaged.
    """
    return _lookup(database, _COUNTRY_LAYOUTS, "countries")


def region_lookup(database: Database) -> Callable[[str, float], str | None] | None:
    """Return the function from an address and the present instant to a region, None if it has none.

    A region is its ISO 3166-2 code, of the largest part of the country that the database names.
    """
    try:
        return _lookup(database, _REGION_LAYOUTS, "regions")
    except DataError:
        return None


def asn_lookup(database: Database) -> Callable[[str, float], int | None]:
    """Return the function from an address and the present instant to an AS number.

    Raises:
        DataError: as `country_lookup`, for AS numbers; so does the function.
    """
    return _lookup(database, _ASN_LAYOUTS, "AS numbers")


def _lookup(
    database: Database, layouts: Sequence[Callable[[Any], _T | None]], content: str
) -> Callable[[str, float], _T | None]:
    """Return the look-up of one address in a database, made for the layout of its records."""
    get, expires, has_ipv6 = database.reader.get, database.expires, database.has_ipv6
    read = _layout(database, layouts, content)

    def find(ip: str, now: float) -> _T | None:
        if now > expires:
            return None
        try:
            # The bytes are only checked: the reader is fastest with text, but it also takes forms
            # such as `8.8` and `010.8.8.8`, which `inet_pton` refuses.
            if ":" in ip:
                text = _locatable(ip, has_ipv6)
                if text is None:
                    return None
                ip = text
            else:
                address = inet_pton(AF_INET, ip)
                if SPECIAL_V4[address[0]] and not is_public(address):
                    return None
        except NOT_AN_ADDRESS:
            return None
        try:
            record = get(ip)
        except Exception as error:  # a broken file makes the two readers raise a dozen kinds
            raise _broken(database.path) from error
        try:
            return read(record)
        except (KeyError, IndexError, TypeError):
            return None

    return find


def _locatable(ip: str, has_ipv6: bool) -> str | None:
    """Return the text to look up for IPv6 text, None if it has no place."""
    address = parse(ip)
    if address is None:
        return None
    if has_ipv6 and not SPECIAL_V6[address[0]]:
        return ip
    judged = unwrap(address)
    if not is_public(judged) or (len(judged) == 16 and not has_ipv6):
        return None
    return ip if judged is address else text_of(judged)


def _layout(
    database: Database, layouts: Sequence[Callable[[Any], _T | None]], content: str
) -> Callable[[Any], _T | None]:
    for record in _sample(database):
        for read in layouts:
            with contextlib.suppress(KeyError, IndexError, TypeError):
                if read(record) is not None:
                    return read
    raise DataError(
        f"geo database `{database.path}` is of type `{database.type}` and names no {content}; "
        f"give one that does"
    )


def _sample(database: Database) -> Iterator[object]:
    """Yield the records of the first public networks, by looking them up one after another.

    The readers' own iteration is no choice: on a file with a cycle in its tree, the C one writes
    past the end of its memory.
    """
    starts: list[tuple[type[IPv4Address] | type[IPv6Address], int, int]] = [
        (IPv4Address, 32, 1 << 24)
    ]
    if database.has_ipv6:
        starts.append((IPv6Address, 128, 0x2000 << 112))
    for address, width, at in starts:
        for _ in range(_SAMPLE):
            if at >> width:
                break
            try:
                record, length = database.reader.get_with_prefix_len(address(at))
            except Exception as error:  # as in `find`
                raise _broken(database.path) from error
            if record is not None:
                yield record
            size = 1 << (width - length)
            at = (at // size + 1) * size


def _broken(path: Path, why: str = "") -> DataError:
    told = f": {why}" if why else ""
    return DataError(
        f"geo database `{path}` is damaged or no MaxMind database; replace it with a fresh "
        f"copy{told}"
    )


def identity_of(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced, None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
