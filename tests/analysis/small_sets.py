"""Random policy sets over a few facts, and every request that they could tell apart.

The requests are written down by hand beside the values that rules may name: below, between, above
and beside each, nothing, and something of another type. Nothing here asks the analysis.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import Any

from guardrail.engine import FactReader, allowance, rule_applies, rule_facts
from guardrail.errors import Span
from guardrail.model.amounts import (
    DAY,
    MINUTE,
    SECOND,
    Amount,
    Band,
    Banded,
    Fixed,
    Lookup,
    Raised,
    amount_facts,
)
from guardrail.model.conditions import (
    ALWAYS,
    Comparison,
    Condition,
    Every,
    Negation,
    Rollout,
    Some,
    facts_of,
    in_rollout,
)
from guardrail.model.effects import Effect, Mode
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType, Source, epoch_of
from guardrail.model.policy import PolicySet
from guardrail.model.rules import (
    Block,
    Budget,
    Concurrency,
    Degrade,
    Distinct,
    Exemption,
    Key,
    Obligations,
    Rate,
    Rule,
    Step,
    Verdict,
    Window,
)

SPAN = Span("random.yaml", 1, 1, 1, 2)


def _at(text: str) -> float:
    found = epoch_of(text)
    assert found is not None
    return found


NOW = round(_at("2026-02-01") * SECOND)
LATER = round(_at("2026-03-01") * SECOND)
LAST = round(_at("2026-04-01") * SECOND)
TIMES = (NOW, LATER, LATER + SECOND, LAST)
TIERS = ("low", "mid", "top")


@dataclass(frozen=True, slots=True)
class Known:
    """What rules may name of one fact, and all that a request may state of it."""

    named: tuple[Any, ...]
    stated: tuple[Any, ...]


_DAYS = 86_400
ROLLOUTS = tuple(Rollout(salt, parts) for salt in ("s", "t") for parts in (300_000, 700_000))
ROLLED_OUT = tuple(
    {tuple(in_rollout(f"b{n}", one) for one in ROLLOUTS): f"b{n}" for n in range(200)}.values()
)
KNOWN: Mapping[str, Known] = {
    "account.tier": Known(TIERS, (None, *TIERS)),
    "geo.country": Known(("CU", "IR"), (None, "CU", "IR", "FR", "SE")),
    "payment.country": Known(("CU", "IR"), (None, "CU", "IR", "FR", "SE")),
    "request.tools": Known((0, 1, 3), (None, -1, 0, 1, 2, 3, 4, "?")),
    "account.paid_usd": Known((0, 20, 100), (None, -1, 0, 7.5, 20, 50, 100, 101)),
    "x.flag": Known((True, False), (None, True, False)),
    "x.tags": Known(
        ("a", "b", "c"),
        (None, [], ["d"], ["a"], ["b"], ["c"], ["a", "b"], ["a", "c"], ["b", "c"], ["a", "b", "c"]),
    ),
    "account.org": Known(("o1", "x-1"), (None, "o1", "o1b", "o2", "x-1", "x-2", "zz")),
    "client.ip": Known(
        ("192.0.2.7",),
        (None, "192.0.2.7", "192.0.2.9", "192.0.2.200", "10.0.0.1", "2001:db8::1", "2001:db9::1"),
    ),
    "account.created": Known(
        (_at("2026-01-01"), _at("2026-03-01")),
        (
            None, "2025-12-01", "2026-01-01", "2026-01-15", "2026-02-01", "2026-02-15",
            "2026-03-01", "2026-03-01T00:00:00.5Z", "2026-03-01T00:00:01Z", "2026-03-15",
            "2026-04-01", "2026-05-01",
        ),
    ),
    "account.age": Known((30 * _DAYS, 60 * _DAYS), (None, "0s", "30d", "45d", "60d", "61d")),
    "time.hour": Known((9, 17), (0, 9, 12, 17, 23)),
    # One account for each way in which they are in the two rollouts, or not.
    "account.id": Known(("a1",), (None, "a1", *ROLLED_OUT)),
    "actor.accounts": Known((2, 4), (None, 1, 2, 3, 4, 5)),
    "client.agent": Known(("g1",), (None, "g1", "zz")),
    "request.capability": Known(
        ("chat", "code", "agentic"), (None, "chat", "code", "agentic", "batch")
    ),
}  # fmt: skip
NETWORKS = tuple(
    ipaddress.ip_network(text) for text in ("192.0.2.0/25", "192.0.2.0/24", "2001:db8::/32")
)
PREFIXES = ("o", "o1", "x-")
_KEYS = ("account.id", "account.org", "client.agent")
_ORDERED = (FactType.INTEGER, FactType.NUMBER, FactType.DURATION)


def declared(rng: Random) -> Mapping[str, Fact]:
    """Return the standard vocabulary with some declarations over it."""
    tier = Fact(
        name="account.tier",
        type=FactType.LEVEL,
        source=Source.SERVER,
        values=TIERS,
        default=rng.choice((None, "low")),
        required=rng.random() < 0.1,
        declared=True,
    )
    flag = Fact(
        name="x.flag",
        type=FactType.BOOL,
        source=rng.choice((Source.CLIENT, Source.SERVER)),
        default=rng.choice((None, None, True)),
        declared=True,
    )
    tags = Fact(name="x.tags", type=FactType.LIST, source=Source.CLIENT, declared=True)
    tools = replace(
        STANDARD_FACTS["request.tools"], default=rng.choice((None, 0)), required=rng.random() < 0.1
    )
    made = {fact.name: fact for fact in (tier, flag, tags, tools)}
    return {**STANDARD_FACTS, **made}


def comparison(rng: Random, facts: Mapping[str, Fact], names: Sequence[str]) -> Comparison:
    """Return a test of one of some facts."""
    fact = facts[rng.choice(names)]
    known = KNOWN[fact.name]
    operators = ["exists", "in", "in", "in", "not_in"]
    if fact.type in _ORDERED:
        operators = ["exists", "in", "gt", "gte", "lt", "lte", "gte"]
    elif fact.type is FactType.TIMESTAMP:
        operators = ["exists", "before", "after", "before", "after"]
    elif fact.name == "account.org":
        operators += ["prefix", "prefix"]
    elif fact.type is FactType.IP:
        operators += ["cidr", "cidr"]
    if fact.name == "account.id":
        operators += ["rollout", "rollout"]
    if fact.type is FactType.COUNTRY and {"geo.country", "payment.country"} <= set(names):
        operators += ["same_as"]
    operator: Any = rng.choice(operators)
    operand: Any = rng.choice(known.named)
    if operator == "exists":
        operand = rng.random() < 0.7
    elif operator in ("in", "not_in"):
        count = rng.randint(1, min(2, len(known.named)))
        operand = frozenset(rng.sample(known.named, count))
    elif operator == "rollout":
        operand = rng.choice(ROLLOUTS)
    elif operator == "prefix":
        operand = tuple(rng.sample(PREFIXES, rng.randint(1, 2)))
    elif operator == "cidr":
        operand = tuple(rng.sample(NETWORKS, rng.randint(1, 2)))
    elif operator == "rollout":
        operand = rng.choice(ROLLOUTS)
    elif operator == "same_as":
        operand = "geo.country" if fact.name == "payment.country" else "payment.country"
    elif operator in ("before", "after") and rng.random() < 0.4:
        operand = None
    return Comparison(fact.name, operator, operand, f"{fact.name} {operator} {operand}")


def condition(
    rng: Random, facts: Mapping[str, Fact], names: Sequence[str], depth: int
) -> Condition:
    """Return a condition, nested at most so deep."""
    kind = rng.randrange(5) if depth else 0
    if kind < 2:
        return comparison(rng, facts, names)
    if kind == 2:
        return Negation(condition(rng, facts, names, depth - 1))
    parts = tuple(condition(rng, facts, names, depth - 1) for _ in range(rng.randint(1, 3)))
    return Every(parts) if kind == 3 else Some(parts)


def amount(rng: Random, names: Sequence[str], facts: Mapping[str, Fact]) -> Amount:
    """Return an amount, of few different ones, now and then one that is raised."""
    own = _amount(rng, names)
    while rng.random() < 0.2:
        when = condition(rng, facts, names, 1)
        least, ends = rng.choice((20, 20, 40, None)), rng.choice((LATER, LAST, NOW))
        own = Raised(own, least, "raising", when, rng.random() < 0.3, ends)
    return own


def _amount(rng: Random, names: Sequence[str]) -> Amount:

    def number() -> int | None:
        return rng.choice((10, 10, 20, 30, 0, None) if rng.random() < 0.3 else (10, 20, 30))

    if "account.tier" in names and rng.random() < 0.3:
        return Lookup("account.tier", {t: number() for t in TIERS}, number(), number())
    if "account.paid_usd" in names and rng.random() < 0.4:
        bands = tuple(Band(start, str(start), number()) for start in (0, 20, 100))
        return Banded("account.paid_usd", bands, number(), number())
    return Fixed(number())


def verb(rng: Random, names: Sequence[str], counting: float, facts: Mapping[str, Fact]) -> Any:
    """Return a verb; `counting` is how likely it is one that counts."""
    block = Verdict(effect=Effect.BLOCK, reason=rng.choice(("no", "no", "stop")))
    if rng.random() >= counting:
        if rng.random() < 0.7:
            return Block(block)
        obligations = Obligations(
            max_output_tokens=rng.choice((None, 16, 64)),
            disable=rng.choice(((), ("tools",), ("tools", "stream"))),
        )
        if obligations == Obligations():
            obligations = Obligations(max_output_tokens=64)
        return Degrade(Verdict(effect=Effect.DEGRADE, reason="less", obligations=obligations))
    throttle = Verdict(effect=Effect.THROTTLE, reason="slow")
    over = rng.choice((throttle, throttle, block))
    key = Key(rng.choice((("account.id",), ("account.id",), (), ("account.id", "account.org"))))
    kind = rng.randrange(6)
    if kind == 0:
        burst = rng.choice((None, Fixed(10), Fixed(20)))
        return Rate(
            unit="requests", amount=amount(rng, names, facts), period=rng.choice((SECOND, MINUTE)),
            burst=burst, key=key, over=over,
        )  # fmt: skip
    if kind == 1:
        return Concurrency(most=amount(rng, names, facts), lease=10 * MINUTE, key=key, over=over)
    if kind == 2:
        period = rng.choice((DAY, 30 * DAY))
        return Distinct(
            count="client.agent", most=amount(rng, names, facts), period=period, key=key, over=over
        )
    windows = (
        Window("day", "day"),
        Window("rolling", "30d", 30 * DAY),
        Window("lifetime", "lifetime"),
    )
    steps = [Step(percent=100, verdict=over)]
    if rng.random() < 0.2:
        steps.insert(0, Step(percent=80, verdict=throttle))
    return Budget(
        amounts=((rng.choice(("requests", "requests", "tokens")), amount(rng, names, facts)),),
        window=rng.choice(windows),
        key=key,
        steps=tuple(steps),
    )


def rule(
    rng: Random, facts: Mapping[str, Fact], names: Sequence[str], index: int, counting: float
) -> Rule:
    """Return a rule over some facts."""
    return Rule(
        id=f"r{index}",
        index=index,
        when=ALWAYS if rng.random() < 0.1 else condition(rng, facts, names, 2),
        verb=verb(rng, names, counting, facts),
        span=SPAN,
        unknown=rng.choice((None, "match", "skip", "skip")),
        mode=rng.choice((*(Mode.ENFORCE,) * 8, Mode.SHADOW, Mode.OFF)),
        start=rng.choice((None,) * 8 + (LATER,)),
        end=rng.choice((None,) * 8 + (LATER, NOW)),
    )


def policy_set(
    rng: Random, facts: Mapping[str, Fact], names: Sequence[str], counting: float
) -> PolicySet:
    """Return a set of a few rules over some facts."""
    rules = tuple(rule(rng, facts, names, i, counting) for i in range(rng.randint(1, 4)))
    exemptions = tuple(
        Exemption(
            id=f"e{i}",
            rules=tuple(r.id for r in rng.sample(rules, min(len(rules), 2))),
            when=condition(rng, facts, names, 1),
            reason="agreed",
            expires=rng.choice((LATER, LAST, NOW)),
            unknown_holds=rng.random() < 0.3,
            span=SPAN,
        )
        for i in range(rng.choice((0, 0, 1)))
    )
    return made_of(facts, rules, exemptions)


def made_of(
    facts: Mapping[str, Fact], rules: Sequence[Rule], exemptions: Sequence[Exemption]
) -> PolicySet:
    """Return a policy set of some rules, numbered in their order."""
    return PolicySet(
        name="random",
        revision="sha256:0",
        files=("random.yaml",),
        facts=facts,
        rules=tuple(replace(rule, index=i) for i, rule in enumerate(rules)),
        exemptions=tuple(exemptions),
    )


def changed(rng: Random, policies: PolicySet, names: Sequence[str], counting: float) -> PolicySet:
    """Return a set like another one, with some of its rules another way."""
    rules = list(policies.rules)
    for _ in range(rng.randint(1, 2)):
        place = rng.randrange(len(rules))
        kind = rng.randrange(9)
        one = rules[place]
        if kind == 0 and len(rules) > 1:
            rules.pop(place)
        elif kind == 1:
            rules[place] = replace(one, when=condition(rng, policies.facts, names, 2))
        elif kind == 2:
            rules[place] = replace(one, unknown=rng.choice((None, "match", "skip")))
        elif kind == 3:
            rules[place] = replace(one, verb=verb(rng, names, counting, policies.facts))
        elif kind == 4:
            rules[place] = replace(one, mode=rng.choice(tuple(Mode)))
        elif kind > 5:
            rules[place] = replace(one, verb=_tweaked(rng, one.verb, names, policies.facts))
        else:
            fresh = rule(rng, policies.facts, names, 90 + rng.randrange(9), counting)
            if all(other.id != fresh.id for other in rules):
                rules.append(fresh)
    facts = declared(rng) if rng.random() < 0.1 else policies.facts
    kept = {rule.id for rule in rules}
    exemptions = [
        replace(ex, rules=tuple(name for name in ex.rules if name in kept))
        for ex in policies.exemptions
    ]
    return made_of(facts, rules, [ex for ex in exemptions if ex.rules and rng.random() < 0.8])


def _tweaked(rng: Random, one: Any, names: Sequence[str], facts: Mapping[str, Fact]) -> Any:
    """Return a verb with one of its parts another way."""
    if isinstance(one, Block | Degrade):
        return verb(rng, names, 0.0, facts)
    kind = rng.randrange(4)
    if kind == 0:
        return replace(
            one, key=Key(rng.choice(((), ("account.id",), ("account.id", "account.org"))))
        )
    if kind == 1 and isinstance(one, Budget):
        windows = (Window("day", "day"), Window("rolling", "30d", 30 * DAY))
        return replace(one, window=rng.choice((*windows, Window("lifetime", "lifetime"))))
    if kind == 2 and isinstance(one, Budget):
        effect = rng.choice((Effect.THROTTLE, Effect.BLOCK))
        last = Step(percent=100, verdict=replace(one.over, effect=effect))
        return replace(one, steps=(*one.steps[:-1], last))
    if isinstance(one, Budget):
        return replace(one, amounts=((one.units[0], amount(rng, names, facts)),))
    if isinstance(one, Rate):
        return replace(one, amount=amount(rng, names, facts))
    return replace(one, most=amount(rng, names, facts))


def chosen_names(rng: Random) -> tuple[str, ...]:
    """Return a few facts that together have not too many values."""
    names = rng.sample(sorted(KNOWN), 3)
    if rng.random() < 0.2:
        names = ["geo.country", "payment.country", rng.choice(("x.flag", "account.tier"))]
    if rng.random() < 0.15:
        names = ["account.age", "account.created", rng.choice(("x.flag", "account.tier"))]
    if rng.random() < 0.5:
        names.pop()
    if math.prod(len(KNOWN[name].stated) for name in _with_sources(names)) > 120:
        return chosen_names(rng)
    return tuple(names)


def _with_sources(names: Iterable[str]) -> set[str]:
    """Return the names of facts, with those that they follow from."""
    found = set(names)
    if "account.age" in found:
        found.add("account.created")
    if "actor.accounts" in found:
        found.add("account.id")
    return found


def tested(*sets: PolicySet) -> set[str]:
    """Return the names of the facts that conditions test and amounts depend on."""
    found: set[str] = set()
    for policies in sets:
        whens = [one.when for one in policies.rules] + [one.when for one in policies.exemptions]
        found |= frozenset().union(*map(facts_of, whens))
        for one in policies.rules:
            found.update(name for a in one.verb.allowances for name in amount_facts(a))
            found.update(one.verb.facts if one.unknown == "skip" else ())
    return found & KNOWN.keys()


def requests(*sets: PolicySet) -> Iterator[dict[str, object]]:
    """Yield every request that some sets could tell apart."""
    stated = _stated(*sets)
    for values in product(*stated.values()):
        yield {n: v for n, v in zip(stated, values, strict=True) if v is not None}


def how_many(*sets: PolicySet) -> int:
    """Return how many requests some sets could tell apart."""
    return math.prod(map(len, _stated(*sets).values()))


def _stated(*sets: PolicySet) -> dict[str, list[Any]]:
    """Return what a request may state of each fact that matters to some sets."""
    names: set[str] = set()
    for policies in sets:
        for one in policies.rules:
            names |= rule_facts(one, policies.exemptions, stand_ins=False)
        names |= {name for name, fact in policies.facts.items() if fact.required}
    ordered = sorted(_with_sources(names - set(_KEYS)) | (names & tested(*sets)))
    wrong_for = {
        name
        for policies in sets
        for name, fact in policies.facts.items()
        if fact.source is Source.CLIENT
    }
    rows = [
        [v for v in KNOWN[name].stated if v != "?" or name in wrong_for]
        + (["?"] if name == "x.flag" and name in wrong_for else [])
        for name in ordered
    ]
    return dict(zip(ordered, rows, strict=True))


class Reading:
    """How one set reads requests: by the engine's own parts, a rule at a time."""

    def __init__(self, policies: PolicySet) -> None:
        self.policies = policies
        used = {n for r in policies.rules for n in rule_facts(r, policies.exemptions)}
        self.reader = FactReader(policies.facts, used, policies.timezone)
        self.rules = [
            (rule, rule_applies(rule, policies.exemptions))
            for rule in policies.rules
            if rule.mode is Mode.ENFORCE
        ]
        self.required = [name for name, fact in policies.facts.items() if fact.required]

    def typed(self, facts: Mapping[str, object], now: int) -> dict[str, Any]:
        """Return the typed facts of a request."""
        return self.reader.read(facts, now / SECOND)[0]

    def applying(self, facts: Mapping[str, object], now: int) -> tuple[dict[str, Any], list[Rule]]:
        """Return the typed facts, and the enforced rules that apply to them."""
        typed = self.typed(facts, now)
        found = [
            rule
            for rule, applies in self.rules
            if applies(typed, now)
            and not (rule.unknown == "skip" and any(n not in typed for n in rule.verb.facts))
        ]
        return typed, found


