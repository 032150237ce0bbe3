"""Lines that all counting rules share: keys, look-ups, writes, bans.

Lines handle the clean case only. Whatever would refuse, degrade, notify or need a second look
leaves by `bail`, before anything is written, and is decided step by step instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from guardrail.algorithms import pace_increment
from guardrail.engine.fused.parts import CounterLines, FusableStore, RuleLines
from guardrail.engine.limits.base import Limit
from guardrail.engine.limits.budget import BudgetLimit
from guardrail.engine.source import TEXTUAL, Source, key_expression
from guardrail.model.amounts import Amount, Fixed, FromFact, Lookup
from guardrail.model.rules import Rule


class RuleWriter(ABC):
    """Writes what is the same for every store: units, keys and amounts of one function."""

    def __init__(self, source: Source, numbers: dict[int, int]) -> None:
        self.source = source
        self.numbers = numbers
        self.units: set[str] = set()
        self.windows: dict[str, str] = {}
        self.opening: list[str] = []
        # What rules without a condition have tested holds for all rules after them.
        self.unconditional = False
        self.tested: set[str] = set()
        self.present: set[str] = set()
        source.constants["pace_increment"] = pace_increment

    @abstractmethod
    def lines(self, rule: Rule, limit: Limit, bail: str) -> RuleLines | None:
        """Return the lines of a counting rule, None if it cannot be fused."""

    def unit(self, name: str) -> str:
        """Return the variable that holds the amount of a unit."""
        self.units.add(name)
        # A declared unit may be called what no variable can.
        return f"n_{name if name.isidentifier() else name.encode().hex()}"

    def key(self, limit: Limit, lines: RuleLines, bail: str) -> bool:
        """Add lines that test the rule's key facts; False if the key cannot be written in line."""
        names = limit.key_facts
        if any(self.source.facts[name].type not in TEXTUAL for name in names):
            return False
        for name in names:
            test = self.source.unplain(name, len(names) > 1)
            if test not in self.tested:
                lines.head.append(f"if {test}: {bail}")
            if self.unconditional:
                self.tested.add(test)
                self.present.add(name)
        return True

    def key_expression(self, ident: str, limit: Limit) -> str:
        """Return the expression for a counter's key."""
        variables = [self.source.variable(name) for name in limit.key_facts]
        return key_expression(ident, variables) if variables else f'"{ident}="'

    def allowance(
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

    def calendar_slot(self, limit: BudgetLimit) -> str:
        """Return the variable of the calendar window's slot; its bounds are remembered."""
        kind = limit.verb.window.kind
        slot = self.windows.get(kind)
        if slot is None:
            slot = self.windows[kind] = f"s_{kind}"
            held = self.source.constant("W", [(0, 0, 0)])
            roll = self.source.constant("R", _roller(limit, self.source.constants[held]))
            # Read in one piece, as another thread may move it on.
            self.opening += [
                f"w_{kind}, e_{kind}, {slot} = {held}[0]",
                f"if not w_{kind} <= t < e_{kind}: {slot} = {roll}(t)",
            ]
        return slot


class LineWriter(RuleWriter):
    """Writes the lines of counting rules for a store that generated source looks into."""

    def __init__(self, source: Source, store: FusableStore, numbers: dict[int, int]) -> None:
        super().__init__(source, numbers)
        self.store = store
        constants = source.constants
        constants["read_window"] = store.codec.read_window
        constants["charged_window"] = store.codec.charged_window
        constants["read_members"] = store.codec.read_members
        constants["entered"] = store.codec.entered

    def look_up(self, limit: Limit, number: int, ttl: int, counter: CounterLines, bail: str) -> str:
        """Add lines that read a counter's record into `r…`; return the table's name for it."""
        j = self.numbers[id(limit)] + number
        table = self.store.home(limit.idents[number], ttl)
        name = self.source.constant("B", table)
        current = self.source.constant("D", table.current)
        counter.checks += [
            f"k{j} = {self.key_expression(limit.idents[number], limit)}",
            f"d{j} = {current}[hash(k{j}) & {self.store.shard_mask}]",
            f"r{j} = d{j}.get(k{j})",
            f"if r{j} is None:",
            f"    d{j} = None; r{j} = {name}.find_older(k{j})",
        ]
        if limit.key_facts and "account.id" not in self.present:
            # A key seen for the first time may have to spill: not decided here.
            guest = self.source.variable("account.id")
            counter.checks.append(f"    if r{j} is None and {guest} is None: {bail}")
        return name

    def write(self, j: int, table: str, record: str) -> list[str]:
        """Return lines that write a counter's new record."""
        return [
            f"if d{j} is None: {table}.put(k{j}, {record}, t)",
            f"else: d{j}[k{j}] = {record}",
        ]

    def ban(self, rule: Rule, limit: Limit, lines: RuleLines, bail: str) -> None:
        """Add lines that leave if the rule's key is banned."""
        if rule.escalate is None:
            return
        ident = limit.ban_idents[1]
        table = self.source.constant("B", self.store.home(ident, rule.escalate.block_for))
        self.source.constants["drained_pair"] = self.store.codec.drained_pair
        banned = f"drained_pair({table}.find({self.key_expression(ident, limit)}))[0] > t"
        lines.head.append(f"if {banned}: {bail}")


def _roller(limit: BudgetLimit, held: list[tuple[int, int, int]]) -> Callable[[int], int]:
    def roll(now: int) -> int:
        bounds = limit.bounds_at(now)
        held[0] = (bounds.start, bounds.end, bounds.slot)
        return bounds.slot

    return roll
