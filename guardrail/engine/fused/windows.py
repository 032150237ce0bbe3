"""The fused lines of the verb `budget`."""

from __future__ import annotations

from guardrail.algorithms import ROLLING_SPAN
from guardrail.engine.fused.parts import CounterLines, RuleLines
from guardrail.engine.fused.writer import LineWriter
from guardrail.engine.limits.budget import BudgetLimit
from guardrail.model.amounts import SECOND, Fixed
from guardrail.model.rules import Rule


def budget_lines(writer: LineWriter, rule: Rule, limit: BudgetLimit, bail: str) -> RuleLines | None:
    """Return the lines of a `budget` rule, None if it cannot be fused."""
    lines, percent = RuleLines(), limit.alerts_at
    if not writer.key(limit, lines, bail):
        return None
    writer.ban(rule, limit, lines, bail)
    for number, (unit, amount) in enumerate(limit.verb.amounts):
        if amount == Fixed(0):
            return None
        if amount == Fixed(None):
            continue
        j, n = writer.numbers[id(limit)] + number, writer.unit(unit)
        counter = CounterLines(f"k{j}")
        most = writer.allowance(amount, j, counter, lines, bail)
        table = writer.look_up(limit, number, limit.ttl, counter, bail)
        reached = f"v{j} > {most}" if percent == 100 else f"v{j} * 100 > {most} * {percent}"
        counter.checks += _window(writer, limit, j, bail)
        counter.checks += [f"v{j} = u{j} + {n}", f"if {reached}: {bail}"]
        counter.writes = writer.write(j, table, _record(writer, limit, j, n))
        counter.debit = f"({j}, k{j}, s{j}, u{j}, {n}, {n}, {most}, 0)"
        lines.counters.append(counter)
    return lines


def _record(writer: LineWriter, limit: BudgetLimit, j: int, amount: str) -> str:
    if limit.verb.window.kind == "rolling":
        return f"charged_window(r{j}, s{j}, {ROLLING_SPAN}, {amount})"
    return f"v{j} << {writer.store.codec.SLOT_BITS} | s{j}"


def _window(writer: LineWriter, limit: BudgetLimit, j: int, bail: str) -> list[str]:
    """Return lines that set the slot `s…` and what it used, `u…`.

    Slots that only a clock that was ahead can have written are left to the steps.
    """
    window, bits = limit.verb.window, writer.store.codec.SLOT_BITS
    if window.kind == "rolling":
        current = f"t // {limit.width}"
        return [
            f"if r{j} is None: s{j} = {current}; u{j} = 0",
            f"else: u{j}, s{j} = read_window(r{j}, {current}, {ROLLING_SPAN})",
            f"if s{j} > {current} + {ROLLING_SPAN + 1}: {bail}",
        ]
    if window.kind == "lifetime":
        return [f"s{j} = 0", f"u{j} = 0 if r{j} is None else r{j} >> {bits}"]
    slot = writer.calendar_slot(limit)
    return [
        f"s{j} = {slot}; u{j} = 0",
        f"if r{j} is not None:",
        f"    q{j} = r{j} & {writer.store.codec.SLOT_MASK}",
        f"    if q{j} > s{j} + {limit.ttl // SECOND}: {bail}",
        f"    if q{j} >= s{j}: s{j} = q{j}; u{j} = r{j} >> {bits}",
    ]
