"""How the policy language writes amounts, rates, durations, dates and the values of facts."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import TypeVar

import limits

from guardrail.loading import foreign
from guardrail.loading.findings import Scope
from guardrail.loading.foreign_values import (
    NO_ENVIRONMENT,
    boolean,
    compared,
    duration,
    environment,
    long_rate,
    no_unit,
    rate,
    share,
    span_of_numbers,
    unlimited,
    with_unit,
)
from guardrail.loading.nodes import ListNode, Node, Scalar, kind_of, plain, resolve
from guardrail.loading.suggest import suggestion
from guardrail.loading.text import listed, quoted
from guardrail.model.amounts import DAY, HOUR, MICRO, MINUTE, SECOND
from guardrail.model.cells import TOP
from guardrail.model.conditions import WHOLE
from guardrail.model.facts import COUNTRIES, REGION, Fact, FactType, typed_value

T = TypeVar("T")

AMOUNT = re.compile(r"(\d{1,20}(?:\.\d{1,12})?)([kMG]?)", re.ASCII)
RATE = re.compile(r"(\S+?)\s*(?:/|\sper\s)\s*((\d{1,6})?\s*(second|minute|hour|day)s?)", re.ASCII)
DURATION = re.compile(r"(\d{1,12})([smhd])", re.ASCII)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(Z|z|[+-]\d{2}:\d{2})?", re.ASCII
)
SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%", re.ASCII)
PERCENT = re.compile(r"(\d{1,4})%", re.ASCII)
_SUFFIXES = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}
_LENGTHS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)

LONGEST = 366 * DAY
"""The longest window, in microseconds."""
MONEY = "cost_usd"
"""The unit whose amounts are in USD, and may have decimals."""


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


def read_amount(written: object, *, money: bool, used: bool = False) -> int:
    """Return an amount as a whole number of units, or of micro-USD for money.

    `used` says that it is what something takes, and no limit: none is `unlimited`.

    Raises:
        NotationError: it is not an amount, not whole, or past 2**53 - 1.
    """
    help = "write `50k`, `1.5M`, `2G`, a whole number or `unlimited`"
    if used:
        help = "write `50k`, `1.5M`, `2G` or a whole number"
    if isinstance(written, str) and environment(written):
        raise NotationError("is not filled in from anywhere", NO_ENVIRONMENT)
    if isinstance(written, str):
        found = AMOUNT.fullmatch(written)
        if found is None:
            meant = _amount_help(written, money=money, used=used)
            raise NotationError("is not an amount", meant or help)
        number = Decimal(found[1]) * _SUFFIXES[found[2]]
    elif isinstance(written, (int, Decimal)) and not isinstance(written, bool):
        if isinstance(written, int) and abs(written) > TOP:
            raise NotationError("is too large", f"the largest amount is {TOP:,}")
        number = Decimal(written)
        if not money and number.as_tuple().exponent == -3:
            whole = f"{number:f}".replace(".", "").lstrip("0") or "0"
            raise NotationError(
                "has a point among its digits", f"write `{whole}`: a point separates no thousands"
            )
    else:
        raise NotationError("is not an amount", help)
    if number < 0:
        if number != -1:
            help = "an amount is 0 or more"
        elif not used:
            help = _NO_LIMIT
        raise NotationError("is negative", help)
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


_NO_LIMIT = "write `unlimited` if there is no limit"


def _amount_help(written: str, *, money: bool, used: bool) -> str | None:
    if unlimited(written):
        return None if used else _NO_LIMIT
    if (meant := suggestion(written, ("unlimited",), None)) is not None:
        return None if used else meant
    if (meant := with_unit(written, money=money)) is not None:
        return meant
    counted = _NUMBER_WORDS.sub(lambda found: _NUMBERS[found[1].lower()[0]], written.strip())
    if counted != written and AMOUNT.fullmatch(counted):
        return f"did you mean `{counted}`?"
    fixed = re.sub(r"[_,\s]", "", written)
    fixed = fixed.replace("K", "k").replace("m", "M").replace("g", "G").replace("b", "G")
    if fixed != written and AMOUNT.fullmatch(fixed):
        return f"did you mean `{fixed}`? k, M and G are thousands, millions and thousand millions"
    return None


_NUMBERS = {"t": "k", "m": "M", "b": "G"}
_NUMBER_WORDS = re.compile(r"\s+(thousand|million|billion|mln|bn)s?$", re.IGNORECASE)


def read_rate(written: str, *, money: bool) -> tuple[int, int]:
    """Return a rate such as `60/minute` or `100 per 15 minutes`: units, and the period in µs.

    Raises:
        NotationError: it is not a rate.
    """
    found = RATE.fullmatch(written)
    if found is None or (found[3] is not None and not int(found[3])):
        raise NotationError("is not a rate", _rate_help(written))
    amount = read_amount(found[1], money=money)
    period = limits.parse(f"1 per {found[2]}").get_expiry() * SECOND
    if period > LONGEST:
        raise NotationError("has too long a period", "the longest is 366 days")
    return amount, period


def _rate_help(written: str) -> str:
    if environment(written):
        return NO_ENVIRONMENT
    longer, near = long_rate(written), rate(written)
    if longer is not None:
        per = "365d" if longer == "year" else longer
        return f"a pace is of a day at most: write a `budget` with `per: {per}`"
    if near is not None and RATE.fullmatch(near):
        return f"did you mean `{near}`?"
    return "write `60/minute` or `100 per 15 minutes`; second, minute, hour, day"


def share_of(text: str) -> Fraction | None:
    """Return a share such as `5%` or `0.5%`, None for what is none or more than everything."""
    found = SHARE.fullmatch(text)
    share = None if found is None else Fraction(found[1]) / 100
    return None if share is None or share > 1 else share


def read_share(written: object) -> int:
    """Return a share such as `5%` or `0.5%` in parts of a million.

    Raises:
        NotationError: it is not a share, or nothing, or more than everything.
    """
    found = SHARE.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        near = share(str(written))
        help = f"write `{near}`" if near else "write a percentage, such as `5%` or `0.5%`"
        raise NotationError("is not a share of accounts", help)
    parts = Fraction(found[1]) * 10_000
    if parts.denominator != 1 or not 0 < parts <= WHOLE:
        raise NotationError("is not a share of accounts", "write from `0.0001%` to `100%`")
    return int(parts)


def read_duration(written: object, *, least: int = SECOND, most: int = TOP) -> int:
    """Return a duration such as `90s`, `10m`, `1h` or `30d` in microseconds.

    Raises:
        NotationError: it is not a duration, or not between `least` and `most`.
    """
    found = DURATION.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        help = "write a whole number and `s`, `m`, `h` or `d`, such as `10m`"
        near = duration(written) if isinstance(written, str) else None
        help = no_unit(written) or help
        raise NotationError("is not a duration", f"did you mean `{near}`?" if near else help)
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


NOUNS = {
    FactType.STRING: "text",
    FactType.BOOL: "`true` or `false`",
    FactType.INTEGER: "a whole number",
    FactType.NUMBER: "a number",
    FactType.COUNTRY: "a country",
    FactType.IP: "an address",
    FactType.TIMESTAMP: "a time",
    FactType.DURATION: "a duration",
    FactType.ENUM: "one of its values",
    FactType.LEVEL: "one of its levels",
    FactType.LIST: "a list of texts",
}
"""What a value of each type is, in the author's words."""

