"""This process's share of a limit: what it may let through by itself while the store is away."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import cast

from guardrail.engine import Finding, Limit, Part, Receipt
from guardrail.errors import SettingError
from guardrail.model.amounts import MINUTE, SECOND
from guardrail.model.cells import Cell, Member
from guardrail.model.effects import Effect
from guardrail.model.rules import Rule, Verdict

SHARE, WORKERS = "GUARDRAIL_LOCAL_SHARE", "WEB_CONCURRENCY"
WITHOUT_WORKERS = 4
"""A share is a quarter where nothing says how many processes there are."""

STORE_UNAVAILABLE = "store-unavailable"
SHORT_WAIT = SECOND
LONGEST_WAIT = MINUTE
"""Waits told while the store is away, in microseconds: it may well be back before the window."""

UNAVAILABLE = Verdict(
    effect=Effect.THROTTLE,
    reason=STORE_UNAVAILABLE,
    message="limits cannot be checked right now",
    status=503,
)


def share_from(given: Fraction | None, environ: Mapping[str, str]) -> int:
    """Return k, where this process's share of every limit is 1/k.

    Raises:
        SettingError: the share is not one part of a whole.
    """
    if given is not None:
        return _parts(given, f"`local_share` is `{given}`")
    written = environ.get(SHARE)
    if written:
        wrong = f"`{SHARE}` is `{written}`"
        try:
            return _parts(Fraction(written), wrong)
        except (ValueError, ZeroDivisionError):
            raise SettingError(f"{wrong}: write it as `1/4`") from None
    return workers_from(environ) or WITHOUT_WORKERS


def workers_from(environ: Mapping[str, str]) -> int | None:
    """Return how many processes the environment speaks of, None if of none."""
    written = environ.get(WORKERS, "").strip()
    if written.isascii() and written.isdigit() and 0 < int(written) < 1 << 20:
        return int(written)
    return None


def _parts(share: Fraction, wrong: str) -> int:
    if share.numerator != 1:
        raise SettingError(f"{wrong}: it has to be one part of a whole, such as `1/4`")
    return share.denominator


class Share:
    """A limit as this process may fill it alone: 1/k of it.

    A window's amount and a set's size are divided, rounded down, but a set holds one member at
    least. A rate charges k times the amount on the time line that the store last told, so that
    what was left of the burst, and the pace, are divided; one request is let through at least.
    It stands in plans where its limit would.
    """

    def __init__(self, limit: Limit, parts: int) -> None:
        self.limit = limit
        self.parts = parts

    @property
    def rule(self) -> Rule:
        """The limit's rule."""
        return self.limit.rule

    @property
    def first(self) -> int:
        """The number of the limit's first counter."""
        return self.limit.first

    def charged(self, cell: Cell, part: Part, charge: int) -> tuple[Cell, Part]:
        """Return a cell of the limit as part of a charge made here, and what it then stands for."""
        if isinstance(cell, Member):
            most = max(1, part.allowance // self.parts)
            return cell._replace(charge=charge, ceiling=most), self._part(part, most)
        if cell.floor:
            amount = cell.amount * self.parts
            ceiling = max(cast(int, cell.ceiling), cell.floor + amount)
            line = cell._replace(charge=charge, amount=amount, ceiling=ceiling)
            return line, self._part(part, max(1, part.allowance // self.parts))
        most = part.allowance // self.parts
        window = cell._replace(charge=charge, ceiling=self.limit.ceiling(most))
        return window, self._part(part, most)

    def judge(self, receipt: Receipt, frees: int | None, now: int) -> Finding | None:
        """Return what a reply asks for: to be over a share does not prove to be over the limit.

        So it never blocks, and waits are short.
        """
        return self._softened(self.limit.judge(receipt, frees, now))

    def sentenced(self) -> Finding:
        """Return what one refusal too many asks for, which a share does not prove either."""
        found = self._softened(self.limit.sentenced())
        assert found is not None
        return found

    def banned(self, left: int) -> Finding:
        """Return what a ban asks for that the store told of: it stands as it is."""
        return self.limit.banned(left)

    def _softened(self, found: Finding | None) -> Finding | None:
        if found is None or not found.effect.refuses:
            return found
        if found.effect is Effect.BLOCK and self.parts > 1:
            return found._replace(effect=Effect.THROTTLE, verdict=UNAVAILABLE, wait=SHORT_WAIT)
        return found._replace(wait=None if found.wait is None else min(found.wait, LONGEST_WAIT))

    def _part(self, part: Part, allowance: int) -> Part:
        return part._replace(limit=cast(Limit, self), allowance=allowance)
