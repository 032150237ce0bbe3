"""Compiles the claims that policy authors want proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guardrail.loading.amounts import Amounts
from guardrail.loading.conditions import Conditions
from guardrail.loading.findings import Path, Place, Scope
from guardrail.loading.foreign import effect as other_effect
from guardrail.loading.nodes import ListNode, MapNode, Node, all_or_none, kind_of, text_in
from guardrail.loading.notation import MONEY, read_at
from guardrail.loading.rules import read_window
from guardrail.loading.shapes import ClaimShape
from guardrail.loading.shaping import shaped
from guardrail.loading.suggest import suggestion
from guardrail.loading.text import listed, quoted
from guardrail.model.amounts import Fixed
from guardrail.model.claims import AtMost, Claim
from guardrail.model.conditions import ALWAYS, Condition
from guardrail.model.effects import EFFECTS, Effect
from guardrail.model.facts import Source
from guardrail.model.rules import Window

KINDS = ("never", "always", "at_most", "client_facts")
"""The keys of a claim of which exactly one is there."""

EVER = "ever"
_ALL = "never_admit"


@dataclass(frozen=True, slots=True)
class Claims:
    """Compiles claims over one scope, once the rules are known."""

    scope: Scope
    conditions: Conditions

    def claim(self, node: MapNode) -> Claim | None:
        """Compile one claim; what is wrong is reported, and None returned."""
        place = Place(node, self.scope.findings, node.get("id"))
        shape = shaped(ClaimShape, place)
        if shape is None:
            return None
        present = [name for name in KINDS if node.get(name) is not None]
        if len(present) != 1:
            message = f"this claim says {listed(present)}" if present else "this claim says nothing"
            help = f"write exactly one of {listed(KINDS)}"
            place.report_key("GR112", (), message, help=help)
            return None
        when = self._when(node, place, present[0])
        if when is None or not self._fits(place, node, present[0]):
            return None
        common = {
            "id": shape.id,
            "when": when,
            "unknown_holds": shape.unknown == "match",
            "span": node.span,
        }
        if present[0] in ("never", "always"):
            effects = self._effects(place, present[0])
            if effects is None or not self._known(shape.by, place):
                return None
            if present[0] == "always":
                effects = tuple(effect for effect in Effect if effect not in effects)
            return Claim(**common, never=effects, by=shape.by)  # type: ignore[arg-type]
        if present[0] == "at_most":
            most = self._at_most(place, shape)
            return None if most is None else Claim(**common, at_most=most)  # type: ignore[arg-type]
        said = self._said(place, shape)
        return None if said is None else Claim(**common, said=said)  # type: ignore[arg-type]

    def _when(self, node: MapNode, place: Place, kind: str) -> Condition | None:
        written = node.get("when")
        if written is not None:
            return self.conditions.compile(written)
        if kind == "client_facts":
            return ALWAYS
        help = "add `when: always` if it is meant for every request"
        place.report_key("GR102", (), "missing `when`", help=help)
        return None

    def _fits(self, place: Place, node: MapNode, kind: str) -> bool:
        """Report the keys that go with another kind of claim, or are missing."""
        own = {"by": ("never", "always"), "per": ("at_most",), "over": ("at_most",)}
        own["except"] = ("client_facts",)
        for name, kinds in own.items():
            if node.get(name) is not None and kind not in kinds:
                message = f"`{name}` does not apply to `{kind}`"
                help = f"it goes with {listed(kinds)}; leave it out"
                place.report_key("GR101", (name,), message, help=help)
                return False
        missing = [n for n in ("per", "over") if kind == "at_most" and node.get(n) is None]
        if missing:
            help = "such as `per: account.id` and `over: ever`"
            place.report_key("GR102", ("at_most",), f"missing {listed(missing)}", help=help)
        return not missing

    def _effects(self, place: Place, kind: str) -> tuple[Effect, ...] | None:
        node = place.at(kind)
        parts: Sequence[Node] = node.parts if isinstance(node, ListNode) else (node,)
        found: list[Effect] = []
        for part in parts:
            name = text_in(part)
            if name not in EFFECTS:
                shown = kind_of(part) if name is None else quoted(name)
                help = other_effect(name or "")
                help = help or suggestion(name or "", EFFECTS, f"write {listed(EFFECTS, 'or')}")
                self.scope.report("GR106", part, f"{shown} is not an effect", help=help)
                return None
            found.append(Effect[name.upper()])
        if not found:
            place.report("GR108", (kind,), f"`{kind}` is empty", help="name an effect")
            return None
        return tuple(dict.fromkeys(found))

    def _known(self, rule: str | None, place: Place) -> bool:
        return rule is None or self.scope.rule(rule, place.at("by").span)

    def _at_most(self, place: Place, shape: ClaimShape) -> tuple[AtMost, ...] | None:
        units = place.at("at_most")
        per = place.at("per")
        key: tuple[str, ...] | None = ()
        if text_in(per) != "global":
            key = self._facts(per, said=False)
        over = read_at(self.scope, place.at("over"), _period)
        if not isinstance(units, MapNode) or not units.entries:
            help = "such as `at_most: {requests: 100}`"
            message = f"`at_most` is amounts by unit, not {kind_of(units)}"
            place.report("GR102", ("at_most",), message, help=help)
            return None
        found: list[AtMost | None] = []
        for entry in units.entries:
            unit = entry.key.text
            if unit not in self.scope.units:
                path: Path = ("at_most", unit)
                help = suggestion(
                    unit, sorted(self.scope.units), f"units: {listed(sorted(self.scope.units))}"
                )
                place.report_key("GR101", path, f"unknown unit {quoted(unit)}", help=help)
                found.append(None)
                continue
            amount = Amounts(self.scope).amount(entry.value, money=unit == MONEY)
            if not isinstance(amount, Fixed) or amount.value is None:
                if amount is not None:
                    help = "write a number, such as `100` or `50k`"
                    message = "what is claimed at most is one amount"
                    self.scope.report("GR110", entry.value, message, help=help)
                found.append(None)
            elif key is not None and over is not None:
                found.append(AtMost(unit=unit, amount=amount.value, key=key, over=over))
        return None if key is None or over is None else all_or_none(found)

    def _said(self, place: Place, shape: ClaimShape) -> tuple[str, ...] | None:
        every = [n for n, fact in self.scope.facts.items() if fact.source is Source.CLIENT]
        named = place.at("client_facts")
        if text_in(named) == _ALL:
            written = place.node.get("except") if isinstance(place.node, MapNode) else None
            left_out = () if written is None else self._facts(written, said=True)
            return None if left_out is None else tuple(n for n in every if n not in left_out)
        if not isinstance(named, ListNode) or not named.parts:
            help = f"write `client_facts: {_ALL}`, or list the facts"
            message = f"`client_facts` is `{_ALL}` or a list of facts, not {kind_of(named)}"
            place.report("GR102", ("client_facts",), message, help=help)
            return None
        return self._facts(named, said=True)

    def _facts(self, node: Node, *, said: bool) -> tuple[str, ...] | None:
        """Return the facts that a node names; `said`: by the client, or they are reported."""
        found: list[str | None] = []
        for part in node.parts if isinstance(node, ListNode) else (node,):
            text = text_in(part)
            fact = None if text is None else self.scope.fact(text, part.span)
            if text is None:
                message = f"a fact is a name, not {kind_of(part)}"
                self.scope.report("GR102", part, message)
            elif said and fact is not None and fact.source is Source.SERVER:
                message = f"{quoted(text)} is the server's: a client says nothing of it"
                self.scope.report("GR102", part, message, help="leave it out")
                fact = None
            found.append(None if fact is None else fact.name)
        return all_or_none(found)


def _period(written: object) -> Window:
    return Window("lifetime", EVER) if written == EVER else read_window(written)