_OTHER_CODES = {"UK": "GB", "EL": "GR", "EN": "GB", "JA": "JP", "KO": "KR", "USA": "US"}
_NO_COUNTRIES = {
    "EU": "the European Union is not a country; list its members",
    "AP": "Asia/Pacific is a region, not a country",
    "XX": "leave the fact out where no country is known",
    "ZZ": "leave the fact out where no country is known",
    "T1": "Tor exits are `network.kind: tor`",
}


def typed(fact: Fact, node: Node, scope: Scope) -> object | None:
    """Return the value a node gives a fact; report one that is not of its type, as None."""
    try:
        if fact.type is FactType.LIST:
            return _texts(fact, node)
        if not isinstance(node, Scalar):
            raise _not_a(fact, node)
        if fact.type is FactType.TIMESTAMP:
            return read_instant(node.value, scope.zone) / SECOND
        return _READERS[fact.type](fact, node)
    except NotationError as error:
        report_notation(scope, node, error)
        return None


def read_at(scope: Scope, node: Node | str, read: Callable[[object], T]) -> T | None:
    """Return what `read` makes of a node's plain value; report what it raises, as None.

    A text stands for a default of ours, which can be read.
    """
    if isinstance(node, str):
        return read(node)
    try:
        return read(plain(node))
    except NotationError as error:
        report_notation(scope, node, error)
        return None


