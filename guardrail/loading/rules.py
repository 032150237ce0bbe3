"""Compiles rules and exemptions, each on its own, so that an error in one hides none in another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from guardrail.loading.amounts import Amounts
from guardrail.loading.conditions import Conditions, Sightings
from guardrail.loading.findings import Path, Place, Scope
from guardrail.loading.nodes import MapNode, Node, plain_but
from guardrail.loading.notation import NotationError, read_instant
from guardrail.loading.shapes import VERBS, ExemptionShape, RuleShape
from guardrail.loading.shaping import keys_of, shaped
from guardrail.loading.suggest import did_you_mean, nearest
from guardrail.loading.text import listed, quoted
from guardrail.loading.values import report_notation
from guardrail.loading.verbs import Verbs
from guardrail.loading.verdicts import Verdicts
from guardrail.model.effects import Mode
from guardrail.model.facts import Source
from guardrail.model.predicates import Condition
from guardrail.model.rules import Exemption, Rule

_RULE_KEYS = frozenset(keys_of(RuleShape))


@dataclass(frozen=True, slots=True)
class Rules:
    """Compiles rules and exemptions over one scope."""

    scope: Scope
    conditions: Conditions
    amounts: Amounts = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "amounts", Amounts(self.scope))

    def rule(self, node: MapNode, index: int) -> Rule | None:
        """Compile one rule; what is wrong is reported, and None returned."""
        place = Place(node, self.scope.findings, node.get("id"))
        when = self._when(place, [])
        one_verb = self._one_verb(place)
        shape = shaped(RuleShape, plain_but(node, ("when",)), place, self.scope.units)
        if shape is None:
            return None
        verdicts = Verdicts(shape.id, place, self.scope)
        verbs = Verbs(shape, place, self.scope, verdicts, self.amounts)
        verb = verbs.verb() if one_verb else None
        escalate = None
        if shape.escalate is not None:
            escalate = verbs.escalate(shape.escalate, verb)
        start, end = self._bounds(shape, place)
        if when is None or verb is None:
            return None
        return Rule(
            id=shape.id,
            index=index,
            when=when,
            verb=verb,
            span=node.span,
            unknown=shape.unknown,
            mode=self.scope.mode if shape.mode is None else Mode(shape.mode),
            exemptible=shape.exemptible,
            start=start,
            end=end,
            escalate=escalate,
            on_store_error=shape.on_store_error,
            was=shape.was,
        )

    def exemption(self, node: MapNode) -> Exemption | None:
        """Compile one exemption; what is wrong is reported, and None returned."""
        place = Place(node, self.scope.findings, node.get("id"))
        seen: Sightings = []
        when = self._when(place, seen)
        self._server_facts_only(seen)
        shape = shaped(ExemptionShape, plain_but(node, ("when",)), place, self.scope.units)
        if shape is None:
            return None
        if not shape.rules:
            help = "name the rules it lifts"
            place.report("GR108", ("rules",), "`rules` is empty", help=help)
        for position, rule in enumerate(shape.rules):
            self._exemptible(rule, ("rules", position), place)
        expires = self._instant(shape.expires, ("expires",), place, last=True)
        if when is None or expires is None:
            return None
        return Exemption(
            id=shape.id,
            rules=tuple(dict.fromkeys(shape.rules)),
            when=when,
            reason=shape.reason,
            expires=expires,
            unknown_holds=shape.unknown == "match",
            span=node.span,
        )

    def _when(self, place: Place, seen: Sightings) -> Condition | None:
        node = cast(MapNode, place.node).get("when")
        if node is not None:
            return self.conditions.compile(node, seen)
        present = _keys(place.node)
        if not any(nearest(name, ("when",)) for name in present - _RULE_KEYS):
            help = "add `when: always` if it is meant for every request"
            place.report_key("GR102", (), "missing `when`", help=help)
        return None

    def _one_verb(self, place: Place) -> bool:
        present = _keys(place.node)
        verbs = [verb for verb in VERBS if verb in present]
        if len(verbs) == 1:
            return True
        if verbs:
            message = f"a rule has one verb, this one has {listed(verbs)}"
            help = "make a rule of each"
            in_order = [
                e.key.text for e in cast(MapNode, place.node).entries if e.key.text in verbs
            ]
            place.report_key("GR112", (in_order[1],), message, help=help)
        elif not any(nearest(name, VERBS) for name in present - _RULE_KEYS):
            help = f"add one of {listed(VERBS, 'or')}"
            place.report_key("GR112", (), "this rule has no verb", help=help)
        return False

    def _bounds(self, shape: RuleShape, place: Place) -> tuple[int | None, int | None]:
        start = end = None
        if shape.start is not None:
            start = self._instant(shape.start, ("from",), place, last=False)
        if shape.until is not None:
            end = self._instant(shape.until, ("until",), place, last=True)
        if start is not None and end is not None and start >= end:
            message = f"`until` {quoted(shape.until or '')} is not after `from`"
            label = f"`from` is {quoted(shape.start or '')}"
            place.report(
                "GR110", ("until",), message, label=label, help="the rule would never apply"
            )
        return start, end

    def _instant(self, written: str, path: Path, place: Place, *, last: bool) -> int | None:
        try:
            return read_instant(written, self.scope.zone, last=last)
        except NotationError as error:
            report_notation(self.scope, place.at(*path), error)
            return None

    def _exemptible(self, rule: str, path: Path, place: Place) -> None:
        known = self.scope.rules
        if known.get(rule, self.scope.partial):
            return
        if rule in known:
            message = f"rule {quoted(rule)} cannot be exempted"
            help = "leave it out of the exemption"
            place.report("GR118", path, message, label="it says `exemptible: false`", help=help)
            return
        help = did_you_mean(rule, nearest(rule, known), tuple(known), "rules")
        place.report("GR118", path, f"unknown rule {quoted(rule)}", help=help)

    def _server_facts_only(self, seen: Sightings) -> None:
        reported = set()
        for name, node in seen:
            fact = self.scope.facts.get(name)
            if fact is None or fact.source is Source.SERVER or (name, node.span) in reported:
                continue
            reported.add((name, node.span))
            message = f"an exemption cannot rest on {quoted(name)}"
            label = "the caller chooses its value"
            help = "test facts that the server establishes, such as `account.id`"
            self.scope.findings.report("GR119", node.span, message, label=label, help=help)


def _keys(node: Node) -> set[str]:
    return {entry.key.text for entry in node.entries} if isinstance(node, MapNode) else set()
