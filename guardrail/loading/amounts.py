"""Compiles how much a limit allows: amounts and rates, plain, by a fact or from a fact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from guardrail.loading.findings import Place, Scope
from guardrail.loading.foreign import remaining
from guardrail.loading.foreign_values import begin_of_span
from guardrail.loading.lists import list_name
from guardrail.loading.nodes import (
    Entry,
    MapNode,
    Node,
    Scalar,
    all_or_none,
    kind_of,
    plain,
    text_in,
)
from guardrail.loading.notation import NotationError, read_amount, read_rate, report_notation, typed
from guardrail.loading.shaping import only_keys
from guardrail.loading.suggest import did_you_mean
from guardrail.loading.text import listed, quoted
from guardrail.model.amounts import (
    MICRO,
    MINUTE,
    Amount,
    Band,
    Banded,
    Fixed,
    FromFact,
    Lookup,
)
from guardrail.model.facts import AGES, STANDARD_FACTS, Fact, FactType, Source

BANDED_KEYS = ("by", "bands", "else")
"""The keys of an amount by bands."""
ASKED_FOR = frozenset(
    f"request.{name}"
    for name in ("capability", "endpoint", "model", "reasoning", "stream", "tools")
)
"""The client's facts that say what is asked for, and so what is served."""
_TABLE_TYPES = (
    FactType.STRING,
    FactType.BOOL,
    FactType.INTEGER,
    FactType.COUNTRY,
    FactType.ENUM,
    FactType.LEVEL,
)
_BANDED_TYPES = (FactType.INTEGER, FactType.NUMBER, FactType.DURATION)
_Reader = Callable[[Scalar], int | None]


