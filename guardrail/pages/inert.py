"""Text from files made harmless: what a terminal or a reader's eye could obey is shown instead."""

from __future__ import annotations

import unicodedata

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


def _inert_character(character: str) -> str:
    if unicodedata.category(character) not in _SHOWN_ESCAPED:
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
