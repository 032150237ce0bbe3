"""How the policy language writes amounts, rates, durations and dates, and what they mean."""

from __future__ import annotations

import datetime
import re
from decimal import Decimal

import limits

from guardrail.model.amounts import DAY, HOUR, MICRO, MINUTE, SECOND
from guardrail.model.cells import TOP

AMOUNT = re.compile(r"(\d{1,20}(?:\.\d{1,12})?)([kMG]?)", re.ASCII)
RATE = re.compile(r"(\S+?)\s*(?:/|\sper\s)\s*((\d{1,6})?\s*(second|minute|hour|day)s?)", re.ASCII)
DURATION = re.compile(r"(\d{1,12})([smhd])", re.ASCII)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(Z|z|[+-]\d{2}:\d{2})?", re.ASCII
)
PERCENT = re.compile(r"(\d{1,4})%", re.ASCII)
_SUFFIXES = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}
_LENGTHS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)

LONGEST = 366 * DAY
"""The longest window, in microseconds."""


class NotationError(Exception):
    """Says what is wrong with a value: what it `is not`, a help, and perhaps a label and a code."""

    def __init__(
        self, message: str, help: str | None, *, label: str | None = None, code: str = "GR110"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.help = help
        self.label = label
        self.code = code


def read_amount(written: object, *, money: bool) -> int:
    """Return an amount as a whole number of units, or of micro-USD for money.

    Raises:
        NotationError: it is not an amount, not whole, or past 2**53 - 1.
    """
    help = "write `50k`, `1.5M`, `2G`, a whole number or `unlimited`"
    if isinstance(written, str):
        found = AMOUNT.fullmatch(written)
        if found is None:
            raise NotationError("is not an amount", _amount_help(written) or help)
        number = Decimal(found[1]) * _SUFFIXES[found[2]]
    elif isinstance(written, (int, Decimal)) and not isinstance(written, bool):
        if isinstance(written, int) and abs(written) > TOP:
            raise NotationError("is too large", f"the largest amount is {TOP:,}")
        number = Decimal(written)
    else:
        raise NotationError("is not an amount", help)
    if number < 0:
        raise NotationError("is negative", "an amount is 0 or more")
    return _whole(number, money=money)


def _whole(number: Decimal, *, money: bool) -> int:
    top = Decimal(TOP) / MICRO if money else Decimal(TOP)
    if number > top:
        raise NotationError("is too large", f"the largest amount is {top:,}")
    scaled = number.scaleb(6) if money else number
    if scaled != scaled.to_integral_value():
        if money:
            raise NotationError("is not a whole number of micro-USD", "use at most six decimals")
        raise NotationError("is not a whole number", "decimals are for `cost_usd`, or with k, M, G")
    return int(scaled)


def _amount_help(written: str) -> str | None:
    fixed = written.replace("_", "").replace(",", "")
    fixed = fixed.replace("K", "k").replace("m", "M").replace("g", "G").replace("b", "G")
    if fixed != written and AMOUNT.fullmatch(fixed):
        return f"did you mean `{fixed}`? k, M and G are thousands, millions and thousand millions"
    return None


def read_rate(written: str, *, money: bool) -> tuple[int, int]:
    """Return a rate such as `60/minute` or `100 per 15 minutes`: units, and the period in µs.

    Raises:
        NotationError: it is not a rate.
    """
    found = RATE.fullmatch(written)
    if found is None or (found[3] is not None and not int(found[3])):
        raise NotationError(
            "is not a rate", "write `60/minute` or `100 per 15 minutes`; second, minute, hour, day"
        )
    amount = read_amount(found[1], money=money)
    period = limits.parse(f"1 per {found[2]}").get_expiry() * SECOND
    if period > LONGEST:
        raise NotationError("has too long a period", "the longest is 366 days")
    return amount, period


def read_duration(written: object, *, least: int = SECOND, most: int = TOP) -> int:
    """Return a duration such as `90s`, `10m`, `1h` or `30d` in microseconds.

    Raises:
        NotationError: it is not a duration, or not between `least` and `most`.
    """
    found = DURATION.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        raise NotationError(
            "is not a duration", "write a whole number and `s`, `m`, `h` or `d`, such as `10m`"
        )
    length = int(found[1]) * _LENGTHS[found[2]]
    if length < least:
        raise NotationError("is too short", f"the shortest is {_spelled(least)}")
    if length > most:
        raise NotationError("is too long", f"the longest is {_spelled(most)}")
    return length


def _spelled(length: int) -> str:
    for letter, size in reversed(_LENGTHS.items()):
        if length >= size:
            return f"`{length // size}{letter}`"
    return "`0s`"


def read_instant(written: object, zone: datetime.tzinfo, *, last: bool = False) -> int:
    """Return a date or a time in microseconds since the epoch.

    A date is its first instant in `zone`, or, for `last`, the instant after its last. A time
    without an offset is in `zone`. Source: RFC 3339.

    Raises:
        NotationError: it is neither, or before 1970 or after 2199.
    """
    help = "write a date such as `2026-12-31` or a time such as `2026-12-31T18:00:00Z`"
    try:
        if isinstance(written, str) and DATE.fullmatch(written):
            day = datetime.date.fromisoformat(written)
            moment = datetime.datetime(day.year, day.month, day.day, tzinfo=zone)
            if last:
                moment = _start_of_next_day(day, zone)
        elif isinstance(written, str) and TIME.fullmatch(written):
            moment = datetime.datetime.fromisoformat(written.upper())
            moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        else:
            raise NotationError("is not a date or a time", help)
        if not 1970 <= moment.year <= 2199:
            raise NotationError("is too far off", "dates run from 1970 to 2199")
        return (moment.astimezone(datetime.UTC) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        raise NotationError("is not a date or a time that exists", help) from None


def _start_of_next_day(day: datetime.date, zone: datetime.tzinfo) -> datetime.datetime:
    following = day + datetime.timedelta(days=1)
    return datetime.datetime(following.year, following.month, following.day, tzinfo=zone)


def is_date(written: object) -> bool:
    """Whether a value is written as a date, without a time of day."""
    return isinstance(written, str) and DATE.fullmatch(written) is not None
