"""A policy file's text: its lines, the places in it, and how a finding quotes the author."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypedDict, Unpack

from guardrail.errors import Diagnostic, Span, severity_of

# What YAML 1.2 does not count as printable (§5.1), and characters a reviewer is misled by: U+0085,
# U+2028 and U+2029 break lines in YAML 1.1 only, U+202A to U+202E and U+2066 to U+2069 show a line
# in another order than it has, and U+FEFF shows nothing at all.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_CONTROL_PICTURES = 0x2400
_DELETE = 0x7F


def visible(text: str) -> str:
    """Return text with each unprintable character replaced by one that only prints.

    Columns stay as they are; tabs too, whose width is for whoever shows the text.
    """
    return UNPRINTABLE.sub(lambda found: _picture(ord(found.group())), text)


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    return "\u2421" if code == _DELETE else "\ufffd"


class Advice(TypedDict, total=False):
    """What a finding says besides its message: a word under the caret, and what to do next."""

    label: str | None
    help: str | None


class Source:
    """A policy file's name and text; its lines are split when the first finding needs them."""

    __slots__ = ("_lines", "file", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self._lines: list[str] | None = None

    @property
    def lines(self) -> list[str]:
        """The lines without their breaks; the end of the last line starts no other."""
        if self._lines is None:
            lines = _LINE_BREAK.split(self.text)
            self._lines = lines[:-1] if len(lines) > 1 and not lines[-1] else lines
        return self._lines

    def rest(self, line: int, column: int) -> str:
        """Return a line's text from a column on, both from 1; empty past the end."""
        return self.lines[line - 1][column - 1 :] if line <= len(self.lines) else ""

    def place(self, index: int) -> tuple[int, int]:
        """Return the line and the column, from 1, of a character by its index from 0."""
        lines = _LINE_BREAK.split(self.text[:index])
        return len(lines), len(lines[-1]) + 1

    def span(self, line: int, column: int, length: int = 1) -> Span:
        """Return the span of characters in one line; past the end, of the file's last place."""
        if line > len(self.lines):
            line, column = len(self.lines), len(self.lines[-1]) + 1
        length = max(1, min(length, len(self.lines[line - 1]) + 1 - column))
        return Span(self.file, line, column, line, column + length)

    def error(self, code: str, message: str, span: Span, **advice: Unpack[Advice]) -> Diagnostic:
        """Return an error about this file, with the whole line it stands on as its excerpt."""
        excerpt = self.excerpt(span)
        return Diagnostic(code, severity_of(code), message, span, excerpt=excerpt, **advice)

    def excerpt(self, span: Span) -> str | None:
        """Return the line that a span starts on, as a finding shows it."""
        return visible(self.lines[span.line - 1]) or None


_SHOWN = 60


def quoted(text: str, *, whole: bool = False) -> str:
    """Return the author's text in backticks, on one line, and shortened unless `whole`."""
    if not text:
        return '`""`'
    short = text if whole or len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return "`" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in short) + "`"


def listed(names: Iterable[str], word: str = "and", most: int = 8) -> str:
    """Return names as a sentence lists them, each in backticks: `a`, `b` and `c`."""
    every = list(names)
    shown = [quoted(name) for name in every[:most]]
    if len(every) > most:
        return ", ".join(shown) + f" {word} {len(every) - most} more"
    if len(shown) < 2:
        return "".join(shown)
    return ", ".join(shown[:-1]) + f" {word} {shown[-1]}"


def place_of(span: Span) -> str:
    """Return a place as a label names it: the file's own name and the line."""
    return f"{span.file.rpartition('/')[2]}:{span.line}"
