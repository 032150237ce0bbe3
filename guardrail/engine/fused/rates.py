"""The fused lines of the verb `rate`."""

from __future__ import annotations

from typing import Any

from guardrail.algorithms import SCALED_BELOW, pace_increment
from guardrail.engine.fused.parts import CounterLines, RuleLines
from guardrail.engine.fused.writer import LineWriter, RuleWriter
from guardrail.engine.limits.rate import RateLimit
from guardrail.model.amounts import MINUTE, Amount, Fixed, Lookup
from guardrail.model.rules import Rule

OTHERS = object()
"""Stands for every value that an amount's table does not list."""


def rate_lines(writer: LineWriter, rule: Rule, limit: RateLimit, bail: str) -> RuleLines | None:
    """Return the lines of a `rate` rule, None if it cannot be fused."""
    verb, lines, j = limit.verb, RuleLines(), writer.numbers[id(limit)]
    amount, burst = verb.amount, verb.burst or verb.amount
    paces = paces_of(amount, burst, verb.period)
    if not paces or not writer.key(limit, lines, bail):
        return None
    writer.ban(rule, limit, lines, bail)
    n, counter = writer.unit(verb.unit), CounterLines(f"k{j}")
    most, step, room = pace_lines(writer, amount, paces, j, lines, counter, bail)
    known = [pace for pace in paces.values() if pace]
    scaled = any(pace[1] == 0 for pace in known)
    # The record outlives its drain, so that refunds of what was charged before are known.
    ttl = max((pace[2] for pace in known), default=0) + MINUTE
    table = writer.look_up(limit, 0, ttl, counter, bail)
    counter.checks += [
        f"x{j} = 0",
        f"if r{j} is None: u{j} = t",
        f"elif r{j}.__class__ is int: u{j} = r{j} if r{j} > t else t",
        "else:",
        f"    u{j}, x{j} = r{j}",
        f"    if u{j} < t: u{j} = t",
        f"i{j} = pace_increment({n}, {most}, {verb.period})" if scaled else f"i{j} = {n} * {step}",
        f"v{j} = u{j} + i{j}",
        f"if v{j} > t + {room}: {bail}",
    ]
    counter.writes = writer.write(j, table, f"(v{j}, x{j}) if x{j} else v{j}")
    counter.debit = f"({j}, k{j}, {room}, u{j}, i{j}, {n}, {most}, x{j})"
    lines.counters.append(counter)
    return lines


def pace_lines(
    writer: RuleWriter,
    amount: Amount,
    paces: dict[object, Any],
    j: int,
    lines: RuleLines,
    counter: CounterLines,
    bail: str,
) -> tuple[str, str, str]:
    """Add lines that look a pace up; return the expressions for its three parts."""
    if not isinstance(amount, Lookup):
        most, step, room = map(str, paces[OTHERS])
        return most, step, room
    table, value = writer.source.constant("P", paces), writer.source.variable(amount.fact)
    found = f"{table}[{value}]"
    if not writer.source.exhaustive(amount):
        found = f"{table}.get({value}, {writer.source.constant('O', paces[OTHERS])})"
    lines.head.append(f"p{j} = {found}")
    if None in paces.values():
        counter.gate = f"p{j} is not None"
    if () in paces.values():
        counter.checks.append(f"if not p{j}: {bail}")
    counter.checks.append(f"l{j}, w{j}, c{j} = p{j}")
    return f"l{j}", f"w{j}", f"c{j}"


def paces_of(amount: Amount, burst: Amount, period: int) -> dict[object, Any]:
    """Return (limit, interval, capacity) by fact value, OTHERS for any; empty: not in line.

    None stands for unlimited, the empty tuple for nothing allowed.
    """
    fixed = burst.value if isinstance(burst, Fixed) else None
    if burst is not amount and not isinstance(burst, Fixed):
        return {}
    if isinstance(amount, Fixed):
        pace = _pace(amount.value, fixed, period)
        return {OTHERS: pace} if pace else {}
    if not isinstance(amount, Lookup):
        return {}
    rows = {**amount.table, None: amount.missing, OTHERS: amount.otherwise}
    same = burst is amount
    return {v: _pace(most, most if same else fixed, period) for v, most in rows.items()}


def _pace(limit: int | None, burst: int | None, period: int) -> tuple[int, ...] | None:
    """Return (limit, interval or 0 where it is scaled, capacity)."""
    if limit is None or burst is None:
        return None
    if limit == 0 or burst == 0:
        return ()
    interval = -(-period // limit)
    return limit, 0 if interval < SCALED_BELOW else interval, pace_increment(burst, limit, period)
