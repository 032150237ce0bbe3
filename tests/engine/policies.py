"""Random policy sets, as values: every verb, key, window and way to be unsure, by a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import strategies as st

from guardrail.errors import Span
from guardrail.model.amounts import DAY, HOUR, MINUTE, SECOND, Amount, Fixed, FromFact, Lookup
from guardrail.model.conditions import ALWAYS, Comparison, Every
from guardrail.model.effects import Effect, Mode
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType, Source
from guardrail.model.policy import Model, PolicySet, Price
from guardrail.model.rules import (
    Block,
    Budget,
    Concurrency,
    CountingVerb,
    Degrade,
    Distinct,
    Escalate,
    Exemption,
    Key,
    Obligations,
    Rate,
    Rule,
    Step,
    Verdict,
    Window,
)
from tests.engine.conditions import VALUES, condition, operand_values

START = 1_767_614_400 * SECOND
SPAN = Span("random.yaml", 1, 1, 1, 2)
TIERS = ("anonymous", "email", "verified")
ZONES = ("UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns")
UNITS = ("requests", "tokens", "input_tokens", "output_tokens", "cost_usd", "images")
KEYS = (
    *(("account.id",),) * 4,
    ("account.id", "request.model"),
    ("kyc.subject", "account.org"),
    ("account.tier", "x.score"),
    ("client.ip",),
    ("geo.country",),
    (),
)
WINDOWS = (
    *(Window(kind, kind) for kind in ("hour", "day", "week", "month", "lifetime")),
    Window("rolling", "1m", MINUTE),
    Window("rolling", "90m", 90 * MINUTE),
    Window("rolling", "30d", 30 * DAY),
)


def declared_facts(rng: Random) -> Mapping[str, Fact]:
    """Return the standard vocabulary with some declarations over it."""

    def own(name: str, kind: FactType, **more: Any) -> Fact:
        return Fact(name=name, type=kind, source=Source.SERVER, declared=True, **more)

    default = rng.choice((None, "anonymous"))
    rows = [
        own("account.tier", FactType.LEVEL, values=TIERS, default=default),
        own("x.score", FactType.NUMBER, default=rng.choice((None, 3))),
        own("x.flag", FactType.BOOL),
        own("x.tags", FactType.LIST),
        own("x.since", FactType.TIMESTAMP),
        own("x.quota", FactType.NUMBER, required=rng.random() < 0.1),
    ]
    return {**STANDARD_FACTS, **{fact.name: fact for fact in rows}}


def models() -> Mapping[str, Model]:
    """Return a chain of three models, and one that is not priced."""
    price = Price(input=15_000_000, output=75_000_000, cached_input=1_500_000)
    cheap = Price(input=1_234_567, output=5_000_001, cached_input=333)
    large = Model(name="large", price=price, max_output=64, weaker="medium", aliases=("big",))
    medium = Model(name="medium", price=cheap, max_output=32, weaker="small")
    free = Model(name="free")
    return {m.name: m for m in (large, medium, Model(name="small", price=cheap), free)}


def obligations(rng: Random) -> Obligations:
    """Return something to oblige a host to, perhaps nothing it can be obliged to."""
    return Obligations(
        model=rng.choice((None, None, "medium", "small")),
        max_output_tokens=rng.choice((None, 16, 1024)),
        disable=rng.choice(((), ("tools",), ("reasoning", "stream"))),
        extra=rng.choice(({}, {"x-note": "a"}, {"x-note": "b", "x-more": "c"})),
    )


def verdict(rng: Random, effect: Effect) -> Verdict:
    """Return a verdict of one effect."""
    reason = f"{effect}-{rng.randrange(3)}"
    if effect.refuses:
        message, status = rng.choice((None, "no")), rng.choice((None, 451))
        return Verdict(effect=effect, reason=reason, message=message, status=status)
    return Verdict(effect=effect, reason=reason, obligations=obligations(rng))


def over(rng: Random, *, notices: bool = False) -> Verdict:
    """Return what a limit asks for when it refuses, or a notice of a step on the way."""
    effects = [Effect.DEGRADE, Effect.THROTTLE, Effect.THROTTLE, Effect.BLOCK]
    return verdict(rng, rng.choice([*effects, Effect.ALLOW] if notices else effects))


def number(rng: Random, least: int = 1) -> int | None:
    """Return an amount: some are soon reached, some are not; seldom 0 or unlimited."""
    small, large = rng.randint(least, 5 * least), rng.randint(20 * least, 50 * least)
    return rng.choice((None, 0, *(small, large, large) * 7))


def amount(rng: Random, least: int = 1) -> Amount:
    """Return an amount of any kind."""
    kind = rng.randrange(6)
    if kind == 0:
        table: dict[object, int | None] = {tier: number(rng, least) for tier in TIERS}
        return Lookup("account.tier", table, number(rng, least), number(rng, least))
    if kind == 1:
        priced: dict[object, int | None] = {m: number(rng, least) for m in ("large", "small")}
        return Lookup("request.model", priced, number(rng, least), number(rng, least))
    if kind == 2:
        return FromFact("x.quota", least, number(rng, least))
    return Fixed(number(rng, least))


def rate(rng: Random, key: Key) -> Rate:
    """Return a pace, some of them so quick that their intervals are scaled."""
    unit = rng.choice(("requests", "requests", "tokens", "cost_usd"))
    least = {"requests": 2, "tokens": 60, "cost_usd": 2_000}[unit]
    burst = rng.choice((None, None, Fixed(least * 3), amount(rng, least)))
    period = rng.choice((SECOND, MINUTE, HOUR))
    return Rate(
        unit=unit, amount=amount(rng, least), period=period, burst=burst, key=key, over=over(rng)
    )


def budget(rng: Random, key: Key) -> Budget:
    """Return a budget of one or two units, with or without steps."""
    units = rng.sample(UNITS, rng.choice((1, 1, 2)))
    least = {"requests": 2, "cost_usd": 5_000, "images": 2}
    amounts = tuple((unit, amount(rng, least.get(unit, 100))) for unit in units)
    percents = sorted(rng.sample(range(1, 100), rng.choice((0, 0, 0, 0, 1, 2))))
    steps = [Step(percent=p, verdict=over(rng, notices=True)) for p in percents]
    last = Step(percent=100, verdict=over(rng))
    return Budget(amounts=amounts, window=rng.choice(WINDOWS), key=key, steps=(*steps, last))


def counting_verb(rng: Random) -> CountingVerb:
    """Return a verb that counts."""
    key = Key(rng.choice(KEYS))
    kind = rng.randrange(7)
    if kind < 2:
        return rate(rng, key)
    if kind < 5:
        return budget(rng, key)
    most = amount(rng, 2)
    if kind == 5:
        lease = rng.choice((5 * SECOND, 10 * MINUTE))
        return Concurrency(most=most, lease=lease, key=key, over=over(rng))
    count = rng.choice(("account.id", "geo.country", "x.score", "request.model"))
    return Distinct(
        count=count, most=most, period=rng.choice((MINUTE, DAY)), key=key, over=over(rng)
    )


def rule(rng: Random, index: int, facts: Mapping[str, Fact], indexed: str | None) -> Rule:
    """Return a rule, one that an index finds by the fact `indexed` if one is named."""
    drawn = rng.random()
    when = ALWAYS if drawn < 0.4 and indexed is None else condition(rng, facts, 2)
    if indexed is not None:
        wanted = frozenset(rng.sample(operand_values(facts[indexed]), rng.randint(1, 2)))
        test = Comparison(indexed, "in", wanted, indexed)
        when = Every((test, when)) if drawn < 0.5 else test
    verb = counting_verb(rng)
    kind = rng.random()
    escalate = rng.choice((None, None, Escalate(after=2, within=HOUR, block_for=10 * MINUTE)))
    made = Rule(
        id=f"r{index}",
        index=index,
        when=when,
        verb=verb,
        span=SPAN,
        unknown=rng.choice((None, None, "match", "skip")),
        mode=rng.choice((*(Mode.ENFORCE,) * 6, Mode.SHADOW, Mode.OFF)),
        start=rng.choice((None, None, None, START + 40 * SECOND)),
        end=rng.choice((None, None, None, START + 2 * HOUR)),
        escalate=escalate if verb.key.facts == ("account.id",) else None,
    )
    if kind < 0.06:
        return replace(made, verb=Block(verdict(rng, Effect.BLOCK)), escalate=None)
    if kind < 0.12:
        return replace(made, verb=Degrade(verdict(rng, Effect.DEGRADE)), escalate=None)
    return made


def policy_set(seed: int, count: int, *indexed: str | None) -> PolicySet:
    """Return a random set of `count` rules, and 18 more found by each fact that is `indexed`."""
    rng = Random(seed)
    facts = declared_facts(rng)
    rules = [rule(rng, i, facts, None) for i in range(count)]
    for name in filter(None, indexed):
        rules += [rule(rng, len(rules) + i, facts, name) for i in range(18)]
    exemptions = tuple(
        Exemption(
            id=f"e{i}",
            rules=tuple(r.id for r in rng.sample(rules, min(2, len(rules)))),
            when=condition(rng, facts, 1),
            reason="agreed",
            expires=START + rng.choice((MINUTE, DAY)),
            unknown_holds=rng.random() < 0.3,
            span=SPAN,
        )
        for i in range(rng.choice((0, 0, 1)))
    )
    return PolicySet(
        name="random",
        revision=f"sha256:{seed}",
        files=("random.yaml",),
        facts=facts,
        rules=tuple(rules),
        exemptions=exemptions,
        models=(listed := models() if rng.random() < 0.8 else {}),
        units=("images",),
        timezone=rng.choice(ZONES),
        unlisted_model=rng.choice((None, "large", "free")) if listed else None,
    )


@dataclass(frozen=True, slots=True)
class Request:
    """One random request."""

    facts: Mapping[str, object]
    estimate: Mapping[str, object] | None


def request(rng: Random, odd: float = 0.01) -> Request:
    """Return a request; each of its facts and amounts is an odd one with a small chance."""
    facts: dict[str, object] = {"account.id": rng.choice("ab")}
    for name, values in VALUES.items():
        if rng.random() < 0.8:
            facts[name] = rng.choice(values)
        if rng.random() < odd:
            facts[name] = rng.choice(ODD_VALUES)
    if rng.random() < 0.1:
        del facts["account.id"]
    if rng.random() < 0.03:
        return Request(facts, None)
    estimate: dict[str, object] = {
        "input_tokens": rng.randrange(60),
        "output_tokens": rng.randrange(60),
        "images": rng.randint(0, 2),
    }
    if rng.random() < 0.3:
        estimate["requests"] = rng.randint(1, 2)
    for unit in ("requests", "tokens", "input_tokens", "output_tokens", "cost_usd"):
        if rng.random() < odd:
            estimate[unit] = rng.choice(ODD_AMOUNTS)
    return Request(facts, estimate)


ODD_VALUES = (
    None, 7, 1.5, True, "", "x" * 300, "a\x1fb", "\ud800", ["a", "b"], {"a": 1}, float("nan"), 2**60
)  # fmt: skip
ODD_AMOUNTS = (
    None, 0, 1, 3.0, 0.01, -1, True, "5", float("nan"), float("inf"), 2**53 - 1, 2**53, [1]
)  # fmt: skip


def policy_sets() -> st.SearchStrategy[PolicySet]:
    """Return a strategy for policy sets."""
    return st.builds(policy_set, st.integers(0, 2**32), st.integers(1, 8))
