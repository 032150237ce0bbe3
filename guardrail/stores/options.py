"""The options of a store's URI: durations, sizes, counts, and what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import SplitResult, parse_qsl

from guardrail.errors import SettingError
from guardrail.model.amounts import DAY, HOUR, MINUTE, SECOND

Option = Callable[[str], object]
"""Reads the text of an option; raises ValueError, with what it must be, if that is no value."""

_DURATION_UNITS = {"us": 1, "ms": 1000, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_SIZE_UNITS = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_COUNT_UNITS = {"": 1, "k": 1000, "M": 1_000_000, "G": 1_000_000_000}
_LOGIN = ("user", "username", "password", "pass", "pwd", "auth", "token", "secret")
_NUMBER = re.compile(r"([0-9]{1,15})([A-Za-z]*)")


def duration(text: str) -> int:
    """Return a duration such as `50ms`, `10s` or `1h` in microseconds."""
    return _scaled(text, _DURATION_UNITS, "a duration such as `50ms`, `10s` or `1h`")


def size(text: str) -> int:
    """Return a size such as `512M` or `8G` in bytes."""
    return _scaled(text, _SIZE_UNITS, "a size such as `512M` or `8G`")


def count(text: str) -> int:
    """Return a whole number such as `500` or `2M`."""
    return _scaled(text, _COUNT_UNITS, "a whole number such as `500k` or `2M`")


def yes(text: str) -> bool:
    """Return whether `yes` or `no` is said."""
    if text not in ("yes", "no"):
        raise ValueError("`yes` or `no`")
    return text == "yes"


def host_clock(text: str) -> bool:
    """Return whether decisions go by the `host`'s clock instead of the `server`'s."""
    if text not in ("host", "server"):
        raise ValueError("`host` or `server`")
    return text == "host"


def prefix(text: str) -> str:
    """Return what the names of all records start with."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", text):
        raise ValueError("1 to 32 letters, digits, `_`, `.` or `-`")
    return text


def options(uri: str, parts: SplitResult, known: Mapping[str, Option]) -> dict[str, Any]:
    """Return the options of a URI, by name.

    Raises:
        SettingError: one is unknown or given twice, or its text is no value of it.
    """
    found: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        read = known.get(name)
        if read is None:
            near = get_close_matches(name, known, 1)
            listed = ", ".join(f"`{option}`" for option in known)
            hint = f"did you mean `{near[0]}`?" if near else f"the options are {listed}"
            if not re.fullmatch("[a-z_]{1,32}", name):
                raise SettingError(f"an option in `{uri}` has no name: {hint}")
            if name in _LOGIN:
                hint = "a name and a password stand before the host, `redis://user:password@host`"
            raise SettingError(f"`{name}` means nothing in `{uri}`: {hint}")
        if name in found:
            raise SettingError(f"`{name}` is given twice in `{uri}`: keep one of them")
        try:
            found[name] = read(text)
        except ValueError as problem:
            raise SettingError(f"`{name}` is `{text}` in `{uri}`: it must be {problem}") from (
                problem
            )
    return found


def _scaled(text: str, units: Mapping[str, int], wanted: str) -> int:
    found = _NUMBER.fullmatch(text)
    if found is None or found[2] not in units:
        raise ValueError(wanted)
    return int(found[1]) * units[found[2]]
