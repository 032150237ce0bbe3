"""A decision's cells as flat numbers: what goes over a wire, and what comes back.

A form is what a store is asked without any cell being made for it. Its numbers are written by the
engine where a request is simple enough, else from charges and cells; a store answers both alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from guardrail.model.cells import Cell, Charge

CELL, REPLY = 10, 5
"""How many numbers tell of a cell, and how many of its reply."""
COUNTER, SET = 0, 1
MILLISECOND = 1000


class Form(NamedTuple):
    """One decision's call: the keys it names, each once, and the numbers about them.

    `charges` holds two numbers a charge: whether it is binding, and which it comes after. `cells`
    holds ten a cell: its kind, charge, key and `ttl` (milliseconds), and where it is counted in a
    full store, as the number of a key, 0 for nowhere else and −1 for being left out; then slot,
    span, floor, amount and ceiling, or member, expiry, 0, 0 and ceiling (−1 for none). Charges and
    keys are numbered from 1. `members` are the places in `cells` where a member's text stands.
    """

    keys: list[str]
    charges: list[int]
    cells: list[Any]
    members: list[int]


class Asked(Protocol):
    """A decision's call in both of its shapes; one of them is made from what the other stands for.

    The cells are needed where a form does not do: in a cluster, and to take back what came late.
    """

    @property
    def form(self) -> Form:
        """The call as numbers."""
        ...

    @property
    def charges(self) -> Sequence[Charge]:
        """The charges that the form stands for."""
        ...

    @property
    def cells(self) -> Sequence[Cell]:
        """The cells that the form stands for."""
        ...
