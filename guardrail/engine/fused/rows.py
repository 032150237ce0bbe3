"""The fused lines of rules whose counters are elsewhere: they write what a store is asked.

Each counter's ten numbers go into a form (see `guardrail.model.forms`), in the order in which a
plan would have its cells. Beside it a row says what the receipt needs besides the reply: where the
reply starts, counted from the first cell's; the counter's number, key and kind; a rate's capacity;
increment, amount and allowance; and the share of a budget, times a hundred, past which its steps
have a say, 0 where they never do.
"""

from __future__ import annotations

from typing import cast

from guardrail.algorithms import ROLLING_SPAN
from guardrail.engine.fused.parts import CounterLines, RuleLines, indented
from guardrail.engine.fused.rates import pace_lines, paces_of
from guardrail.engine.fused.writer import RuleWriter
from guardrail.engine.keys import LONGEST, spill_text
from guardrail.engine.limits.base import Limit
from guardrail.engine.limits.budget import BudgetLimit
from guardrail.engine.limits.rate import RateLimit
from guardrail.engine.limits.sets import ConcurrencyLimit, DistinctLimit
from guardrail.engine.source import STAND_INS, TEXTUAL
from guardrail.model.amounts import MINUTE, SECOND, Fixed
from guardrail.model.cells import TOP
from guardrail.model.forms import COUNTER, MILLISECOND, SET
from guardrail.model.rules import Rule

RATE, BUDGET, MEMBERS = range(3)
MOST_AHEAD = TOP - 7_258_118_400 * SECOND
"""How far a time line may run ahead of any decision's time and still be counted."""


