"""What a YAML scalar means: the core schema of YAML 1.2 (§10.3), and nothing of YAML 1.1."""

from __future__ import annotations

import math
import re
from typing import Final

MAX_NUMBER_LENGTH: Final = 300
"""Numbers written with more characters than this have no value; no quantity needs them."""

_CORE: Final = "tag:yaml.org,2002:"
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    f"{_CORE}null": (type(None),),
    f"{_CORE}bool": (bool,),
    f"{_CORE}int": (int,),
    f"{_CORE}float": (int, float),
}
TEXT_TAGS: Final = frozenset({"!", f"{_CORE}str"})
MAP_TAGS: Final = frozenset({"!", f"{_CORE}map"})
LIST_TAGS: Final = frozenset({"!", f"{_CORE}seq"})
CORE_TAGS: Final = TEXT_TAGS | MAP_TAGS | LIST_TAGS | _KINDS.keys()

Value = bool | int | float | str | None

_WORDS: Final[dict[str, bool | float | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{
        f"{sign}{word}": float(f"{sign}inf")
        for sign in ("", "+", "-")
        for word in (".inf", ".Inf", ".INF")
    },
}
_NUMBER_STARTS: Final = frozenset("+-.0123456789")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class NumberLengthError(ValueError):
    """A plain scalar is a number of more than `MAX_NUMBER_LENGTH` characters."""


class TagError(ValueError):
    """A scalar has a tag that is not of the core schema, or not of its value."""


def resolve(text: str) -> Value:
    """Return the value of a plain scalar: null, a boolean, a number, or else its text.

    Dates, `yes`, `on`, `1:30` and `1_000` are text; `010` is ten.

    Raises:
        NumberLengthError: the text is a number, but longer than any that is meant as one.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _DECIMAL.fullmatch(text):
        return int(_short(text))
    if _FLOAT.fullmatch(text):
        return float(_short(text))
    if _OCTAL.fullmatch(text):
        return int(_short(text)[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(_short(text)[2:], 16)
    return text


def _short(number: str) -> str:
    if len(number) > MAX_NUMBER_LENGTH:
        raise NumberLengthError
    return number


def tagged(tag: str, text: str) -> Value:
    """Return the value of a scalar with an explicit tag, such as `!!float 3`.

    Raises:
        NumberLengthError: as for `resolve`.
        TagError: the tag is not of the core schema, or says another type than the text has.
    """
    if tag in TEXT_TAGS:
        return text
    value = resolve(text)
    if type(value) not in _KINDS.get(tag, ()):
        raise TagError
    return float(value) if tag == f"{_CORE}float" and isinstance(value, int) else value


def short_tag(tag: str) -> str:
    """Return a tag as authors write it: `!!int` for the long name it stands for."""
    return f"!!{tag.removeprefix(_CORE)}" if tag.startswith(_CORE) else tag
