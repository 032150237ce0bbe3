"""Exemptions that raise an amount instead of lifting a rule: the amounts, put into the rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from guardrail.loading.amounts import Amounts
from guardrail.loading.findings import Place, Scope
from guardrail.loading.nodes import Entry, MapNode, kind_of
from guardrail.loading.notation import MONEY
from guardrail.loading.shaping import report_unknown_key
from guardrail.loading.text import quoted
from guardrail.model.amounts import Amount, Fixed, Raised
from guardrail.model.rules import (
    BURST,
    MOST,
    Block,
    Budget,
    Concurrency,
    CountingVerb,
    Degrade,
    Distinct,
    Exemption,
    Rate,
    Rule,
)

Raises = Mapping[str, Amount]
"""What an exemption raises the amounts of a rule to, by the key they have in the rule."""


def with_raises(
    rules: Iterable[Rule], exemptions: Iterable[tuple[MapNode, Exemption | None]], scope: Scope
) -> tuple[Rule, ...]:
    """Return rules whose amounts are what exemptions raise them to; report what cannot be."""
    found = {rule.id: rule for rule in rules}
    for node, exemption in exemptions:
        if exemption is None or node.get("raise") is None:
            continue
        compiler = _Raising(exemption, Place(node, scope.findings), scope)
        for position, name in enumerate(exemption.raises):
            if name in found:
                found[name] = compiler.raised(found[name], position)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class _Raising:
    """Raises the amounts of rules for one exemption."""

    exemption: Exemption
    place: Place
    scope: Scope

    def raised(self, rule: Rule, position: int) -> Rule:
        """Return a rule with its amounts raised, or as it is where they cannot be."""
        verb = rule.verb
        if isinstance(verb, Block | Degrade):
            message = f"rule {quoted(rule.id)} has no amount to raise"
            help = "leave `raise` out if the rule is to be lifted"
            label = f"it is a `{verb.name}`"
            self.place.report("GR118", ("rules", position), message, label=label, help=help)
            return rule
        written = self.place.at("raise")
        if not isinstance(written, MapNode) or not written.entries:
            message = f"`raise` is a map of amounts, not {kind_of(written)}"
            help = "write what the rule may allow at least, such as `raise: {tokens: 5M}`"
            self.place.report("GR102", ("raise",), message, help=help)
            return rule
        keys = _keys(verb)
        raises: dict[str, Amount] = {}
        for entry in written.entries:
            if entry.key.text not in keys:
                report_unknown_key(self.place, ("raise", entry.key.text), keys)
                continue
            amount = self._amount(verb, entry)
            if amount is not None:
                raises[entry.key.text] = amount
        return replace(rule, verb=self._with(verb, raises))

    def _amount(self, verb: CountingVerb, entry: Entry) -> Amount | None:
        """Return an amount that is raised to, which is one number for all."""
        name, amounts = entry.key.text, Amounts(self.scope)
        money = MONEY in (verb.unit if isinstance(verb, Rate) else name, name)
        if isinstance(verb, Rate) and name != BURST:
            found = amounts.rate(entry.value, money=money)
            if found is None:
                return None
            amount, period = found
            if period != verb.period and amount != Fixed(None):
                help = "write it for the time that the rule has"
                self._report(entry, "has another period than the rule", help)
                return None
        else:
            one = amounts.amount(entry.value, money=money)
            if one is None:
                return None
            amount = one
        if not isinstance(amount, Fixed):
            self._report(entry, "is not one amount", "write a number; a table stands in the rule")
            return None
        return amount

    def _report(self, entry: Entry, what: str, help: str) -> None:
        message = f"{quoted(entry.key.text)} of `raise` {what}"
        self.scope.report("GR110", entry.value, message, help=help)

    def _with(self, verb: CountingVerb, raises: Raises) -> CountingVerb:
        if isinstance(verb, Budget):
            amounts = tuple((unit, self._one(own, raises.get(unit))) for unit, own in verb.amounts)
            return replace(verb, amounts=amounts)
        if isinstance(verb, Rate):
            amount, burst = self._one(verb.amount, raises.get(verb.unit)), verb.burst
            if BURST in raises:
                burst = self._one(burst or amount, raises[BURST])
            return replace(verb, amount=amount, burst=burst)
        return replace(verb, most=self._one(verb.most, raises.get(MOST)))

    def _one(self, own: Amount, least: Amount | None) -> Amount:
        if not isinstance(least, Fixed):
            return own
        it = self.exemption
        return Raised(own, least.value, it.id, it.when, it.unknown_holds, it.expires)


def _keys(verb: CountingVerb) -> tuple[str, ...]:
    """Return the keys of the amounts that a rule has."""
    if isinstance(verb, Concurrency | Distinct):
        return (MOST,)
    return (verb.unit, BURST) if isinstance(verb, Rate) else verb.units
