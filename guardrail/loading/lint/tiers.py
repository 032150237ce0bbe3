"""Tables by a level, and bands by what is earned: amounts that fall where their fact rises."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from guardrail.errors import Span
from guardrail.loading.findings import Path
from guardrail.loading.lint.written import Written, allowances
from guardrail.loading.nodes import Entry, MapNode
from guardrail.loading.notation import MONEY
from guardrail.loading.text import listed, quoted
from guardrail.model.amounts import MICRO, Banded, Lookup, without_raises
from guardrail.model.facts import ACCOUNTS, EARNED, Fact, FactType
from guardrail.model.rules import Limiting, Rule

_LOWEST = ("anonymous", "none", "guest", "free", "unknown", "unverified", "trial")
_HIGHEST = ("enterprise", "internal", "partner", "premium", "trusted", "verified", "admin")

_Found = tuple[Rule, Path, Fact, list[tuple[str, float]]]


def lint_tiers(written: Written) -> None:
    """Report tables that give a higher tier less, and levels that seem upside down."""
    tables = list(_tables(written))
    upside_down = _upside_down(written, tables)
    for rule, path, fact, rows in tables:
        if fact.name in upside_down:
            continue
        pairs = list(pairwise(rows))
        if pairs and _stands_for_many(rule, fact, pairs[0][0][0]):
            pairs = pairs[1:]
        for (lower, more), (higher, less) in pairs:
            if less < more:
                message = f"{quoted(higher)} gets less than {quoted(lower)}, which is lower"
                money = path[-1] == MONEY
                label = f"{_shown(less, money)} after {_shown(more, money)}"
                help = "let the amounts rise with their fact, or swap them"
                at = _row(written, rule, path, higher)
                written.scope.findings.report("GR220", at, message, label=label, help=help)


def _tables(written: Written) -> Iterator[_Found]:
    """Yield the amounts that depend on a level or on what is earned, from the lowest row up."""
    for rule in written.policies.rules:
        for path, allowed in allowances(rule):
            amount = without_raises(allowed)
            if not isinstance(amount, Lookup | Banded):
                continue
            fact = written.policies.facts[amount.fact]
            if isinstance(amount, Lookup) and fact.type is FactType.LEVEL:
                values = [value for value in fact.values if value in amount.table]
                yield rule, path, fact, [(v, _size(amount.table[v])) for v in values]
            elif isinstance(amount, Banded) and fact.name in EARNED:
                yield rule, path, fact, [(b.text, _size(b.amount)) for b in amount.bands]


def _upside_down(written: Written, tables: list[_Found]) -> set[str]:
    found: set[str] = set()
    for fact in written.policies.facts.values():
        if fact.type is not FactType.LEVEL or len(fact.values) < 2 or not fact.declared:
            continue
        falling = [
            rows
            for _, _, of, rows in tables
            if of is fact and len(rows) > 2 and _falls(rows) and rows[0][1] > rows[-1][1]
        ]
        others = [rows for _, _, of, rows in tables if of is fact and not _falls(rows)]
        named = fact.values[0] in _HIGHEST or fact.values[-1] in _LOWEST
        in_order = fact.values[0] in (*_LOWEST, fact.default) or fact.values[-1] in _HIGHEST
        if (falling and not others and not in_order) or named:
            found.add(fact.name)
            message = f"the levels of {quoted(fact.name)} seem to be listed from the highest"
            label = "a level lists its values lowest first"
            help = f"write `values: [{', '.join(reversed(fact.values))}]`"
            at = _declaration(written, fact, "values")
            written.scope.findings.report("GR221", at, message, label=label, help=help)
        elif fact.default is not None and fact.default == fact.values[-1]:
            message = f"whoever has no {quoted(fact.name)} counts as {quoted(str(fact.default))}"
            label = "its highest level"
            help = f"let it be the lowest: `default: {fact.values[0]}`"
            at = _declaration(written, fact, "default")
            written.scope.findings.report("GR221", at, message, label=label, help=help)
    return found


def _falls(rows: list[tuple[str, float]]) -> bool:
    return all(more >= less for (_, more), (_, less) in pairwise(rows))


def _stands_for_many(rule: Rule, fact: Fact, lowest: str) -> bool:
    """Tell whether the lowest level is of those without an account, who share a network's limit."""
    keyed = isinstance(rule.verb, Limiting) and set(rule.verb.key.facts) & set(ACCOUNTS)
    return bool(keyed) and fact.default == lowest == (fact.values or (None,))[0]


def _row(written: Written, rule: Rule, path: Path, name: str) -> Span:
    place = written.place(rule)
    node = place.at(*path)
    inner = node.get("bands") if isinstance(node, MapNode) else None
    rows: tuple[Entry, ...] = node.entries if isinstance(node, MapNode) else ()
    if isinstance(inner, MapNode):
        rows = inner.entries
    return next((row.key.span for row in rows if row.key.text == name), place.key_span(path))


def _declaration(written: Written, fact: Fact, part: str) -> Span:
    for _, facts in written.sections("facts"):
        declared = facts.get(fact.name) if isinstance(facts, MapNode) else None
        if isinstance(declared, MapNode):
            found = declared.get(part)
            return declared.span if found is None else found.span
    raise LookupError(listed([fact.name]))


def _size(amount: int | None) -> float:
    return math.inf if amount is None else amount


def _shown(amount: float, money: bool) -> str:
    if amount == math.inf:
        return "unlimited"
    return f"{amount / MICRO:,g}" if money else f"{amount:,}"
