"""The lines of fused source for one rule: what to check, what to write, what to keep as receipt.

Each set of lines handles the clean case only. Whatever would refuse, degrade, notify or need a
second look leaves by `bail`, before anything is written, and is decided step by step instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from guardrail.algorithms import ROLLING_SPAN, SCALED_BELOW, pace_increment
from guardrail.engine.keys import LONGEST
from guardrail.engine.limits.base import Limit
from guardrail.engine.limits.budget import BudgetLimit
from guardrail.engine.limits.rate import RateLimit
from guardrail.engine.limits.sets import ConcurrencyLimit, DistinctLimit
from guardrail.engine.source import TEXTUAL, Source, key_expression
from guardrail.model.amounts import MINUTE, Amount, Fixed, FromFact, Lookup
from guardrail.model.rules import Rule

OTHERS = object()
"""Stands for every value that an amount's table does not list."""


class FusableTable(Protocol):
    """What fused source reads and writes of a store's table, under the store's lock."""

    current: list[dict[str, Any]]

    def find_older(self, key: str) -> Any:
        """Return a record that the current generation lacks."""
        ...

    def find(self, key: str) -> Any:
        """Return a record."""
        ...

    def put(self, key: str, record: Any, now: int) -> None:
        """Write a record."""
        ...


class FusableStore(Protocol):
    """A store that fused source may look into: its lock, its tables, how it writes records."""

    lock: Any

    def home(self, ident: str, ttl: int) -> FusableTable:
        """Return the table where the records of a counter are kept."""
        ...

    @property
    def codec(self) -> Any:
        """The module that reads and writes records."""
        ...

    @property
    def shard_mask(self) -> int:
        """What a key's hash is masked with to find its shard."""
        ...


@dataclass
class CounterLines:
    """The lines of one counter, without indentation.

    They hold where `gate` does (empty: always). `checks` run under the lock and leave by bailing
    out; `writes` run if nothing did; `debit` is the expression of the receipt. `flag` is the
    variable that is None where the counter was not reached.
    """

    flag: str
    gate: str = ""
    checks: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    debit: str = ""


@dataclass
class RuleLines:
    """The lines of one rule: what all its counters need first, and each counter's own."""

    head: list[str] = field(default_factory=list)
    counters: list[CounterLines] = field(default_factory=list)


