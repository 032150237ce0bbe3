"""YAML as nodes that know their place, what scalars mean, and nodes as plain data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, TypeVar, cast

from guardrail.errors import Span

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar: its text, and its value under the YAML 1.2 core schema.

    `value` is None, a bool, an int, a float or a str. `quoted` tells a quoted or block scalar
    (always a str) from a plain one.
    """

    value: bool | int | float | str | None
    text: str
    quoted: bool
    span: Span


@dataclass(frozen=True, slots=True)
class ListNode:
    """A list of nodes."""

    parts: tuple[Node, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key: value` of a mapping; keys are scalars."""

    key: Scalar
    value: Node


@dataclass(frozen=True, slots=True)
class MapNode:
    """A mapping, in the order written; its keys differ."""

    entries: tuple[Entry, ...]
    span: Span

    def get(self, name: str) -> Node | None:
        """Return the value under a key, None if it is absent."""
        for entry in self.entries:
            if entry.key.text == name:
                return entry.value
        return None


Node = Scalar | ListNode | MapNode


class Nothing:
    """The value of a key with nothing after it, which no construct takes for an absent key."""


NOTHING: Final = Nothing()


def plain(node: Node) -> object:
    """Return a node as plain data: dicts, lists, and scalars, decimals kept exact."""
    if type(node) is Scalar:
        value = node.value
        if value is None:
            return NOTHING
        return _exact(node) if type(value) is float else value
    if type(node) is MapNode:
        return {entry.key.text: plain(entry.value) for entry in node.entries}
    assert type(node) is ListNode
    return [plain(part) for part in node.parts]


def _exact(node: Scalar) -> object:
    try:
        exact = Decimal(node.text)
    except InvalidOperation:
        return node.value
    return exact if exact.is_finite() else node.value


def text_in(node: Node | None) -> str | None:
    """Return the text that a node is, None if it is anything else."""
    value = node.value if isinstance(node, Scalar) else None
    return value if isinstance(value, str) else None


def all_or_none(parts: Iterable[T | None]) -> tuple[T, ...] | None:
    """Return the parts of a construct, None if one of them is in error."""
    whole = tuple(parts)
    return None if None in whole else cast(tuple[T, ...], whole)


def kind_of(node: Node) -> str:
    """Return what a node is, in the author's words."""
    if isinstance(node, MapNode):
        return "a map"
    if isinstance(node, ListNode):
        return "a list"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return f"`{str(node.value).lower()}`"
    return "text" if isinstance(node.value, str) else "a number"


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
