"""Amounts, lengths of time and paces as other tools write them, and how they are written here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

_TIME_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("w", "wk", "week", "weeks"), "w"),
}
_LENGTHS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_RATE_WORDS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_LENGTH = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([a-z]+)")
_ISO = re.compile(r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_RATE = re.compile(
    r"(?P<amount>[\d.]+[kMG]?)\s*(?P<unit>r|req|reqs|requests?|tokens?)?\s*"
    r"(?:/|\s+(?:per|an?|every)\s+|p(?=[smhd]$))\s*(?P<times>\d*)\s*(?P<time>[a-z]+)\.?"
)
"""A pace as other tools write it: `60/min`, `60 r/m`, `60rpm`, `100/15m`."""


def duration(text: str) -> str | None:
    """Return a length of time as it is written here, None where it is none."""
    seconds = 0.0
    parts = _ISO.fullmatch(text)
    if parts is not None and any(parts.groups()):
        sizes = (604800, 86400, 3600, 60, 1)
        pairs = zip(parts.groups(), sizes, strict=True)
        seconds = sum(int(n) * size for n, size in pairs if n is not None)
    else:
        found = list(_LENGTH.finditer(text.lower()))
        if not found or re.sub(r"[\s,]|and", "", _LENGTH.sub("", text.lower())):
            return None
        for one in found:
            unit = _TIME_WORDS.get(one[2])
            if unit is None:
                return None
            seconds += float(one[1]) * _LENGTHS[unit]
    return _written(int(seconds)) if seconds >= 1 and seconds == int(seconds) else None


def rate(text: str) -> str | None:
    """Return a pace as it is written here, None where it is none."""
    found = _RATE.fullmatch(text.strip())
    unit = None if found is None else _TIME_WORDS.get(found["time"].lower())
    if found is None or unit not in _RATE_WORDS:
        return None
    if found["times"] and not int(found["times"]):
        return None
    if not found["times"] or found["times"] == "1":
        return f"{found['amount']}/{_RATE_WORDS[unit]}"
    return f"{found['amount']} per {found['times']} {_RATE_WORDS[unit]}s"


def long_rate(text: str) -> str | None:
    """Return the window of a pace that is longer than any here, such as `100/month`."""
    found = re.fullmatch(r"\S+?\s*(?:/|\s+per\s+)\s*(week|month|year)s?", text.strip())
    return found[1] if found else None


def no_unit(number: object) -> str | None:
    """Return the advice on a plain number where a length of time stands."""
    if isinstance(number, bool) or not isinstance(number, int | float) or number < 0:
        return None
    return f"write its unit: `{number}s`, `{number}m`, `{number}h` or `{number}d`"


def span_of_numbers(text: str, fact: str) -> str | None:
    """Return the advice on a text such as `9-17`, `20 USD` or `50k` where a number stands."""
    found = re.fullmatch(r"(\d{1,9})\s*(?:-|–|\.\.\.?|to)\s*(\d{1,9})", text)
    if found is None:
        return _number_alone(text)
    low, high = found.groups()
    if int(low) <= int(high):
        return f"write `{fact}: {{gte: {low}, lte: {high}}}`"
    return f"write `any: [{{{fact}: {{gte: {low}}}}}, {{{fact}: {{lte: {high}}}}}]`"


def compared(text: str) -> str | None:
    """Return the advice on a number or a length of time with a sign before it, such as `>0`."""
    found = _COMPARED.fullmatch(text)
    return None if found is None else f"write `{{{_SIGNS[found[1]]}: {found[2]}}}`"


_COMPARED = re.compile(r"(>=|<=|=>|=<|>|<|≥|≤)\s*(-?\d{1,15}(?:\.\d{1,9})?[smhd]?)")
_SIGNS: Mapping[str, str] = {
    ">": "gt", "<": "lt", ">=": "gte", "=>": "gte", "≥": "gte", "<=": "lte", "=<": "lte", "≤": "lte"
}  # fmt: skip


def begin_of_span(text: str) -> str | None:
    """Return where a span begins, such as `0-10`, `7d..30d`, `20+` or `>=20`; None: it is none."""
    found = _FROM.fullmatch(text)
    return None if found is None or found[1] == text else found[1]


_FROM = re.compile(
    r"(?:>=\s*)?(\d{1,9}(?:\.\d{1,9})?[smhd]?)"
    r"(?:\s*(?:-|–|\.\.\.?|to)\s*\d{1,9}(?:\.\d{1,9})?[smhd]?|\s*\+)?"
)


def _number_alone(text: str) -> str | None:
    found = re.fullmatch(r"(?:[$€£]|AS)?\s*(\d{1,9}(?:\.\d{1,9})?)\s*([A-Za-z$€£%]{0,9})", text)
    if found is None or found[1] == text:
        return None
    number, word = found.groups()
    if word in ("m", "g", "b", "B") or word.lower() in _COUNTS:
        return None
    if word in _THOUSANDS:
        whole = Decimal(number) * _THOUSANDS[word]
        return f"write the number in full: `{whole.normalize():f}`"
    return f"write the number alone: `{number}`"


_THOUSANDS: Mapping[str, int] = {"k": 1000, "K": 1000, "M": 1_000_000, "G": 1_000_000_000}


def boolean(text: str) -> str | None:
    """Return the advice on a word that says elsewhere that something is so, or is not."""
    meant = _BOOLEANS.get(text.lower())
    return f"did you mean `{meant}`?" if meant else None


_BOOLEANS = {
    "yes": "true", "on": "true", "true": "true",
    "no": "false", "off": "false", "false": "false",
}  # fmt: skip


def share(text: str) -> str | None:
    """Return a share such as `0.8` or `80` as a percentage, None where it is none."""
    if re.fullmatch(r"0?\.\d{1,2}", text):
        return f"{round(float(text) * 100)}%"
    return f"{text}%" if re.fullmatch(r"[1-9]\d?|100", text) else None


def with_unit(text: str, *, money: bool) -> str | None:
    """Return the advice on an amount with its unit or currency beside it, None where it has none.

    `money` tells that it stands under `cost_usd`.
    """
    found = _WITH_UNIT.fullmatch(text)
    if found is None or not (found["sign"] or found["word"]):
        return None
    amount, word = found["amount"], (found["sign"] or found["word"]).lower()
    currency = _CURRENCIES.get(word)
    if currency is None:
        if found["sign"] or word in _COUNTS:
            return None
        return f"write `{amount}` alone: the key says what it counts"
    if not money:
        return f"write `{amount}`, under `cost_usd`"
    if currency == "USD":
        return f"write `{amount}`: `cost_usd` is in dollars"
    return "write how many dollars that is: `cost_usd` knows no other currency"


_WITH_UNIT = re.compile(
    r"(?P<sign>US\$|[$€£¥])?\s*(?P<amount>\d{1,20}(?:\.\d{1,12})?[kMG]?)\s*(?P<word>[$€£¥]|[a-zA-Z]{3,})?"
)
_CURRENCIES: Mapping[str, str] = {
    **dict.fromkeys(("$", "us$", "usd", "dollar", "dollars"), "USD"),
    **dict.fromkeys(("€", "eur", "euro", "euros"), "EUR"),
    **dict.fromkeys(("£", "gbp", "pound", "pounds"), "GBP"),
    **dict.fromkeys(("¥", "jpy", "yen"), "JPY"),
}
_COUNTS = frozenset("thousand thousands million millions billion billions mln bn".split())


def unlimited(text: str) -> bool:
    """Tell whether a word says elsewhere that an amount has no limit."""
    words = ("inf", "infinite", "infinity", "none", "null", "no", "-1", "unbounded", "no limit")
    return text.lower().lstrip(".") in words


def environment(text: str) -> bool:
    """Tell whether a text stands for another elsewhere: `${NAME}`, `{{name}}`."""
    return _FILLED_IN.search(text) is not None


_FILLED_IN = re.compile(
    r"\$\{[A-Za-z_][\w.]*(?::?-[^}]*)?\}|\{\{\s*[\w.]+\s*\}\}|\$\([A-Za-z_]\w*\)", re.ASCII
)
NO_ENVIRONMENT = "write the value: policies are the same wherever they are read"


def _written(seconds: int) -> str:
    letter, size = next(
        (letter, _LENGTHS[letter]) for letter in "dhms" if seconds % _LENGTHS[letter] == 0
    )
    return f"{seconds // size}{letter}"