class RowWriter(RuleWriter):
    """Writes lines that fill in a form: `keys`, `charges`, `cells`, `members`; and its `rows`."""

    spills = False

    def lines(self, rule: Rule, limit: Limit, bail: str) -> RuleLines | None:
        """Return the lines of a counting rule, None if it cannot be fused."""
        if isinstance(limit, RateLimit):
            return self._rate(rule, limit, bail)
        if isinstance(limit, BudgetLimit):
            return self._budget(rule, limit, bail)
        return self._set(rule, cast(ConcurrencyLimit | DistinctLimit, limit), bail)

    def _rate(self, rule: Rule, limit: RateLimit, bail: str) -> RuleLines | None:
        verb, lines, j = limit.verb, RuleLines(), self.numbers[id(limit)]
        paces = paces_of(verb.amount, verb.burst or verb.amount, verb.period)
        known = [pace for pace in paces.values() if pace]
        if not paces or not self.key(limit, lines, bail):
            return None
        if any(capacity > MOST_AHEAD for _, _, capacity in known):
            return None
        n, counter = self.unit(verb.unit), CounterLines()
        most, step, room = pace_lines(self, verb.amount, paces, j, lines, counter, bail)
        scaled = any(pace[1] == 0 for pace in known)
        by = f"pace_increment({n}, {most}, {verb.period})" if scaled else f"{n} * {step}"
        counter.checks += [f"i{j} = {by}", f"if i{j} > {room}: {bail}"]
        counter.checks += self._opened(rule, limit)
        counter.checks += [
            *self._placed(limit, 0, j),
            f"rows.append((len(cells) // 2, {j}, k{j}, {RATE}, {room}, i{j}, {n}, {most}, 0))",
            f"cells += ({COUNTER}, c, p, -(-({room} + {MINUTE}) // {MILLISECOND}), z, 0, 1, t,"
            f" i{j}, t + {room})",
        ]
        lines.counters.append(counter)
        return lines

    def _budget(self, rule: Rule, limit: BudgetLimit, bail: str) -> RuleLines | None:
        lines, percent = RuleLines(), limit.percent
        if not self.key(limit, lines, bail):
            return None
        several = sum(amount != Fixed(None) for _, amount in limit.verb.amounts) > 1
        if several:
            lines.head.append("o = False")
        for number, (unit, amount) in enumerate(limit.verb.amounts):
            if amount == Fixed(0):
                return None
            if amount == Fixed(None):
                continue
            j, n = self.numbers[id(limit)] + number, self.unit(unit)
            counter = CounterLines()
            most = self.allowance(amount, j, counter, lines, bail)
            ceiling = _share(most, percent)
            if percent is not None:
                counter.checks.append(f"if {n} > {ceiling}: {bail}")
            opened = self._opened(rule, limit)
            if several:
                opened = ["if not o:", *indented([*opened, "o = True"], 1)]
            counter.checks += [*opened, *self._placed(limit, number, j)]
            counter.checks += self._window_row(limit, j, n, most, ceiling)
            lines.counters.append(counter)
        return lines

    def _window_row(
        self, limit: BudgetLimit, j: int, amount: str, most: str, ceiling: str
    ) -> list[str]:
        window, alerts_at = limit.verb.window, limit.alerts_at
        slot, span = "0", 1
        if window.kind == "rolling":
            slot, span = f"t // {limit.width}", ROLLING_SPAN
        elif window.kind != "lifetime":
            slot = self.calendar_slot(limit)
        alert = "0" if limit.percent == alerts_at else f"{most} * {alerts_at}"
        receipt = f"{j}, k{j}, {BUDGET}, 0, {amount}, {amount}, {most}, {alert}"
        return [
            f"rows.append((len(cells) // 2, {receipt}))",
            f"cells += ({COUNTER}, c, p, {_milliseconds(limit.ttl)}, z, {slot}, {span}, 0,"
            f" {amount}, {ceiling})",
        ]

    def _set(
        self, rule: Rule, limit: ConcurrencyLimit | DistinctLimit, bail: str
    ) -> RuleLines | None:
        lines, most_of, j = RuleLines(), limit.verb.most, self.numbers[id(limit)]
        if most_of == Fixed(0) or not self.key(limit, lines, bail):
            return None
        if most_of == Fixed(None):
            return lines
        counter = CounterLines()
        if isinstance(limit, ConcurrencyLimit):
            member, until, ttl = "name", limit.verb.lease, limit.verb.lease + MINUTE
        else:
            fact = limit.verb.count
            if self.source.facts[fact].type not in TEXTUAL:
                return None
            value = self.source.variable(fact)
            lines.head.append(f"if {value} is None or len({value}) > {LONGEST}: {bail}")
            member, until, ttl = f'"=" + {value}', limit.verb.period, limit.verb.period
        most = self.allowance(most_of, j, counter, lines, bail)
        counter.checks += self._opened(rule, limit)
        counter.checks += [
            *self._placed(limit, 0, j),
            f"rows.append((len(cells) // 2, {j}, k{j}, {MEMBERS}, 0, 0, 1, {most}, 0))",
            "members.append(len(cells) + 5)",
            f"cells += ({SET}, c, p, {_milliseconds(ttl)}, z, {member}, t + {until}, 0, 0, {most})",
        ]
        lines.counters.append(counter)
        return lines

    def _spill(self) -> str:
        """Return the variable that tells where a full store counts a request without an account."""
        if not self.spills:
            account, network = map(self.source.variable, STAND_INS)
            self.source.constants["spill_text"] = spill_text
            text = f"spill_text({{{STAND_INS[1]!r}: {network}}})"
            self.opening.append(f"spill = None if {account} is not None else {text}")
            self.spills = True
        return "spill"

    def _placed(self, limit: Limit, number: int, j: int) -> list[str]:
        """Return lines that name a counter's key `k…`, at place `p`, and its spill, at `z`."""
        ident = limit.idents[number]
        lines = [
            f"k{j} = {self.key_expression(ident, limit)}",
            f"keys.append(k{j})",
            "p = len(keys)",
        ]
        if not limit.key_facts:
            return [*lines, "z = 0"]
        return [
            *lines,
            f"if {self._spill()} is None: z = 0",
            f'else: keys.append("{ident}" + spill); z = p + 1',
        ]

    def _opened(self, rule: Rule, limit: Limit) -> list[str]:
        """Return lines that start a rule's charge, `c`, with its ban and what follows a refusal."""
        binding, escalate = int(limit.binding), rule.escalate
        lines = ["c = len(charges) // 2 + 1"]
        if escalate is None:
            return [*lines, f"charges += ({binding}, 0)"]
        strikes, ban = (self.key_expression(ident, limit) for ident in limit.ban_idents)
        within, kept = _milliseconds(escalate.within), _milliseconds(escalate.block_for)
        check = f"p, {kept}, 0, 0, 1, t, 0, t"
        return [
            *lines,
            f"charges += ({binding}, 0, 0, c, 0, c + 1)",
            f"keys += ({ban}, {strikes})",
            "p = len(keys) - 1",
            "members.append(len(cells) + 15)",
            f"cells += ({COUNTER}, c, {check}, {SET}, c + 1, p + 1, {within}, "
            f"0 if {self._spill()} is None else -1, "
            f"str(t // {SECOND}), t + {escalate.within}, 0, 0, {escalate.after - 1}, "
            f"{COUNTER}, c + 1, {check}, "
            f"{COUNTER}, c + 2, p, {kept}, 0, 0, 1, t, {escalate.block_for}, "
            f"t + {escalate.block_for})",
        ]


def _share(most: str, percent: int | None) -> str:
    """Return the expression for the ceiling of a budget that refuses at so many percent."""
    if percent is None:
        return "-1"
    return most if percent == 100 else f"{most} * {percent} // 100"


def _milliseconds(ttl: int) -> int:
    return -(-ttl // MILLISECOND) or 1
