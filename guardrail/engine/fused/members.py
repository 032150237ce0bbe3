"""The fused lines of the verbs `concurrency` and `distinct`."""

from __future__ import annotations

from guardrail.engine.fused.parts import CounterLines, RuleLines
from guardrail.engine.fused.writer import LineWriter
from guardrail.engine.keys import LONGEST
from guardrail.engine.limits.sets import ConcurrencyLimit, DistinctLimit
from guardrail.engine.source import TEXTUAL
from guardrail.model.amounts import MINUTE, Fixed
from guardrail.model.rules import Rule


def set_lines(
    writer: LineWriter, rule: Rule, limit: ConcurrencyLimit | DistinctLimit, bail: str
) -> RuleLines | None:
    """Return the lines of a rule on a set, None if it cannot be fused."""
    lines, most_of, j = RuleLines(), limit.verb.most, writer.numbers[id(limit)]
    if most_of == Fixed(0) or not writer.key(limit, lines, bail):
        return None
    if most_of == Fixed(None):
        return lines
    counter = CounterLines(f"k{j}")
    if isinstance(limit, ConcurrencyLimit):
        member, until, ttl = "name", limit.verb.lease, limit.verb.lease + MINUTE
    else:
        fact = limit.verb.count
        if writer.source.facts[fact].type not in TEXTUAL:
            return None
        value = writer.source.variable(fact)
        lines.head.append(f"if {value} is None or len({value}) > {LONGEST}: {bail}")
        lines.head.append(f'm{j} = "=" + {value}')
        member, until, ttl = f"m{j}", limit.verb.period, limit.verb.period
    most = writer.allowance(most_of, j, counter, lines, bail)
    writer.ban(rule, limit, lines, bail)
    table = writer.look_up(limit, 0, ttl, counter, bail)
    counter.checks += [
        f"u{j}, p{j} = read_members(r{j}, {member}, t)",
        f"if u{j} >= {most} and not p{j}: {bail}",
    ]
    counter.writes = writer.write(j, table, f"entered(r{j}, {member}, t + {until}, t)")
    counter.debit = f"({j}, k{j}, 0, u{j}, 0 if p{j} else 1, 1, {most}, 0)"
    lines.counters.append(counter)
    return lines
