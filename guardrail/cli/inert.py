"""Text from files made harmless: what a terminal could obey is shown instead of sent."""

from __future__ import annotations

import unicodedata

from rich.cells import cell_len

# Controls, formats (bidirectional overrides among them), surrogates, unassigned and private code
# points, and the two separators that some terminals break lines at.
_SHOWN_ESCAPED = frozenset(("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"))
_LONGEST = 80


def inert(text: str) -> str:
    r"""Return text with every character a terminal could act on as an escape, such as `\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_inert_character(character) for character in text)


def shortened(text: object, longest: int = _LONGEST) -> str:
    """Return a value as inert text of at most `longest` characters, cut with an ellipsis."""
    whole = str(text)
    return inert(whole) if len(whole) <= longest else inert(whole[: longest - 1]) + "…"


def width(text: str) -> int:
    """Return how many terminal cells a text takes; wide characters take two."""
    return len(text) if text.isascii() else cell_len(text)


def padded(text: str, cells: int, *, right: bool = False) -> str:
    """Return a text filled up with spaces to a number of cells, to the left if `right`."""
    space = " " * max(0, cells - width(text))
    return space + text if right else text + space


def wrapped(text: str, cells: int) -> list[str]:
    """Return a text in lines of at most so many terminal cells, broken at spaces where it can be.

    A word that is longer than a line is broken where the line ends.
    """
    if width(text) <= cells:
        return [text]
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if width(longer) <= cells:
            line = longer
            continue
        if line:
            lines.append(line)
        while width(word) > cells:
            first = _first_part(word, cells)
            lines.append(first)
            word = word[len(first) :]
        line = word
    return [*lines, line] if line or not lines else lines


def _first_part(word: str, cells: int) -> str:
    """Return as much of the start of a word as fits, to a hyphen or slash if one is near."""
    end = 1
    while end < len(word) and width(word[: end + 1]) <= cells:
        end += 1
    for at in range(end - 1, end // 2, -1):
        if word[at] in "-/_.":
            return word[: at + 1]
    return word[:end]


def _inert_character(character: str) -> str:
    if unicodedata.category(character) not in _SHOWN_ESCAPED:
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