@dataclass(frozen=True, slots=True)
class Amounts:
    """Compiles amounts over one scope."""

    scope: Scope

    def amount(self, node: Node, *, money: bool = False) -> Amount | None:
        """Compile an amount; what is wrong is reported, and None returned."""
        node = self._resolved(node)
        if isinstance(node, MapNode) and node.get("fact") is not None:
            return self._from_fact(node, money=money)
        return self._amount(node, lambda scalar: _plain_amount(scalar, money=money))

    def rate(self, node: Node, *, money: bool = False) -> tuple[Amount, int] | None:
        """Compile a rate to its amount and its period in microseconds."""
        periods: list[int] = []

        def read(scalar: Scalar) -> int | None:
            if scalar.value == "unlimited":
                return None
            written = scalar.value if isinstance(scalar.value, str) else ""
            amount, period = read_rate(written, money=money)
            periods.append(period)
            if period != periods[0]:
                raise NotationError(
                    "has another period than the entries before it",
                    "one rule has one period; write a second rule for the other",
                )
            return amount

        node = self._resolved(node)
        if isinstance(node, MapNode) and node.get("fact") is not None:
            help = "a rate needs its period: write `60/minute`, or a table `{by: FACT, …}` of rates"
            self._report("GR110", node, "a rate cannot be a fact's value", help)
            return None
        amount = self._amount(node, read)
        return None if amount is None else (amount, periods[0] if periods else MINUTE)

    def _resolved(self, node: Node) -> Node:
        """Return the table that `$NAME` stands for, any other node as it is."""
        name = list_name(node)
        return node if name is None else self.scope.tables.get(name, node)

    def _amount(self, node: Node, read: _Reader) -> Amount | None:
        name = list_name(node)
        # A sum such as `$5` is meant as an amount, though it looks like a table's name.
        if name is not None and not name[:1].isdigit():
            if not self.scope.partial:
                help = did_you_mean(name, self.scope.tables, "tables")
                self._report("GR107", node, f"unknown table {quoted(name)}", help)
            return None
        if isinstance(node, Scalar):
            value = self._read(node, read)
            return None if isinstance(value, Failure) else Fixed(value)
        if isinstance(node, MapNode) and node.get("by") is not None:
            # A value of a fact may be called `bands`; its amount is no map.
            banded = isinstance(node.get("bands"), MapNode)
            return self._banded(node, read) if banded else self._table(node, read)
        help = "write an amount, `{by: FACT, VALUE: amount, …}`, `{by: FACT, bands: {…}}` or "
        help += "`{fact: NAME}`"
        help = self._table_meant(node) or help
        self._report("GR110", node, f"{kind_of(node)} is not an amount", help)
        return None

    def _table_meant(self, node: Node) -> str | None:
        """Return the advice on a map of the values of a fact that does not name the fact."""
        keys = [entry.key.text for entry in node.entries] if isinstance(node, MapNode) else []
        values = {key for key in keys if not remaining(key) and key != "else"}
        meant = [fact for fact in self.scope.facts.values() if values and values <= {*fact.values}]
        return f"write `by: {meant[0].name}` before its rows" if len(meant) == 1 else None

    def _read(self, node: Scalar, read: _Reader) -> int | Failure | None:
        try:
            return read(node)
        except NotationError as error:
            report_notation(self.scope, node, error)
            return Failure()

    def _entry(self, node: Node, read: _Reader) -> int | Failure | None:
        if isinstance(node, Scalar):
            return self._read(node, read)
        self._report("GR110", node, f"{kind_of(node)} is not an amount", None)
        return Failure()

    def _table(self, node: MapNode, read: _Reader) -> Lookup | None:
        fact = self._by(node.get("by"))
        if fact is not None and fact.type not in _TABLE_TYPES:
            self._report_untabled(fact, cast(Node, node.get("by")))
            fact = None
        table: dict[object, int | None] = {}
        otherwise: int | Failure | None = Failure()
        failed = fact is None
        for entry in node.entries:
            name = entry.key.text
            if name == "by":
                continue
            amount = self._entry(entry.value, read)
            failed = failed or isinstance(amount, Failure)
            if name == "else":
                otherwise = amount
            elif fact is not None and fact.values and remaining(name) and name not in fact.values:
                message = f"{quoted(name)} is not a value of {quoted(fact.name)}"
                self._report("GR106", entry.key, message, "write `else` for all others")
                failed = True
            elif fact is not None:
                value = typed(fact, entry.key, self.scope)
                failed = failed or value is None
                if not isinstance(amount, Failure):
                    table[value] = amount
        if fact is None or failed or not self._complete(fact, node, table, otherwise):
            return None
        least = _smallest(table.values())
        fallback = least if isinstance(otherwise, Failure) else otherwise
        if not self._raises_nothing(fact, node, table, fallback):
            return None
        return Lookup(fact.name, table, fallback, fallback)

    def _raises_nothing(
        self, fact: Fact, node: MapNode, table: dict[object, int | None], fallback: int | None
    ) -> bool:
        """Report a row by which a client helps itself to more than one who says nothing has.

        What a request asks for is no such claim: the host serves that and nothing else.
        """
        if fact.source is Source.SERVER or fact.name in ASKED_FOR:
            return True
        unclaimed = table.get(fact.default, fallback) if fact.default is not None else fallback
        for entry in node.entries:
            value = next((v for v in table if str(v).lower() == entry.key.text.lower()), None)
            if value is None or entry.key.text in ("by", "else"):
                continue
            if _is_more(table[value], unclaimed):
                message = f"a table by {quoted(fact.name)} lets a client choose its own limit"
                label = "whoever says this gets more than who says nothing"
                self._by_client(entry.key, message, label, fact.name)
                return False
        return True

    def _by_client(self, node: Node, message: str, label: str, name: str) -> None:
        help = f"use a fact that the server establishes, or declare {quoted(name)} with "
        help += "`source: server` if yours does"
        if name in STANDARD_FACTS:
            help = "use a fact that the server establishes, such as `account.tier`"
        self.scope.report("GR119", node, message, label=label, help=help)

    def _by(self, node: Node | None) -> Fact | None:
        name = text_in(node)
        if node is None or name is None:
            if node is not None:
                self._report("GR102", node, f"`by` takes a fact, not {kind_of(node)}", None)
            return None
        return self.scope.fact(name, node.span)

    def _report_untabled(self, fact: Fact, node: Node) -> None:
        help = "use a level, an enum, a text, a country, a whole number or a bool"
        if fact.type in _BANDED_TYPES:
            help = f"write its bands: `{{by: {fact.name}, bands: {{0: AMOUNT, …}}}}`"
            if fact.type is FactType.DURATION:
                help = help.replace("0:", "0d:")
        message = f"a table cannot be by {quoted(fact.name)}"
        label = f"a fact of type {fact.type.value}"
        self.scope.report("GR114", node, message, label=label, help=help)

    def _banded(self, node: MapNode, read: _Reader) -> Banded | None:
        """Compile the amounts of bands; below the first, and missing, `else` or the smallest."""
        place = Place(node, self.scope.findings)
        fine = only_keys(place, BANDED_KEYS)
        fact = self._banded_fact(place)
        written = cast(MapNode, node.get("bands")).entries
        if not written:
            help = "write the amount from each value on, such as `{0: 50, 20: 500}`"
            self.scope.report("GR108", place.at("bands"), "`bands` is empty", help=help)
        bands = [self._band(fact, entry, read) for entry in written]
        otherwise = node.get("else")
        fallback = None if otherwise is None else self._entry(otherwise, read)
        known = all_or_none(bands)
        if fact is None or not fine or not known or not self._rising(known, written):
            return None
        if isinstance(fallback, Failure):
            return None
        if otherwise is None:
            fallback = _smallest(band.amount for band in known)
        return Banded(fact.name, known, fallback, fallback)

    def _band(self, fact: Fact | None, entry: Entry, read: _Reader) -> Band | None:
        amount = self._entry(entry.value, read)
        begins = begin_of_span(entry.key.text)
        if begins is not None:
            message = f"{quoted(entry.key.text)} is not where a band begins"
            help = f"each band goes on to the next: write {quoted(begins)}"
            self.scope.report("GR102", entry.key, message, help=help)
            return None
        start = None if fact is None else typed(fact, entry.key, self.scope)
        if isinstance(amount, Failure) or not isinstance(start, int | float):
            return None
        return Band(start, entry.key.text, amount)

    def _banded_fact(self, place: Place) -> Fact | None:
        node = place.at("by")
        fact = self._by(node)
        if fact is None:
            return None
        name = quoted(fact.name)
        message = f"bands cannot be by {name}"
        if fact.type not in _BANDED_TYPES:
            help = "use a number, a whole number or a duration; write a table of values for others"
            ages = [age for age, time in AGES.items() if time == fact.name]
            if ages:
                help = f"use how long ago it is: {quoted(ages[0])}"
            elif fact.type is FactType.TIMESTAMP:
                help = "use how long ago it is, as a fact of type duration"
            label = f"a fact of type {fact.type.value}"
            self.scope.report("GR114", node, message, label=label, help=help)
            return None
        if fact.source is Source.CLIENT:
            self._by_client(node, message, "the caller chooses its value", fact.name)
            return None
        return fact

    def _rising(self, bands: Sequence[Band], written: Sequence[Entry]) -> bool:
        for before, band, entry in zip(bands, bands[1:], written[1:], strict=False):
            if band.start <= before.start:
                message = f"band {quoted(band.text)} does not start above {quoted(before.text)}"
                help = "write the bands from the lowest to the highest, each start once"
                self._report("GR115", entry.key, message, help)
                return False
        return True

    def _complete(
        self,
        fact: Fact,
        node: MapNode,
        table: dict[object, int | None],
        otherwise: int | Failure | None,
    ) -> bool:
        if not isinstance(otherwise, Failure):
            return True
        name = quoted(fact.name)
        at = Place(node, self.scope.findings).key_span(("by",))
        if fact.type in (FactType.ENUM, FactType.LEVEL, FactType.BOOL):
            every: tuple[object, ...] = fact.values or (True, False)
            missing = [value for value in every if value not in table]
            if not missing:
                return True
            names = [str(value) if fact.values else str(value).lower() for value in missing]
            message = f"the table by {name} lacks {listed(names)}"
            help = f"add {'it' if len(names) == 1 else 'them'}, or `else: AMOUNT`"
            self.scope.report("GR113", at, message, help=help)
            return False
        message = f"the table by {name} has no `else`"
        label = f"{name} can have any value"
        help = "add `else: AMOUNT`"
        meant = next((e.key.text for e in node.entries if remaining(e.key.text)), None)
        if meant is not None:
            help = f"write `else` in the place of {quoted(meant)}, if that is for all others"
        self.scope.report("GR113", at, message, label=label, help=help)
        return False

    def _from_fact(self, node: MapNode, *, money: bool) -> FromFact | None:
        place = Place(node, self.scope.findings)
        fine = only_keys(place, ("fact", "else"))
        fact = self._numeric_fact(place.at("fact"))
        missing: int | Failure | None = 0
        otherwise = node.get("else")
        if otherwise is not None:
            missing = self._entry(otherwise, lambda scalar: _plain_amount(scalar, money=money))
        if fact is None or not fine or isinstance(missing, Failure):
            return None
        return FromFact(fact.name, MICRO if money else 1, missing)

    def _numeric_fact(self, node: Node) -> Fact | None:
        name = text_in(node)
        if name is None:
            message = f"`fact` takes the name of a fact, not {kind_of(node)}"
            self._report("GR102", node, message, None)
            return None
        fact = self.scope.fact(name, node.span)
        if fact is not None and fact.type not in (FactType.INTEGER, FactType.NUMBER):
            message = f"{quoted(fact.name)} is not an amount"
            label = f"a fact of type {fact.type.value}"
            help = "use an integer or a number"
            self.scope.report("GR114", node, message, label=label, help=help)
            return None
        if fact is not None and fact.source is Source.CLIENT:
            message = f"an amount cannot be the value of {quoted(fact.name)}"
            self._by_client(node, message, "the caller chooses its value", fact.name)
            return None
        return fact

    def _report(self, code: str, node: Node, message: str, help: str | None) -> None:
        self.scope.report(code, node, message, help=help)


class Failure:
    """Stands for an amount that could not be read, where None is unlimited."""


def _plain_amount(node: Scalar, *, money: bool) -> int | None:
    return None if node.value == "unlimited" else read_amount(plain(node), money=money)


def _is_more(amount: int | None, than: int | None) -> bool:
    return than is not None and (amount is None or amount > than)


def _smallest(amounts: Iterable[int | None]) -> int | None:
    return min((amount for amount in amounts if amount is not None), default=None)
