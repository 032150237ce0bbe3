"""Where an address is: its country, and the number of its autonomous system."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from guardrail.errors import SettingError
from guardrail.signals.geo.databases import (
    Database,
    asn_lookup,
    country_lookup,
    identity_of,
    open_database,
    region_lookup,
)

EMBEDDED = Path(__file__).resolve().parents[2] / "data" / "country.mmdb"
"""The country database that comes with the package; the README beside it has source and licence."""

MOST_REMEMBERED = 10_000
"""How many addresses a signal remembers before it forgets all: some 4 MB."""
LONGEST = 64
"""The longest text that is remembered: an address has 45 characters, a client may send more."""

EMBEDDED_DIGEST = "037bcd403864d3029622c6eb00a865ff664ae821"
"""What the embedded database's bytes are known by: they need not be walked at every start."""

_DAY = 86_400.0
WARN_AGE = 30 * _DAY
"""Seconds after which a database's age is warned of."""

MAX_AGE = 90 * _DAY
"""Seconds after which a database of the operator's own no longer counts, unless told otherwise."""


class GeoSignal:
    """Establishes `geo.country` from `client.ip`, and `geo.asn` if it has a database for it.

    `geo.region` is established where the country database knows regions.

    `country_of(ip, now)` and `asn_of(ip, now)` answer for one address without a mapping around
    it: the value, or None where there is none. They raise DataError when the file turns out to be
    broken. A database may be used in threads and after a fork. Its file is verified whole and
    copied into memory when it is opened: what is done to the file afterwards does no harm.
    """

    __slots__ = (
        "_asn",
        "_country",
        "_expires",
        "_recent",
        "asn_of",
        "country_of",
        "needs",
        "provides",
        "region_of",
        "sources",
    )

    def __init__(self, country: Database, asn: Database | None) -> None:
        """Take open databases; use `open` or `configured`."""
        self._country = country
        self._asn = asn
        self.country_of: Callable[[str, float], str | None] = country_lookup(country)
        self.asn_of: Callable[[str, float], int | None] | None = None
        self.needs = frozenset({"client.ip"})
        self.provides = frozenset({"geo.country"})
        self.region_of = None if country.path == EMBEDDED else region_lookup(country)
        if self.region_of is not None:
            self.provides |= {"geo.region"}
        if asn is not None:
            self.asn_of = asn_lookup(asn)
            self.provides |= {"geo.asn"}
        self._recent: dict[str, Mapping[str, object]] = {}
        self._expires = min(file.expires for file in self._files())
        self.sources = tuple(f"{file.path.name} {file.type} {file.day}" for file in self._files())

    @classmethod
    def open(
        cls,
        country: str | Path | None = None,
        *,
        asn: str | Path | None = None,
        max_age: float | None = None,
    ) -> GeoSignal:
        """Open a country database (None: the embedded one), and one of AS numbers if given.

        `max_age` (seconds; `math.inf`: no limit) is the age over which a database no longer
        counts: its facts are then missing. Unless it is given, that is 90 days for a file of the
        operator's own, and never for the embedded one, whose age is set by the release: it only
        warns, since an old release must not end by refusing everyone.

        Raises:
            DataError: a file cannot be opened, or does not hold what it is given for.
            SettingError: `max_age` is not above 0.
        """
        if max_age is not None and not max_age > 0:
            raise SettingError(f"a geo database's greatest age is `{max_age}` s; give one above 0")
        own = MAX_AGE if max_age is None else max_age
        if country is None:
            place = _embedded(math.inf if max_age is None else max_age)
        else:
            place = open_database(Path(country), own)
        return cls(place, None if asn is None else open_database(Path(asn), own))

    @classmethod
    def configured(cls, geo: str | Path | None, environ: Mapping[str, str]) -> GeoSignal:
        """Open what an argument names, else what the environment names, else the embedded one.

        `GUARDRAIL_GEO` and `GUARDRAIL_GEO_ASN` are paths; `GUARDRAIL_GEO_MAX_AGE` is a number
        of days (`120d`) or `never`.

        Raises:
            DataError: as `open`.
            SettingError: `GUARDRAIL_GEO_MAX_AGE` is neither, or no time at all.
        """
        return cls.open(
            geo or environ.get("GUARDRAIL_GEO") or None,
            asn=environ.get("GUARDRAIL_GEO_ASN") or None,
            max_age=_max_age(environ.get("GUARDRAIL_GEO_MAX_AGE", "")),
        )

    def facts(self, known: Mapping[str, object], now: float) -> Mapping[str, object]:
        """Return what is known of the place of `client.ip`.

        Raises:
            DataError: a database is broken.
        """
        ip = known.get("client.ip")
        if ip.__class__ is not str:
            return {}
        if now > self._expires:
            return self._looked_up(ip, now)
        found = self._recent.get(ip)
        if found is None:
            found = self._looked_up(ip, now)
            if len(ip) <= LONGEST:
                if len(self._recent) >= MOST_REMEMBERED:
                    self._recent.clear()
                self._recent[ip] = found
        return found

    def _looked_up(self, ip: str, now: float) -> Mapping[str, object]:
        found: dict[str, object] = {}
        country = self.country_of(ip, now)
        if country is not None:
            found["geo.country"] = country
        region = self.region_of(ip, now) if self.region_of is not None else None
        if region is not None:
            found["geo.region"] = region
        asn = self.asn_of(ip, now) if self.asn_of is not None else None
        if asn is not None:
            found["geo.asn"] = asn
        return found

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know at `now`: databases grown old, a slow reader."""
        found = [text for file in self._files() for text in _age_warnings(file, now)]
        if self._country.is_pure_python:
            found.append(
                "maxminddb runs without its C extension: a look-up takes about 40 µs instead of 2; "
                "install it from a wheel or with a compiler"
            )
        return tuple(found)

    def refreshed(self) -> GeoSignal:
        """Return itself, or a new signal if a file has been replaced since it was opened.

        Raises:
            DataError: as `open`; this signal still answers from the old file.
        """
        if all(identity_of(file.path) == file.identity for file in self._files()):
            return self
        country, asn = self._country, self._asn
        return GeoSignal(
            _embedded(country.max_age)
            if country.path == EMBEDDED
            else open_database(country.path, country.max_age),
            None if asn is None else open_database(asn.path, asn.max_age),
        )

    def _files(self) -> tuple[Database, ...]:
        return (self._country,) if self._asn is None else (self._country, self._asn)


def _embedded(max_age: float) -> Database:
    opened = _opened(EMBEDDED, identity_of(EMBEDDED), EMBEDDED_DIGEST)
    return replace(opened, max_age=max_age)


@lru_cache(1)
def _opened(path: Path, identity: tuple[int, int, int] | None, known: str) -> Database:
    """Return a database that is known by its digest, opened once: all guards read the same copy.

    `identity` tells the file from one that has replaced it.
    """
    return open_database(path, math.inf, known=known)


def _age_warnings(file: Database, now: float) -> Iterator[str]:
    age = now - file.built
    described = f"geo database `{file.path.name}` is {age / _DAY:.0f} days old (of {file.day})"
    if age > file.max_age:
        yield f"{described}: over {file.max_age / _DAY:.0f}, it no longer counts; replace it"
    elif age > WARN_AGE and file.path == EMBEDDED:
        yield f"{described}; name a current one in `geo` or GUARDRAIL_GEO"
    elif age > WARN_AGE and math.isinf(file.max_age):
        yield f"{described}; replace it"
    elif age > WARN_AGE:
        yield f"{described}; replace it: over {file.max_age / _DAY:.0f}, it no longer counts"


def _max_age(text: str) -> float | None:
    if not text:
        return None
    if text == "never":
        return math.inf
    if re.fullmatch(r"[0-9]{1,5}d", text):
        return float(text[:-1]) * _DAY
    raise SettingError(f"GUARDRAIL_GEO_MAX_AGE is `{text}`; write days, as `120d`, or `never`")
