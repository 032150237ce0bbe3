"""How wide inert text is in a terminal, and text filled up to a width."""

from __future__ import annotations

from rich.cells import cell_len

from guardrail.pages import inert, shortened

__all__ = ["inert", "padded", "shortened", "width"]


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
    for at in range(end - 1, end // 3, -1):
        if word[at] in "-/_.":
            return word[: at + 1]
    return word[:end]