def report_notation(scope: Scope, node: Node, error: NotationError) -> None:
    """Report that a node is not written as it must be."""
    shown = kind_of(node)
    if isinstance(node, Scalar) and node.value is not None:
        shown = quoted(node.text)
    scope.report(
        error.code, node.span, f"{shown} {error.message}", label=error.label, help=error.help
    )


def as_fact_of_texts(fact: Fact) -> Fact:
    """Return the fact that stands for one entry of a list fact; any other as it is."""
    if fact.type is not FactType.LIST:
        return fact
    return Fact(name=fact.name, type=FactType.STRING, source=fact.source)


def _not_a(fact: Fact, node: Node, help: str | None = None) -> NotationError:
    return NotationError(
        f"is not {NOUNS[fact.type]}",
        help,
        label=f"{quoted(fact.name)} is of type {fact.type.value}",
        code="GR102",
    )


def _texts(fact: Fact, node: Node) -> tuple[str, ...]:
    if not isinstance(node, ListNode):
        raise _not_a(fact, node)
    one = as_fact_of_texts(fact)
    texts = []
    for part in node.parts:
        if not isinstance(part, Scalar):
            raise _not_a(fact, node, "each entry is a text")
        texts.append(_text(one, part))
    return tuple(texts)


def _text(fact: Fact, node: Scalar) -> str:
    if not isinstance(node.value, str):
        short = node.value is not None and len(node.text) < 40
        raise _not_a(fact, node, f'quote it: `"{node.text}"`' if short else None)
    if environment(node.text):
        raise NotationError("is not filled in from anywhere", NO_ENVIRONMENT, code="GR102")
    if not node.quoted and node.text.startswith("$"):
        name = node.text[:40]
        raise NotationError(
            "names a list", f"write `{{in: {name}}}`, or quote it if it is text", code="GR102"
        )
    if fact.name == "geo.region" and REGION.fullmatch(node.value) is None:
        help = "write its ISO 3166-2 code: country, hyphen, region, such as `US-CA`"
        raise NotationError("is not a region", help, code="GR106")
    return node.value


def _bool(fact: Fact, node: Scalar) -> bool:
    if not isinstance(node.value, bool):
        help = boolean(node.text) if isinstance(node.value, str) else None
        raise _not_a(fact, node, _without_quotes(node) or help)
    return node.value


def _integer(fact: Fact, node: Scalar) -> int:
    if isinstance(node.value, bool) or not isinstance(node.value, int):
        raise _not_a_number(fact, node)
    return int(_bounded(node.value))


def _number(fact: Fact, node: Scalar) -> int | float:
    value = node.value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise _not_a_number(fact, node)
    return _bounded(value)


def _not_a_number(fact: Fact, node: Scalar) -> NotationError:
    help = compared(node.text) or span_of_numbers(node.text, fact.name) or _without_quotes(node)
    if help is None and (isinstance(node.value, bool) or boolean(node.text)):
        help = "it is a number: a condition asks for one or more by `{gte: 1}`"
    return _not_a(fact, node, help)


