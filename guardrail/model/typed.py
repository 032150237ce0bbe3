"""What counts as a value of each fact type, and the form the engine compares it in."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from guardrail.model.cells import TOP
from guardrail.model.facts import COUNTRIES, Fact, FactType

_DURATION = re.compile(r"(\d{1,15})(s|m|h|d)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EARLIEST, _LATEST = 0.0, 7258118400.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def typed_value(fact: Fact, value: object) -> object | None:
    """Return `value` in the form the engine compares, None if it is not of the fact's type.

    Strings, countries, enum and level values stay strings; an address becomes its canonical text
    (IPv4 inside IPv6 unwrapped); a timestamp, seconds since the epoch; a duration, seconds; a
    list, a tuple of strings. A bool is never a number.
    """
    return _READERS[fact.type](fact, value)


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
    return seconds if _EARLIEST <= seconds < _LATEST else None


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
    if isinstance(number, (int, float)) and _EARLIEST <= number < _LATEST:
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
