"""Compiles the section `links`: which evidence ties accounts together."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.loading.conditions import Conditions, Sightings
from guardrail.loading.findings import Place, Scope
from guardrail.loading.nodes import Entry, ListNode, Node, text_in
from guardrail.loading.notation import read_at, read_duration
from guardrail.loading.rules import server_facts_only
from guardrail.loading.shapes import LinksShape, LinkWindowShape
from guardrail.loading.shaping import shaped
from guardrail.loading.text import quoted
from guardrail.model.amounts import DAY
from guardrail.model.conditions import Condition
from guardrail.model.facts import FactType, Source
from guardrail.model.links import Links
from guardrail.model.rules import Limiting, Rule

MOST_KINDS = 200
"""How many strong facts and pairs of weak ones there may be; a link keeps which it is in a byte."""
LONGEST = 400 * DAY

_DERIVED = ("account.id", "actor.id", "actor.accounts", "actor.trusted_accounts")


def compile_links(entry: Entry, scope: Scope, conditions: Conditions) -> Links | None:
    """Compile the section; what is wrong is reported, and None returned."""
    place = Place(entry.value, scope.findings, entry.key)
    shape = shaped(LinksShape, place)
    if shape is None:
        return None
    before = len(scope.findings.diagnostics)
    trusted = _server_condition(shape.trusted, scope, conditions, "who is trusted")
    exempt = None
    if shape.exempt is not None:
        exempt = _server_condition(shape.exempt, scope, conditions, "who is exempt")
    _check_facts(place, scope, shape.strong, shape.weak)
    window = shape.window or LinkWindowShape()
    lengths = [
        read_at(scope, node, lambda it: read_duration(it, least=DAY, most=LONGEST))
        for node in (window.strong, window.weak)
    ]
    if trusted is None or None in lengths or len(scope.findings.diagnostics) > before:
        return None
    strong_days, weak_days = (-(-(length or 0) // DAY) for length in lengths)
    return Links(
        trusted=trusted,
        strong=tuple(shape.strong),
        weak=tuple(shape.weak),
        strong_days=strong_days,
        weak_days=weak_days,
        public_after=shape.public_after,
        max_accounts=shape.max_accounts,
        exempt=exempt,
    )


def _server_condition(
    node: Node, scope: Scope, conditions: Conditions, what: str
) -> Condition | None:
    seen: Sightings = []
    condition = conditions.compile(node, seen)
    if not server_facts_only(scope, seen, what):
        return None
    for name, at in seen:
        if name.startswith("actor."):
            message = f"{what} cannot rest on {quoted(name)}, which follows from links"
            scope.report("GR122", at, message, help="test facts of the account itself")
            return None
    return condition


def _check_facts(place: Place, scope: Scope, strong: Sequence[str], weak: Sequence[str]) -> None:
    if not strong and len(weak) < 2:
        message = "nothing links: `links` names no strong fact, and no two weak ones"
        help = "add `strong: [payment.fingerprint, kyc.subject]`"
        place.report_key("GR122", (), message, help=help)
    kinds = len(strong) + len(weak) * (len(weak) - 1) // 2
    if kinds > MOST_KINDS:
        message = f"{len(weak)} weak facts make more than {MOST_KINDS} pairs"
        place.report_key("GR122", ("weak",), message, help="leave the least telling out")
    seen: set[str] = set()
    for section in ("strong", "weak"):
        parts = place.at(section)
        nodes = parts.parts if isinstance(parts, ListNode) else ()
        for node in nodes:
            name = text_in(node) or ""
            fact = scope.fact(name, node.span)
            if fact is None:
                continue
            problem, help = None, "leave it out"
            if name in seen:
                problem = f"{quoted(name)} is named twice"
            elif name in _DERIVED or fact.type in (FactType.LIST, FactType.BOOL):
                problem = f"{quoted(name)} cannot be evidence"
                help = "name facts whose values few accounts share, such as `payment.fingerprint`"
            elif section == "strong" and fact.source is not Source.SERVER:
                problem = f"{quoted(name)} cannot link alone: the caller chooses its value"
                help = "name it under `weak`"
            seen.add(name)
            if problem is not None:
                code = "GR119" if problem.endswith("its value") else "GR122"
                scope.report(code, node, problem, help=help)


def check_actor_keys(scope: Scope, rules: Sequence[Rule]) -> None:
    """Report keys that join `actor.id` with others: their counters could not follow a merge."""
    for rule in rules:
        key = rule.verb.key.facts if isinstance(rule.verb, Limiting) else ()
        if "actor.id" in key and len(key) > 1:
            message = f"rule {quoted(rule.id)} joins `actor.id` with other facts in its key"
            help = "key it by `actor.id` alone, with one rule for each case"
            scope.report("GR122", rule.span, message, label="it counts here", help=help)