class LineWriter:
    """Writes the lines of counting rules for one store and one generated function."""

    def __init__(self, source: Source, store: FusableStore, numbers: dict[int, int]) -> None:
        self.source = source
        self.store = store
        self.numbers = numbers
        self.units: set[str] = set()
        self.windows: dict[str, str] = {}
        self.opening: list[str] = []
        self.named = False
        constants = source.constants
        constants["read_window"] = store.codec.read_window
        constants["charged_window"] = store.codec.charged_window
        constants["read_members"] = store.codec.read_members
        constants["entered"] = store.codec.entered
        constants["pace_increment"] = pace_increment

    def rule(self, rule: Rule, limit: Limit, bail: str) -> RuleLines | None:
        """Return the lines of a rule, None if it cannot be fused."""
        if isinstance(limit, RateLimit):
            return self._rate(rule, limit, bail)
        if isinstance(limit, BudgetLimit):
            return self._budget(rule, limit, bail)
        return self._set(rule, cast(ConcurrencyLimit | DistinctLimit, limit), bail)

    def unit(self, name: str) -> str:
        """Return the variable that holds the amount of a unit."""
        self.units.add(name)
        return f"n_{name}"

    def _key(self, limit: Limit, lines: RuleLines, bail: str) -> bool:
        """Add lines that test the rule's key facts; False if the key cannot be written in line."""
        names = limit.key_facts
        if any(self.source.facts[name].type not in TEXTUAL for name in names):
            return False
        for name in names:
            lines.head.append(f"if {self.source.unplain(name, len(names) > 1)}: {bail}")
        return True

    def _key_expression(self, ident: str, limit: Limit) -> str:
        variables = [self.source.variable(name) for name in limit.key_facts]
        return key_expression(ident, variables) if variables else f'"{ident}="'

    def _allowance(
        self, amount: Amount, j: int, counter: CounterLines, lines: RuleLines, bail: str
    ) -> str:
        """Add lines that look an amount up; return the expression for it."""
        if isinstance(amount, Fixed):
            return repr(amount.value)
        lines.head.append(f"l{j} = {self.source.amount(amount)}")
        values = [amount.missing]
        if isinstance(amount, Lookup):
            values += [*amount.table.values(), amount.otherwise]
        if None in values:
            counter.gate = f"l{j} is not None"
        if 0 in values or isinstance(amount, FromFact):
            counter.checks.append(f"if not l{j}: {bail}")
        return f"l{j}"

    def _look_up(
        self, limit: Limit, number: int, ttl: int, counter: CounterLines, bail: str
    ) -> str:
        """Add lines that read a counter's record into `r…`; return the table's name for it."""
        j = self.numbers[id(limit)] + number
        table = self.store.home(limit.idents[number], ttl)
        name = self.source.constant("B", table)
        current = self.source.constant("D", table.current)
        counter.checks += [
            f"k{j} = {self._key_expression(limit.idents[number], limit)}",
            f"d{j} = {current}[hash(k{j}) & {self.store.shard_mask}]",
            f"r{j} = d{j}.get(k{j})",
            f"if r{j} is None:",
            f"    d{j} = None; r{j} = {name}.find_older(k{j})",
        ]
        if limit.key_facts:
            # A key seen for the first time may have to spill: not decided here.
            guest = self.source.variable("account.id")
            counter.checks.append(f"    if r{j} is None and {guest} is None: {bail}")
        return name

    def _write(self, j: int, table: str, record: str) -> list[str]:
        return [
            f"if d{j} is None: {table}.put(k{j}, {record}, t)",
            f"else: d{j}[k{j}] = {record}",
        ]

    def _ban(self, rule: Rule, limit: Limit, lines: RuleLines, bail: str) -> None:
        if rule.escalate is None:
            return
        ident = limit.ban_idents[1]
        table = self.source.constant("B", self.store.home(ident, rule.escalate.block_for))
        self.source.constants["drained_pair"] = self.store.codec.drained_pair
        banned = f"drained_pair({table}.find({self._key_expression(ident, limit)}))[0] > t"
        lines.head.append(f"if {banned}: {bail}")

    def _rate(self, rule: Rule, limit: RateLimit, bail: str) -> RuleLines | None:
        verb, lines, j = limit.verb, RuleLines(), self.numbers[id(limit)]
        amount, burst = verb.amount, verb.burst or verb.amount
        paces = self._paces(amount, burst, verb.period)
        if not paces or not self._key(limit, lines, bail):
            return None
        self._ban(rule, limit, lines, bail)
        n, counter = self.unit(verb.unit), CounterLines(f"k{j}")
        if isinstance(amount, Lookup):
            table, value = self.source.constant("P", paces), self.source.variable(amount.fact)
            listed = self.source.exhaustive(amount)
            others = self.source.constant("O", paces[OTHERS])
            lines.head.append(
                f"p{j} = {table}[{value}]" if listed else f"p{j} = {table}.get({value}, {others})"
            )
            if None in paces.values():
                counter.gate = f"p{j} is not None"
            if () in paces.values():
                counter.checks.append(f"if not p{j}: {bail}")
            counter.checks.append(f"l{j}, w{j}, c{j} = p{j}")
            most, step, room = f"l{j}", f"w{j}", f"c{j}"
        else:
            most, step, room = map(str, cast(tuple[int, int, int], paces[OTHERS]))
        known = [pace for pace in paces.values() if pace]
        scaled = any(pace[1] == 0 for pace in known)
        # The record outlives its drain, so that refunds of what was charged before are known.
        ttl = max((pace[2] for pace in known), default=0) + MINUTE
        table = self._look_up(limit, 0, ttl, counter, bail)
        counter.checks += [
            f"x{j} = 0",
            f"if r{j} is None: u{j} = t",
            f"elif r{j}.__class__ is int: u{j} = r{j} if r{j} > t else t",
            "else:",
            f"    u{j}, x{j} = r{j}",
            f"    if u{j} < t: u{j} = t",
            f"i{j} = pace_increment({n}, {most}, {verb.period})"
            if scaled
            else f"i{j} = {n} * {step}",
            f"v{j} = u{j} + i{j}",
            f"if v{j} > t + {room}: {bail}",
        ]
        counter.writes = self._write(j, table, f"(v{j}, x{j}) if x{j} else v{j}")
        counter.debit = f"({j}, k{j}, {room}, u{j}, i{j}, {n}, {most}, x{j})"
        lines.counters.append(counter)
        return lines

    def _paces(self, amount: Amount, burst: Amount, period: int) -> dict[object, Any]:
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

    def _budget(self, rule: Rule, limit: BudgetLimit, bail: str) -> RuleLines | None:
        lines, percent = RuleLines(), limit.alerts_at
        if not self._key(limit, lines, bail):
            return None
        self._ban(rule, limit, lines, bail)
        for number, (unit, amount) in enumerate(limit.verb.amounts):
            if amount == Fixed(0):
                return None
            if amount == Fixed(None):
                continue
            j, n = self.numbers[id(limit)] + number, self.unit(unit)
            counter = CounterLines(f"k{j}")
            most = self._allowance(amount, j, counter, lines, bail)
            table = self._look_up(limit, number, limit.ttl, counter, bail)
            reached = f"v{j} > {most}" if percent == 100 else f"v{j} * 100 > {most} * {percent}"
            counter.checks += self._window(limit, j)
            counter.checks += [f"v{j} = u{j} + {n}", f"if {reached}: {bail}"]
            counter.writes = self._write(j, table, self._record(limit, j, n))
            counter.debit = f"({j}, k{j}, s{j}, u{j}, {n}, {n}, {most}, 0)"
            lines.counters.append(counter)
        return lines

    def _record(self, limit: BudgetLimit, j: int, amount: str) -> str:
        if limit.verb.window.kind == "rolling":
            return f"charged_window(r{j}, s{j}, {ROLLING_SPAN}, {amount})"
        return f"v{j} << {self.store.codec.SLOT_BITS} | s{j}"

    def _window(self, limit: BudgetLimit, j: int) -> list[str]:
        """Return lines that set the slot `s…` and what it used, `u…`."""
        window, bits = limit.verb.window, self.store.codec.SLOT_BITS
        if window.kind == "rolling":
            current = f"t // {limit.width}"
            return [
                f"if r{j} is None: s{j} = {current}; u{j} = 0",
                f"else: u{j}, s{j} = read_window(r{j}, {current}, {ROLLING_SPAN})",
            ]
        if window.kind == "lifetime":
            return [f"s{j} = 0", f"u{j} = 0 if r{j} is None else r{j} >> {bits}"]
        slot = self.windows.get(window.kind)
        if slot is None:
            slot = self.windows[window.kind] = f"s_{window.kind}"
            held = self.source.constant("W", [0, 0, 0])
            roll = self.source.constant("R", _roller(limit, self.source.constants[held]))
            self.opening += [
                f"if not {held}[0] <= t < {held}[1]: {roll}(t)",
                f"{slot} = {held}[2]",
            ]
        return [
            f"s{j} = {slot}; u{j} = 0",
            f"if r{j} is not None:",
            f"    q{j} = r{j} & {self.store.codec.SLOT_MASK}",
            f"    if q{j} >= s{j}: s{j} = q{j}; u{j} = r{j} >> {bits}",
        ]

    def _set(
        self, rule: Rule, limit: ConcurrencyLimit | DistinctLimit, bail: str
    ) -> RuleLines | None:
        lines, most_of, j = RuleLines(), limit.verb.most, self.numbers[id(limit)]
        if most_of == Fixed(0) or not self._key(limit, lines, bail):
            return None
        if most_of == Fixed(None):
            return lines
        counter = CounterLines(f"k{j}")
        if isinstance(limit, ConcurrencyLimit):
            self.named = True
            member, until, ttl = "name", limit.verb.lease, limit.verb.lease + MINUTE
        else:
            fact = limit.verb.count
            if self.source.facts[fact].type not in TEXTUAL:
                return None
            value = self.source.variable(fact)
            lines.head.append(f"if {value} is None or len({value}) > {LONGEST}: {bail}")
            lines.head.append(f'm{j} = "=" + {value}')
            member, until, ttl = f"m{j}", limit.verb.period, limit.verb.period
        most = self._allowance(most_of, j, counter, lines, bail)
        self._ban(rule, limit, lines, bail)
        table = self._look_up(limit, 0, ttl, counter, bail)
        counter.checks += [
            f"u{j}, p{j} = read_members(r{j}, {member}, t)",
            f"if u{j} >= {most} and not p{j}: {bail}",
        ]
        counter.writes = self._write(j, table, f"entered(r{j}, {member}, t + {until}, t)")
        counter.debit = f"({j}, k{j}, 0, u{j}, 0 if p{j} else 1, 1, {most}, 0)"
        lines.counters.append(counter)
        return lines


def _pace(limit: int | None, burst: int | None, period: int) -> tuple[int, ...] | None:
    """Return (limit, interval or 0 where it is scaled, capacity)."""
    if limit is None or burst is None:
        return None
    if limit == 0 or burst == 0:
        return ()
    interval = -(-period // limit)
    return limit, 0 if interval < SCALED_BELOW else interval, pace_increment(burst, limit, period)


def _roller(limit: BudgetLimit, held: list[int]) -> Any:
    def roll(now: int) -> None:
        bounds = limit.bounds_at(now)
        held[:] = (bounds.start, bounds.end, bounds.slot)

    return roll


def indented(lines: Sequence[str], depth: int) -> list[str]:
    """Return lines moved in by so many levels."""
    return ["    " * depth + line for line in lines]