def _without_quotes(node: Scalar) -> str | None:
    """Return the advice on a number, or `true` or `false`, that quotes make a text of."""
    if not node.quoted or len(node.text) > 40 or not isinstance(resolve(node.text), int | float):
        return None
    return f"write `{node.text}`, without quotes"


def _bounded(value: int | float) -> int | float:
    if not -TOP <= value <= TOP:
        raise NotationError("is too large", f"numbers go up to {TOP:,}")
    return value


def _country(fact: Fact, node: Scalar) -> str:
    if node.value is False:
        help = "programs that read YAML 1.1 make `false` of `NO`, Norway: write `NO`, a text here"
        raise NotationError("is not a country", help, code="GR106")
    code = _text(fact, node)
    if code in COUNTRIES:
        return code
    near = _OTHER_CODES.get(code.upper(), code.upper())
    help = _NO_COUNTRIES.get(code.upper(), "write its ISO 3166-1 code of two letters, such as `DE`")
    if code.startswith(("!", "-")) and code[1:].strip() in COUNTRIES:
        help = f"write `{{not: {code[1:].strip()}}}`"
    elif len(parts := re.split(r"[\s,;|]+", code.strip())) > 1 and COUNTRIES.issuperset(parts):
        help = f"these are several: write `{{in: [{', '.join(parts)}]}}`"
    if near in COUNTRIES:
        help = f"did you mean `{near}`?"
    raise NotationError("is not a country", help, code="GR106")


def _address(fact: Fact, node: Scalar) -> object:
    address = typed_value(fact, _text(fact, node))
    if address is None:
        help = "write it as `192.0.2.1` or `2001:db8::1`"
        if "/" in node.text:
            help = f"write `{fact.name}: {{cidr: [{node.text}]}}` for a network"
        raise _not_a(fact, node, help)
    return address


def _duration(fact: Fact, node: Scalar) -> int:
    if (help := compared(node.text)) is not None:
        raise NotationError("is not a duration", help)
    return read_duration(node.value, least=0) // SECOND


def _choice(fact: Fact, node: Scalar) -> str:
    if not isinstance(node.value, str) or node.value not in fact.values:
        raise _no_choice(fact, node)
    return node.value


def _no_choice(fact: Fact, node: Scalar) -> NotationError:
    name = quoted(fact.name)
    if not fact.values:
        return NotationError(
            f"is not a value of {name}",
            f"declare them: `{fact.name}: {{type: {fact.type.value}, values: […]}}`",
            label=f"{name} lists no values",
            code="GR106",
        )
    if node.text in fact.values:
        return NotationError("is not text", f'quote it: `"{node.text}"`', code="GR102")
    help = foreign.value_of(fact, node.text)
    if help is None and not foreign.negated(node.text):
        help = suggestion(node.text, fact.values, None) or _begun(node.text, fact.values)
    return NotationError(
        f"is not a value of {name}",
        help,
        label=f"one of {listed(fact.values, 'or', 12)}",
        code="GR106",
    )


def _begun(text: str, values: Sequence[str]) -> str | None:
    """Return the help for a text that one value begins with, or that begins one: `sat`."""
    word = text.lower()
    short = [v for v in values if len(v) >= _SHORT and word.startswith(v.lower())]
    long = [v for v in values if len(word) >= _SHORT and v.lower().startswith(word)]
    found = {*short, *long}
    return f"did you mean {quoted(found.pop())}?" if len(found) == 1 else None


_SHORT = 3
_READERS: dict[FactType, Callable[[Fact, Scalar], object]] = {
    FactType.STRING: _text,
    FactType.BOOL: _bool,
    FactType.INTEGER: _integer,
    FactType.NUMBER: _number,
    FactType.COUNTRY: _country,
    FactType.IP: _address,
    FactType.DURATION: _duration,
    FactType.ENUM: _choice,
    FactType.LEVEL: _choice,
}