Asked = tuple[Any, ...]
"""What a rule asks for of one request: ("refuse",), ("oblige", name, value) or a limit."""


def asked(reading: Reading, facts: Mapping[str, object], now: int) -> list[tuple[str, Asked]]:
    """Return all that a set asks for of one request, each with the id of its rule."""
    typed, rules = reading.applying(facts, now)
    found: list[tuple[str, Asked]] = [
        ("required", ("refuse",)) for name in reading.required if name not in typed
    ]
    for one in rules:
        found += [(one.id, what) for what in _asked_by(reading.policies, one, typed, now)]
    return found


def _obliged(policies: PolicySet, verdict: Verdict, typed: Mapping[str, Any]) -> Iterator[Asked]:
    obliged = verdict.obligations
    assert obliged is not None
    if obliged.max_output_tokens:
        yield ("oblige", "cap", obliged.max_output_tokens)
    for name in obliged.disable:
        yield ("oblige", "disable", name)
    for name in obliged.extra:
        yield ("oblige", "extra", name)
    if obliged.model in policies.weaker_than(typed.get("request.model")):
        yield ("oblige", "model", tuple(policies.models).index(obliged.model))


def _asked_by(
    policies: PolicySet, rule: Rule, typed: Mapping[str, Any], now: int
) -> Iterator[Asked]:
    verb: Any = rule.verb
    if isinstance(verb, Block):
        yield ("refuse",)
        return
    if isinstance(verb, Degrade):
        yield from _obliged(policies, verb.verdict, typed)
        return
    if isinstance(verb, Budget):
        for unit, one in verb.amounts:
            most = allowance(one, typed, now)
            if most == 0:
                yield from _nothing(policies, verb, typed)
            for step in verb.steps if most else ():
                assert most is not None
                figures: tuple[Any, ...] = (most * step.percent,)
                how: tuple[Any, ...] = ((unit,), verb.window)
                yield from _limit(policies, rule, step.verdict, how, figures, typed, step.percent)
        return
    figures = tuple(allowance(one, typed, now) for one in verb.allowances)
    if None in figures:
        return
    if 0 in figures:
        yield from _nothing(policies, verb, typed)
        return
    how = ((), None)
    if isinstance(verb, Rate):
        how = ((verb.unit,), None)
        figures = (figures[0] * 60 * MINUTE // verb.period, figures[1])
    elif isinstance(verb, Distinct):
        how = ((verb.count,), None)
    yield from _limit(policies, rule, verb.over, how, figures, typed, 100)


def _nothing(policies: PolicySet, verb: Any, typed: Mapping[str, Any]) -> Iterator[Asked]:
    if verb.over.effect is Effect.DEGRADE:
        yield from _obliged(policies, verb.over, typed)
    else:
        yield ("refuse",)


def _limit(
    policies: PolicySet,
    rule: Rule,
    verdict: Verdict,
    how: tuple[Any, ...],
    figures: tuple[Any, ...],
    typed: Mapping[str, Any],
    percent: int,
) -> Iterator[Asked]:
    verb: Any = rule.verb
    obliged: list[Any] = [None]
    if verdict.effect is Effect.ALLOW:
        return
    if verdict.effect is Effect.DEGRADE:
        obliged = list(_obliged(policies, verdict, typed))
    for what in obliged:
        lasts = verb.lasts or verb.in_flight
        yield (
            "limit", verb.name, how[0], verb.key.facts, rule.unknown, how[1], lasts,
            verdict.effect, figures, what, rule.on_store_error, None, percent,
        )  # fmt: skip
        if rule.escalate is not None and verdict.effect.refuses:
            ban = rule.escalate
            yield (
                "limit", verb.name, how[0], verb.key.facts, rule.unknown, how[1], lasts,
                Effect.BLOCK, figures, None, rule.on_store_error, ban, percent,
            )  # fmt: skip


_AWAY = {"allow": 0, None: 1, "local": 1, "deny": 2}


def as_strict(b: Asked, a: Asked) -> bool:
    """Tell whether `b` is at least as strict as `a`."""
    if b[0] == "refuse":
        return True
    if a[0] != b[0]:
        return False
    if a[0] == "oblige":
        return _as_much(b, a)
    _, verb, how, key, unknown, window, lasts, effect, figures, obliged, away, ban, _ = a
    _, verb2, how2, key2, unknown2, window2, lasts2, effect2, figures2, obliged2, away2, ban2, _ = b
    if (verb, how) != (verb2, how2) or effect2 < effect or not set(key2) <= set(key):
        return False
    if not effect2.refuses and not _as_much(obliged2, obliged):
        return False
    if key2 and unknown == "match" and unknown2 != "match":
        return False
    if _AWAY[away2] < _AWAY[away] or (ban is None) != (ban2 is None):
        return False
    if ban is not None and (
        ban2.after > ban.after or ban2.within < ban.within or ban2.block_for < ban.block_for
    ):
        return False
    if verb == "budget" and not _contains(window2, window):
        return False
    if verb != "budget" and lasts2 < lasts and verb != "rate":
        return False
    return all(x <= y for x, y in zip(figures2, figures, strict=True))


def _as_much(b: Asked, a: Asked) -> bool:
    if b[1] != a[1]:
        return False
    if a[1] == "cap":
        return bool(b[2] <= a[2])
    # Models stand in their order, the weaker one later.
    return bool(b[2] >= a[2]) if a[1] == "model" else bool(b[2] == a[2])


def _contains(b: Window, a: Window) -> bool:
    if b == a or b.kind == "lifetime":
        return True
    if a.kind == "lifetime" or b.length is None:
        return (a.kind, b.kind) in (("day", "week"), ("day", "month"))
    longest = {"day": 25, "week": 7 * 24 + 1, "month": 31 * 24 + 1}
    length = longest[a.kind] * 60 * MINUTE if a.length is None else a.length * 61 // 60 + 1
    return b.length >= length
