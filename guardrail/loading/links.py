"""Compiles the sections `links` and `score`: what ties accounts, and what tells against them."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.loading.conditions import Conditions, Sightings
from guardrail.loading.findings import Place, Scope
from guardrail.loading.nodes import Entry, ListNode, Node, all_or_none, text_in
from guardrail.loading.notation import PERCENT, NotationError, read_at, read_duration
from guardrail.loading.rules import server_facts_only
from guardrail.loading.shapes import (
    BreakerShape,
    LinksShape,
    LinkWindowShape,
    ScoreShape,
    SignShape,
)
from guardrail.loading.shaping import shaped
from guardrail.loading.text import quoted
from guardrail.model.amounts import DAY, HOUR, MINUTE
from guardrail.model.conditions import Condition, facts_of
from guardrail.model.facts import FactType, Source
from guardrail.model.links import Breaker, Links, Score, Sign
from guardrail.model.rules import Limiting, Rule

MOST_KINDS = 200
"""How many strong facts and pairs of weak ones there may be; a link keeps which it is in a byte."""
LONGEST = 400 * DAY
MOST_COUNTED = 1000


_TELLING_TOO_LITTLE = (FactType.LIST, FactType.BOOL)


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
        client=_chosen(scope, shape.weak),
    )


def _chosen(scope: Scope, names: Sequence[str]) -> frozenset[str]:
    """Return those of some facts that callers choose."""
    return frozenset(
        name for name in names if name in scope.facts and scope.facts[name].source is Source.CLIENT
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
    if not strong and (len(weak) < 2 or _chosen(scope, weak).issuperset(weak)):
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
            elif name.startswith(("account.id", "actor.")) or fact.type in _TELLING_TOO_LITTLE:
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


def compile_score(
    entry: Entry, scope: Scope, conditions: Conditions, has_links: bool
) -> Score | None:
    """Compile the section `score`; what is wrong is reported, and None returned."""
    place = Place(entry.value, scope.findings, entry.key)
    shape = shaped(ScoreShape, place)
    if shape is None:
        return None
    if not has_links:
        message = "a score needs `links`: without them every account acts alone"
        place.report_key("GR122", (), message, help="say under `links` what ties accounts together")
        return None
    window = read_at(scope, shape.window, lambda it: read_duration(it, least=HOUR, most=LONGEST))
    signs = [
        _sign(sign, place, ("evidence", at), scope, conditions)
        for at, sign in enumerate(shape.evidence)
    ]
    names = [sign.id for sign in shape.evidence]
    for at, name in enumerate(names):
        if name in names[:at]:
            message = f"evidence {quoted(name)} is there twice"
            place.report("GR104", ("evidence", at, "id"), message, help="name it otherwise")
            return None
    if len({sign.family for sign in shape.evidence}) < 2:
        message = "nothing is ever scored: all evidence is of one family"
        help = "a score takes two families that tell against an actor; add another"
        place.report_key("GR122", ("evidence",), message, help=help)
        return None
    breaker = None
    if shape.breaker is not None:
        breaker = _breaker(shape.breaker, scope, conditions)
        if breaker is None:
            return None
    whole = all_or_none(signs)
    if window is None or whole is None:
        return None
    return Score(signs=whole, window=window, min_accounts=shape.min_accounts, breaker=breaker)


def _sign(
    shape: SignShape, place: Place, path: tuple[str, int], scope: Scope, conditions: Conditions
) -> Sign | None:
    kinds = [name for name in ("count", "when", "same", "even") if getattr(shape, name)]
    if len(kinds) != 1:
        message = f"evidence {quoted(shape.id)} must be exactly one of count, when, same and even"
        place.report("GR122", path, message, help="such as `count: payment.fingerprint`")
        return None
    (kind,) = kinds
    node = place.at(*path, kind)
    fact = None
    if kind in ("count", "same"):
        known = scope.fact(str(getattr(shape, kind)), node.span)
        if known is None:
            return None
        fact = known.name
    condition = None
    if kind == "when":
        condition = conditions.compile(shape.when)
        if condition is None:
            return None
    for name in (fact,) if fact else facts_of(condition) if condition else ():
        if name.startswith("actor."):
            message = f"evidence cannot rest on {quoted(name)}, which follows from it"
            scope.report("GR122", node, message, help="test facts of the request or the account")
            return None
    read = _count if kind == "count" else _percent
    above = read_at(scope, shape.above, read)
    if above is None:
        return None
    return Sign(
        id=shape.id,
        family=shape.family,
        points=shape.points,
        kind=kind,  # type: ignore[arg-type]
        above=above,
        fact=fact,
        condition=condition,
        least=shape.least,
    )


def _breaker(shape: BreakerShape, scope: Scope, conditions: Conditions) -> Breaker | None:
    established = _server_condition(shape.established, scope, conditions, "who is established")
    per = read_at(scope, shape.per, lambda it: read_duration(it, least=MINUTE, most=LONGEST))
    if established is None or per is None:
        return None
    return Breaker(established=established, most=shape.most, per=per)


def _count(written: object) -> int:
    if isinstance(written, int) and not isinstance(written, bool) and 0 < written <= MOST_COUNTED:
        return written
    raise NotationError("is not a count", f"write a whole number up to {MOST_COUNTED}")


def _percent(written: object) -> int:
    found = PERCENT.fullmatch(written) if isinstance(written, str) else None
    if found is None or not 0 < int(found[1]) < 100:
        raise NotationError("is not a share", "write a percentage from `1%` to `99%`")
    return int(found[1])
