"""The facts a request is described by: types, sources, the vocabulary, and values as typed."""

from __future__ import annotations

import enum
import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from guardrail.model.cells import TOP


class FactType(enum.Enum):
    """The type of a fact's value, as a policy file writes it."""

    STRING = "string"
    BOOL = "bool"
    INTEGER = "integer"
    NUMBER = "number"
    COUNTRY = "country"
    IP = "ip"
    TIMESTAMP = "timestamp"
    DURATION = "duration"
    ENUM = "enum"
    LEVEL = "level"
    LIST = "list"


class Source(enum.Enum):
    """Who establishes a fact: the caller, who may lie, or the server."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """The declaration of one fact.

    `values` lists an enum's values, or a level's from lowest to highest; it is empty for other
    types. `default` (None for none) fills a missing fact. A `required` fact blocks a request
    that lacks it.
    """

    name: str
    type: FactType
    source: Source
    values: tuple[str, ...] = ()
    default: object | None = None
    required: bool = False
    declared: bool = False


CAPABILITIES = ("chat", "code", "agentic", "embedding", "image", "audio", "batch", "other")
ENFORCEMENT_STATUSES = ("unrestricted", "pending", "restricted", "banned")
NETWORK_KINDS = ("residential", "mobile", "business", "hosting", "vpn", "proxy", "tor", "other")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


_Row = tuple[str, FactType, Source, tuple[str, ...]]

_CLIENT: tuple[_Row, ...] = (
    ("request.capability", FactType.ENUM, Source.CLIENT, CAPABILITIES),
    ("request.model", FactType.STRING, Source.CLIENT, ()),
    ("request.endpoint", FactType.STRING, Source.CLIENT, ()),
    ("request.tools", FactType.INTEGER, Source.CLIENT, ()),
    ("request.stream", FactType.BOOL, Source.CLIENT, ()),
    ("request.reasoning", FactType.BOOL, Source.CLIENT, ()),
    ("request.template", FactType.STRING, Source.CLIENT, ()),
    ("request.toolset", FactType.STRING, Source.CLIENT, ()),
    ("client.agent", FactType.STRING, Source.CLIENT, ()),
)

_SERVER: tuple[_Row, ...] = (
    ("account.id", FactType.STRING, Source.SERVER, ()),
    ("account.org", FactType.STRING, Source.SERVER, ()),
    ("account.tier", FactType.LEVEL, Source.SERVER, ()),
    ("account.created", FactType.TIMESTAMP, Source.SERVER, ()),
    ("account.age", FactType.DURATION, Source.SERVER, ()),
    ("account.signup", FactType.STRING, Source.SERVER, ()),
    ("account.paid_usd", FactType.NUMBER, Source.SERVER, ()),
    ("account.paid_since", FactType.TIMESTAMP, Source.SERVER, ()),
    ("account.paid_age", FactType.DURATION, Source.SERVER, ()),
    ("account.verified_at", FactType.TIMESTAMP, Source.SERVER, ()),
    ("account.verified_age", FactType.DURATION, Source.SERVER, ()),
    ("credential.id", FactType.STRING, Source.SERVER, ()),
    ("enforcement.status", FactType.ENUM, Source.SERVER, ENFORCEMENT_STATUSES),
    ("kyc.subject", FactType.STRING, Source.SERVER, ()),
    ("kyc.country", FactType.COUNTRY, Source.SERVER, ()),
    ("payment.fingerprint", FactType.STRING, Source.SERVER, ()),
    ("payment.country", FactType.COUNTRY, Source.SERVER, ()),
    ("device.fingerprint", FactType.STRING, Source.SERVER, ()),
    ("client.ip", FactType.IP, Source.SERVER, ()),
    ("client.network", FactType.STRING, Source.SERVER, ()),
    ("geo.country", FactType.COUNTRY, Source.SERVER, ()),
    ("geo.region", FactType.STRING, Source.SERVER, ()),
    ("geo.asn", FactType.INTEGER, Source.SERVER, ()),
    ("network.kind", FactType.ENUM, Source.SERVER, NETWORK_KINDS),
    ("time.hour", FactType.INTEGER, Source.SERVER, ()),
    ("time.weekday", FactType.ENUM, Source.SERVER, WEEKDAYS),
    ("actor.id", FactType.STRING, Source.SERVER, ()),
    ("actor.accounts", FactType.INTEGER, Source.SERVER, ()),
    ("actor.trusted_accounts", FactType.INTEGER, Source.SERVER, ()),
    ("actor.score", FactType.INTEGER, Source.SERVER, ()),
    ("actor.evidence", FactType.LIST, Source.SERVER, ()),
)


def _vocabulary() -> Mapping[str, Fact]:
    return MappingProxyType(
        {
            name: Fact(name=name, type=kind, source=source, values=values)
            for name, kind, source, values in (*_CLIENT, *_SERVER)
        }
    )


STANDARD_FACTS = _vocabulary()
"""The built-in vocabulary by name; `account.tier` lists no values until a policy set does."""

AGES: Mapping[str, str] = MappingProxyType(
    {
        "account.age": "account.created",
        "account.paid_age": "account.paid_since",
        "account.verified_age": "account.verified_at",
    }
)
"""The durations that follow from a time, each with that time: how long ago it is, 0 at least."""

EARNED = (
    "account.age",
    "account.paid_age",
    "account.paid_usd",
    "account.verified_age",
    "actor.trusted_accounts",
)
"""The numbers and durations that grow with what somebody has done or paid."""

ACCOUNTS = ("account.id", "credential.id", "actor.id")
"""The facts that tell accounts apart: what has none may stand for many."""

REGION = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}", re.ASCII)
"""How the code of a country's region is written: ISO 3166-2."""

