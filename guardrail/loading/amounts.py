"""Compiles how much a limit allows: plain amounts, rates, tables by a fact, a fact's own value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from guardrail.loading.findings import Place, Scope
from guardrail.loading.nodes import MapNode, Node, Scalar, kind_of, plain, text_in
from guardrail.loading.notation import NotationError, read_amount, read_rate, report_notation, typed
from guardrail.loading.shaping import report_unknown_key
from guardrail.loading.text import listed, quoted
from guardrail.model.amounts import MICRO, MINUTE, Amount, Fixed, FromFact, Lookup
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType, Source

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
_Reader = Callable[[Scalar], int | None]


@dataclass(frozen=True, slots=True)
class Amounts:
    """Compiles amounts over one scope."""

    scope: Scope

    def amount(self, node: Node, *, money: bool = False) -> Amount | None:
        """Compile an amount; what is wrong is reported, and None returned."""
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

        if isinstance(node, MapNode) and node.get("fact") is not None:
            help = "a rate needs its period: write `60/minute`, or a table `{by: FACT, …}` of rates"
            self._report("GR110", node, "a rate cannot be a fact's value", help)
            return None
        amount = self._amount(node, read)
        return None if amount is None else (amount, periods[0] if periods else MINUTE)

    def _amount(self, node: Node, read: _Reader) -> Amount | None:
        if isinstance(node, Scalar):
            value = self._read(node, read)
            return None if isinstance(value, Failure) else Fixed(value)
        if isinstance(node, MapNode) and node.get("by") is not None:
            return self._table(node, read)
        help = "write an amount, `{by: FACT, VALUE: amount, …}` or `{fact: NAME}`"
        self._report("GR110", node, f"{kind_of(node)} is not an amount", help)
        return None

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
        if isinstance(node.get("bands"), MapNode):
            at = Place(node, self.scope.findings).key_span(("bands",))
            help = "write a row for each value, by a level, an enum, a text, a country, a whole "
            help += "number or a bool: `{by: FACT, VALUE: AMOUNT, …, else: AMOUNT}`"
            message = "`bands` of a number or a duration are not known in this version"
            self.scope.findings.report("GR101", at, message, help=help)
            return None
        fact = self._table_fact(node.get("by"))
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

    def _table_fact(self, node: Node | None) -> Fact | None:
        name = text_in(node)
        if node is None or name is None:
            if node is not None:
                self._report("GR102", node, f"`by` takes a fact, not {kind_of(node)}", None)
            return None
        fact = self.scope.fact(name, node.span)
        if fact is not None and fact.type not in _TABLE_TYPES:
            message = f"a table cannot be by {quoted(fact.name)}"
            label = f"a fact of type {fact.type.value}"
            help = "use a level, an enum, a text, a country, a whole number or a bool"
            self.scope.report("GR114", node, message, label=label, help=help)
            return None
        return fact

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
        self.scope.report("GR113", at, message, label=label, help="add `else: AMOUNT`")
        return False

    def _from_fact(self, node: MapNode, *, money: bool) -> FromFact | None:
        place = Place(node, self.scope.findings)
        unknown = [e.key.text for e in node.entries if e.key.text not in ("fact", "else")]
        for name in unknown:
            report_unknown_key(place, (name,), ("fact", "else"))
        fact = self._numeric_fact(place.at("fact"))
        missing: int | Failure | None = 0
        otherwise = node.get("else")
        if otherwise is not None:
            missing = self._entry(otherwise, lambda scalar: _plain_amount(scalar, money=money))
        if fact is None or unknown or isinstance(missing, Failure):
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
