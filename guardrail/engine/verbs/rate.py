"""The verb `rate`: a pace, GCRA on a draining counter."""

from __future__ import annotations

from itertools import product
from typing import Any, cast

from guardrail.engine.verbs.base import (
    Allowances,
    CellSpec,
    CellValues,
    Finding,
    Limit,
    OpenPlan,
    Receipt,
    RuleEmitter,
    Stand,
)
from guardrail.model.amounts import (
    MINUTE,
    Amount,
    Banded,
    Fixed,
    Lookup,
    Raised,
    possible_amounts,
)
from guardrail.model.cells import LINE, Correction, Drain
from guardrail.model.rules import Rate, Rule

SCALED_BELOW = 1_000
"""Intervals below a millisecond a unit are scaled by the amount instead of rounded up each."""

OTHERS = object()
"""Stands for every value that an amount's table does not list."""


def pace_increment(amount: int, limit: int, period: int) -> int:
    """Return how far `amount` units move a rate's time line, rounded up.

    Source: ITU-T I.371, the increment T of the generic cell rate algorithm.
    """
    interval = -(-period // limit)
    if interval >= SCALED_BELOW:
        return amount * interval
    return -(-amount * period // limit)


def pace_room(value: int, limit: int, period: int) -> int:
    """Return how many whole units fit into `value` microseconds of a rate's time line."""
    if value <= 0:
        return 0
    interval = -(-period // limit)
    return value // interval if interval >= SCALED_BELOW else value * limit // period


class RateLimit(Limit):
    """A pace: GCRA on a draining counter."""

    kind = LINE

    def __init__(self, rule: Rule, namespace: str, zone: str) -> None:
        self.verb = cast(Rate, rule.verb)
        super().__init__(rule, self.verb.over, self.verb.key)
        self.period = self.verb.period
        whose = ",".join(self.verb.key.facts)
        self.units = (self.verb.unit,)
        self.name(namespace, "rate", whose, [(self.verb.unit, str(self.verb.period))])

    def cells(self, plan: OpenPlan, allowances: Allowances, member: str) -> list[CellValues]:
        """Return the time line, which takes the request's amount."""
        limit, burst = allowances
        if limit is None or burst is None:
            return []
        if limit == 0 or burst == 0:
            plan.found.append(self.nothing_allowed())
            return []
        amount = plan.amounts[self.verb.unit]
        increment = pace_increment(amount, limit, self.period)
        capacity = pace_increment(burst, limit, self.period)
        if increment > capacity:
            plan.found.append(self.too_much(0, amount, burst))
            return []
        ceiling, kept = plan.now + capacity, capacity + MINUTE
        return [CellValues(LINE, 0, kept, increment, amount, limit, ceiling, capacity)]

    def specs(self, emitter: RuleEmitter) -> list[CellSpec] | None:
        """Return the time line, None where no table tells the pace.

        Its record is kept for as long as a full line takes to drain: that has to be known.
        """
        verb, j = self.verb, emitter.local(self)
        amount = burst = emitter.settled(verb.amount)
        if verb.burst is not None:
            burst = emitter.settled(verb.burst)
        paces = self._paces(amount, burst)
        known = [pace for pace in paces.values() if pace]
        if not paces or any(pace[2] > emitter.longest_line for pace in known):
            return None
        n, gate = emitter.amount(verb.unit), ""
        in_pairs, found = self._is_in_pairs(amount, burst), ""
        if in_pairs:
            emitter.head.append(f"b{j} = {emitter.allowance(burst)}")
            limit = f"b{j}" if burst is amount else emitter.allowance(amount)
            found = f"{emitter.constant('P', paces)}[{limit}, b{j}]"
        elif isinstance(amount, Lookup | Banded):
            table = emitter.constant("P", paces)
            if isinstance(amount, Banded):
                found = f"{table}[{emitter.row(amount)}]"
            elif emitter.exhaustive(amount):
                found = f"{table}[{emitter.variable(amount.fact)}]"
            else:
                others = emitter.constant("O", paces[OTHERS])
                found = f"{table}.get({emitter.variable(amount.fact)}, {others})"
        if found:
            most, step, room = f"l{j}", f"w{j}", f"c{j}"
            emitter.head.append(f"p{j} = {found}")
            if None in paces.values():
                gate = f"p{j} is not None"
            if () in paces.values():
                emitter.refuse_all(self, f"p{j} == ()")
            emitter.head.append(f"if p{j}: {most}, {step}, {room} = p{j}")
        elif not known:
            if () in paces.values():
                emitter.refuse_all(self, "")
            return []
        else:
            most, step, room = map(str, paces[OTHERS])
        scaled = any(pace[1] == 0 for pace in known)
        by = f"pace_increment({n}, {most}, {self.period})" if scaled else f"{n} * {step}"
        fits = str(burst.value) if isinstance(burst, Fixed) else most
        if in_pairs:
            fits = f"b{j}"
        emitter.refuse_too_much(self, 0, f"i{j}", by, room, fits, gate)
        # The record outlives its drain, so that refunds of what was charged before are known.
        kept = max((pace[2] for pace in known), default=0) + MINUTE
        return [
            CellSpec(
                LINE, 0, kept, f"{room} + {MINUTE}", f"i{j}", n, most, f"t + {room}", room,
                gate=gate,
            )
        ]  # fmt: skip

    def _paces(self, amount: Amount, burst: Amount) -> dict[object, Any]:
        """Return (limit, interval, capacity) by fact value, OTHERS for any; empty: not by a table.

        Those of bands are by row, -1 for the missing one; see `_is_in_pairs` for those by amount
        and burst.

        None stands for unlimited, the empty tuple for nothing allowed; the interval is 0 where it
        is scaled.
        """
        same = burst is amount
        if self._is_in_pairs(amount, burst):
            limits, bursts = possible_amounts(amount), possible_amounts(burst)
            if limits is None or bursts is None:
                return {}
            pairs = zip(limits, limits, strict=True) if same else product(limits, bursts)
            return {pair: self._pace(*pair) for pair in pairs}
        fixed = burst.value if isinstance(burst, Fixed) else None
        if isinstance(amount, Fixed):
            return {OTHERS: self._pace(amount.value, fixed)}
        rows: dict[object, int | None]
        if isinstance(amount, Banded):
            rows = {-1: amount.missing, **dict(enumerate(amount.rows))}
        elif isinstance(amount, Lookup):
            rows = {**amount.table, None: amount.missing, OTHERS: amount.otherwise}
        else:
            return {}
        return {v: self._pace(most, most if same else fixed) for v, most in rows.items()}

    def _is_in_pairs(self, amount: Amount, burst: Amount) -> bool:
        """Tell whether paces are looked up by amount and burst: each has values of its own."""
        own = burst is not amount and not isinstance(burst, Fixed)
        return own or isinstance(amount, Raised)

    def _pace(self, limit: int | None, burst: int | None) -> tuple[int, ...] | None:
        if limit is None or burst is None:
            return None
        if limit == 0 or burst == 0:
            return ()
        interval = -(-self.period // limit)
        step = 0 if interval < SCALED_BELOW else interval
        return limit, step, pace_increment(burst, limit, self.period)

    def judge(self, receipt: Receipt, frees: int | None, now: int) -> Finding | None:
        """Refuse until the line has drained so far that the request fits."""
        excess = receipt.used + receipt.increment - now - receipt.slot
        return self.finding(self.over, excess, receipt.number) if excess > 0 else None

    def stand(self, receipt: Receipt, now: int, charged: bool) -> Stand:
        """Return the units that fit now, of those that fit a full time line: the burst."""
        _, _, capacity, line, increment, _, limit, _ = receipt
        if charged:
            line += increment
        drains = line - now if line > now else 0
        most = pace_room(capacity, limit, self.period)
        left = pace_room(capacity - drains, limit, self.period)
        return tuple.__new__(Stand, (most, most - left, left, drains))

    def correction(self, debit: Receipt, amount: int | None, lease: str) -> Correction | None:
        """Move the time line by the difference, back no further than has not drained."""
        if amount is None or amount == debit.amount:
            return None
        delta = pace_increment(amount, debit.allowance, self.period) - debit.increment
        charged, ttl = debit.used + debit.increment, debit.slot + MINUTE
        return Drain(debit.key, delta, charged, debit.refunded, ttl)
