"""One simulation: a guard, honest customers, and perhaps operators, in virtual time."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random

from guardrail.errors import SettingError
from guardrail.guard import Guard
from guardrail.model.facts import FactType
from guardrail.model.policy import PolicySet
from guardrail.simulate.customers import Ask, Customers, ShockTally, Watched
from guardrail.simulate.draws import stream
from guardrail.simulate.operators import Operator, Reseller, Take, Thief
from guardrail.simulate.population import DAY, START, Account, Names, Population, Segment
from guardrail.simulate.shocks import Calendar
from guardrail.simulate.skills import Attack, Prices, Skill, shares_of, skill_of
from guardrail.simulate.whitebox import informed

_LATER = 1 << 50

QUIET_DAYS = 3
"""How many days there are before an attack begins, in a simulation of two weeks and more."""

Tick = Callable[[float], None]
"""Is told which share of a simulation is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to simulate: honest accounts, the fleet of operators, days of attack.

    `supply` is how many fresh accounts operators get a day, as a share of the fleet; infinite for
    as many as they like. `tiers` are the names of the unverified, verified and contracted tier.
    `watch` keeps the decisions of trusted accounts.
    """

    accounts: int = 3000
    fleet: int = 500
    days: int = 45
    attack: Attack = Attack.CAREFUL
    supply: float = 0.05
    shocks: bool = True
    watch: bool = False
    tiers: tuple[str, str, str] = ("email", "verified", "enterprise")
    prices: Prices = field(default_factory=Prices)

    @property
    def quiet(self) -> int:
        """How many days pass before the attack begins."""
        return QUIET_DAYS if self.days >= 14 else int(self.days >= 4)


def names_of(policies: PolicySet, tiers: tuple[str, str, str]) -> Names:
    """Return how a policy set calls the tiers, models and facts of a simulation.

    Raises:
        SettingError: its `account.tier` has no tier of a given name.
    """
    fact = policies.facts.get("account.tier")
    found: list[str | None] = [None, None, None]
    if fact is not None and fact.type in (FactType.LEVEL, FactType.ENUM) and fact.values:
        unverified, verified, enterprise = tiers
        for tier in (unverified, verified):
            if tier not in fact.values:
                raise SettingError(
                    f"`account.tier` has no value `{tier}`, only `{'`, `'.join(fact.values)}`: say "
                    "with `--tiers` which are those of unverified, verified and contracted accounts"
                )
        found = [unverified, verified, enterprise if enterprise in fact.values else verified]
    models = tuple(policies.models) or ("large", "medium", "small")
    return Names(
        unverified=found[0],
        verified=found[1],
        enterprise=found[2],
        models=models,
        known=frozenset(
            name for name in policies.facts if name != "account.tier" or found[0] is not None
        ),
    )


@dataclass(slots=True, kw_only=True)
class Result:
    """What came of one simulation; `seconds` is what it took, `decisions` how many were made."""

    seed: int
    options: Options
    policies: PolicySet
    population: Population
    shocks: Mapping[str, ShockTally]
    by_day: list[list[int]]
    operators: list[Operator]
    take: Take
    decisions: int
    seconds: float
    watched: list[Watched] | None


def simulate(
    policies: PolicySet,
    options: Options,
    seed: int,
    *,
    tick: Tick | None = None,
    segments: tuple[Segment, ...] = (),
    skilled: Callable[[Skill], Skill] | None = None,
) -> Result:
    """Return what came of one seed under a policy set, on counters in memory of its own.

    `segments` replace those that the seed draws; `skilled` changes what operators can do.

    Raises:
        SettingError: the policy set has tiers of other names.
    """
    started = time.perf_counter()
    days = options.days + options.quiet
    names = names_of(policies, options.tiers)
    guard = Guard.from_policies(policies, clock=lambda: START, environ={})
    population = Population(seed, options.accounts, days, names, segments)
    customers = Customers(population, guard)
    if options.watch:
        customers.watched = []
    calendar = Calendar(population, days) if options.shocks else None
    if calendar is not None:
        customers.shocks = {shock.name: ShockTally() for shock in calendar.shocks}
    take = Take.over(24 * (days + 1))
    operators = _operators(options, seed, guard, population, take, skilled)
    queue: list[tuple[float, int, Ask | Operator]] = []
    order = 0

    def push(moment: float, ask: Ask) -> None:
        nonlocal order
        order += 1
        heapq.heappush(queue, (moment, order, ask))

    with guard:
        for day in range(days):
            if calendar is not None:
                calendar.morning(day)
            for moment, ask in customers.plan(day):
                push(moment, ask)
            attacked = day - options.quiet
            if attacked >= 0:
                for operator in operators:
                    for number, moment in enumerate(operator.morning(attacked)):
                        # Of two at one instant the customer comes first, with and without attack.
                        late = _LATER + number * 8 + operator.number
                        heapq.heappush(queue, (moment, late, operator))
            midnight = START + (day + 1) * DAY
            while queue and queue[0][0] < midnight:
                moment, _, due = heapq.heappop(queue)
                if isinstance(due, Ask):
                    customers.deliver(moment, due, push)
                else:
                    due.work(moment)
            if attacked >= 0:
                for operator in operators:
                    operator.evening(attacked)
            if tick is not None:
                tick((day + 1) / days)
        for operator in operators:
            operator.finish()
        customers.finish(due for _, _, due in queue if isinstance(due, Ask))
    return Result(
        seed=seed,
        options=options,
        policies=policies,
        population=population,
        shocks=customers.shocks,
        by_day=customers.by_day,
        operators=operators,
        take=take,
        decisions=customers.decisions + sum(operator.decisions for operator in operators),
        seconds=time.perf_counter() - started,
        watched=customers.watched,
    )


def _operators(
    options: Options,
    seed: int,
    guard: Guard,
    population: Population,
    take: Take,
    skilled: Callable[[Skill], Skill] | None,
) -> list[Operator]:
    attack, names = options.attack, population.names
    if attack is Attack.NONE:
        return []
    random = stream(seed, "operators")
    fleets = shares_of(random, fleet_of(options), attack)
    found: list[Operator] = []
    for number, fleet in enumerate(fleets):
        skill = skill_of(attack, random, fleet)
        if attack is Attack.WHITEBOX:
            skill = informed(skill, guard.policies, names, options.prices, options.days)
        if skilled is not None:
            skill = skilled(skill)
        make: Callable[..., Operator] = Reseller if attack is Attack.RESELLER else Operator
        if attack is Attack.STOLEN_KEYS:
            make = partial(Thief, victims=_victims(population, fleet, random))
        found.append(
            make(
                number,
                skill,
                fleet=fleet,
                begins=START + options.quiet * DAY,
                days=options.days,
                supply=options.supply,
                seed=seed,
                guard=guard,
                names=names,
                prices=options.prices,
                take=take,
                vpn=population.vpn,
            )
        )
    return found


def fleet_of(options: Options) -> int:
    """Return how many accounts operators run: of stolen keys 40 at most, of a reseller three."""
    if options.attack is Attack.NONE:
        return 0
    if options.attack is Attack.STOLEN_KEYS:
        return min(40, max(1, options.accounts // 50))
    return 3 if options.attack is Attack.RESELLER else options.fleet


def _victims(population: Population, count: int, random: Random) -> list[Account]:
    """Return established customers whose keys are stolen."""
    known = [
        account
        for account in population.accounts
        if account.established and account.tier != "email" and account.sensitive > 0.2
    ]
    return random.sample(known, min(count, len(known)))
