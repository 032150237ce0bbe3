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