COUNTRIES = frozenset(
    (
        "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ "
        "BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM "
        "DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS "
        "GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN "
        "KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ "
        "MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM "
        "PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV "
        "SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI "
        "VN VU WF WS XK YE YT ZA ZM ZW"
    ).split()
)
"""ISO 3166-1 alpha-2 codes, and XK for Kosovo."""


_DURATION = re.compile(r"(\d{1,15})(s|m|h|d)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EARLIEST, LATEST = 0.0, 7258118400.0
"""Times from the year 2200 on are taken for a mistake of units."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def typed_value(fact: Fact, value: object) -> object | None:
    """Return `value` in the form the engine compares, None if it is not of the fact's type.

    Strings, countries, enum and level values stay strings; an address becomes its canonical text
    (IPv4 inside IPv6 unwrapped); a timestamp, seconds since the epoch; a duration, seconds; a
    list, a tuple of strings. A bool is never a number.
    """
    return _READERS[fact.type](fact, value)


def reader_of(fact: Fact) -> Callable[[Fact, object], object | None]:
    """Return what reads values of a fact as `typed_value` does, for who reads many."""
    return _READERS[fact.type]


def is_plain(value: object) -> bool:
    """Tell whether a value is of no class derived from that of a text, a number, a list or such."""
    return value is None or value.__class__ in (str, bool, int, float, list, tuple, dict)


def value_shown(value: object, most: int = 40) -> str:
    """Return a value as JSON writes it, at most so many characters of it and an ellipsis.

    What JSON has no word for is shown as Python writes it; a value of a kind of its own, such as a
    member of an enum that is a text, with the name of that.
    """
    try:
        text = json.dumps(value, ensure_ascii=False)
        if not is_plain(value):
            text = f"{type(value).__name__}({text})"
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    shown = text if len(text) <= most else text[:most] + "…"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in shown)


def seconds_of(text: str) -> int | None:
    """Return a duration such as `90s` or `30d` in seconds, None if it is not one."""
    match = _DURATION.fullmatch(text)
    return int(match[1]) * _SECONDS[match[2]] if match else None


def epoch_of(text: str) -> float | None:
    """Return an RFC 3339 time, or a date (its first instant in UTC), in seconds since the epoch.

    A time without an offset is not accepted: nothing says which zone it means.
    """
    if not text.isascii():
        return None
    try:
        if len(text) == 10:
            moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        else:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                return None
        seconds = (moment - _EPOCH) / timedelta(seconds=1)
    except (ValueError, OverflowError):
        return None
    return seconds if _EARLIEST <= seconds < LATEST else None


def _string(fact: Fact, value: object) -> object | None:
    return value if value.__class__ is str else None


def _bool(fact: Fact, value: object) -> object | None:
    return value if value.__class__ is bool else None


def _integer(fact: Fact, value: object) -> object | None:
    return value if value.__class__ is int and -TOP <= value <= TOP else None


def _number(fact: Fact, value: object) -> object | None:
    if value.__class__ is float:
        return value if math.isfinite(value) and abs(value) <= TOP else None
    return _integer(fact, value)


def _country(fact: Fact, value: object) -> object | None:
    return value if value.__class__ is str and value in COUNTRIES else None


def _ip(fact: Fact, value: object) -> object | None:
    if value.__class__ is not str or "%" in value:
        return None
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def _timestamp(fact: Fact, value: object) -> object | None:
    if isinstance(value, str):
        return epoch_of(value)
    number = _number(fact, value)
    if isinstance(number, (int, float)) and _EARLIEST <= number < LATEST:
        return float(number)
    return None


def _duration(fact: Fact, value: object) -> object | None:
    if isinstance(value, str):
        return seconds_of(value)
    number = _number(fact, value)
    return number if isinstance(number, (int, float)) and number >= 0 else None


def _named(fact: Fact, value: object) -> object | None:
    return value if value.__class__ is str and value in fact.values else None


def _list(fact: Fact, value: object) -> object | None:
    if isinstance(value, (list, tuple)) and all(part.__class__ is str for part in value):
        return tuple(value)
    return None


_READERS: Mapping[FactType, Callable[[Fact, object], object | None]] = MappingProxyType(
    {
        FactType.STRING: _string,
        FactType.BOOL: _bool,
        FactType.INTEGER: _integer,
        FactType.NUMBER: _number,
        FactType.COUNTRY: _country,
        FactType.IP: _ip,
        FactType.TIMESTAMP: _timestamp,
        FactType.DURATION: _duration,
        FactType.ENUM: _named,
        FactType.LEVEL: _named,
        FactType.LIST: _list,
    }
)
