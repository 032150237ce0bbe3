"""Operators of many accounts that act as one customer: what they build, send, and do if refused.

How much they want is fixed: what is refused to one account is tried with another, by another name,
later, or with a fresh account, as far as the supply of those goes. Parameters are drawn by seed
from a range for each level of skill, so that nothing can be tuned to one attacker.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from guardrail.engine import Decision
from guardrail.guard import Guard
from guardrail.model.effects import Effect
from guardrail.simulate.customers import HOUR, Hourly
from guardrail.simulate.draws import Zipf, log_normal, poisson, stream
from guardrail.simulate.population import (
    COUNTRIES,
    DAY,
    FRAMEWORKS,
    START,
    Facts,
    Names,
    Values,
)

PACE = 28_800_000 / 25_000 / 45
"""Exchanges a day from one account of the campaign that was alleged in 2026."""
FULL_FLEET = 25_000


class Attack(enum.StrEnum):
    """How skilled the operators are."""

    NONE = "none"
    NAIVE = "naive"
    CAREFUL = "careful"
    EXPERT = "expert"
    WHITEBOX = "whitebox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What an operator pays, in USD: for each account, card, identity and aged account.

    `exit` is a month of one address, by the kind of its network.
    """

    account: float = 0.20
    card: float = 4.0
    identity: float = 150.0
    aged: float = 15.0
    exits: Mapping[str, float] = field(
        default_factory=lambda: {"hosting": 2.0, "vpn": 1.0, "residential": 3.0, "business": 6.0}
    )


@dataclass(slots=True)
class Ledger:
    """What operators have bought, and what it cost in USD; `top_ups` are paid to the API."""

    accounts: int = 0
    aged: int = 0
    cards: int = 0
    identities: int = 0
    exits: int = 0
    top_ups: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """What one operator can do, drawn for a seed.

    `per_card`, `per_device` and `per_exit` are accounts that share one; `exits` is a number of
    addresses shared by all, where that is how they connect. `templates` None stands for those of
    public frameworks. `registration`, `ramp` are in days, `churn` in hours. `rate` and `ceiling`
    are requests a day of one account, as planned and at most; `cover` is the share of requests that
    only hide the others; `passes` the share of accounts that can buy an identity; `spare` the share
    of accounts in reserve; `notches` how often an operator can widen what its accounts differ in.
    """

    per_card: int
    per_device: int
    per_exit: int
    exits: int
    kinds: tuple[str, ...]
    templates: int | None
    reuse: float
    registration: float
    aged: float
    ramp: float
    rate: float
    sigma: float
    cover: float
    hours: int
    aligned: bool
    passes: float
    churn: float
    spare: float
    top_up: float
    ceiling: float
    notches: int
    tokens: float
    per_identity: int = 1


def skill_of(attack: Attack, random: Random, fleet: int) -> Skill:
    """Return an operator's skill, drawn from the ranges of a level."""
    whole = random.randint
    # Pools shared by all accounts shrink with the square root of the fleet.
    pools = math.sqrt(min(1.0, fleet / FULL_FLEET))
    tokens = random.uniform(0.6, 1.6)
    if attack is Attack.NAIVE:
        return Skill(
            per_card=whole(20, 100),
            per_device=50,
            per_exit=0,
            exits=max(2, round(whole(20, 500) * pools)),
            kinds=("hosting", "hosting", "vpn"),
            templates=max(2, round(whole(5, 50) * pools)),
            reuse=1.0,
            registration=random.uniform(3, 10),
            aged=0.0,
            ramp=0.0,
            rate=26.0,
            sigma=0.2,
            cover=random.uniform(0, 0.05),
            hours=24,
            aligned=False,
            passes=0.0,
            churn=12.0,
            spare=0.0,
            top_up=0.0,
            ceiling=60.0,
            notches=1,
            tokens=tokens,
        )
    if attack is Attack.CAREFUL:
        return Skill(
            per_card=whole(2, 6),
            per_device=1,
            per_exit=whole(1, 3),
            exits=0,
            kinds=("residential",),
            templates=max(5, round(whole(200, 2000) * pools)),
            reuse=0.3,
            registration=random.uniform(15, 30),
            aged=0.0,
            ramp=random.uniform(7, 14),
            rate=25.0,
            sigma=0.6,
            cover=random.uniform(0.2, 0.4),
            hours=16,
            aligned=True,
            passes=random.uniform(0, 0.05),
            churn=24.0,
            spare=0.0,
            top_up=random.uniform(5, 20),
            ceiling=400.0,
            notches=3,
            tokens=tokens,
        )
    expert = attack is Attack.EXPERT
    return Skill(
        per_card=1,
        per_device=1,
        per_exit=1,
        exits=0,
        kinds=("residential", "residential", "business"),
        templates=None,
        reuse=0.03,
        registration=random.uniform(60, 180),
        aged=random.uniform(0.1, 0.4) if expert else 0.2,
        ramp=21.0,
        rate=20.0 if expert else 26.0,
        sigma=1.0 if expert else 0.3,
        cover=random.uniform(0.5, 0.8) if expert else 0.6,
        hours=0,
        aligned=True,
        passes=random.uniform(0.05, 0.30) if expert else 0.10,
        churn=72.0 if expert else 24.0,
        spare=0.2 if expert else 0.5,
        top_up=random.uniform(20, 60),
        ceiling=2000.0 if expert else 5000.0,
        notches=1,
        tokens=tokens,
    )


LABELS = ("", "chat", "other", "batch")
"""What an operator may call its requests, the truth (empty) first."""
NEVER = math.inf
_LONG = 3 * DAY
_TRIES = 4
_SLEEPS_OVER = 600.0


class Puppet:
    """One account of an operator: what it shares, and what it knows of its refusals.

    `refused_until` maps what its requests were called to the time until when that is refused.
    """

    __slots__ = (
        "asked",
        "cached",
        "can_verify",
        "facts",
        "first_use",
        "number",
        "paid",
        "pays",
        "rate",
        "refused",
        "refused_until",
        "served",
        "spent",
        "template",
        "today",
        "used_on",
        "vacant",
        "verified",
        "verifies_at",
    )

    def __init__(self, number: int, facts: Facts, template: str) -> None:
        self.number = number
        self.facts = facts
        self.template = template
        self.cached: dict[tuple[str, str], Facts] = {}
        self.refused_until: dict[str, float] = {}
        self.can_verify = False
        self.verified = False
        self.verifies_at = NEVER
        self.rate = 1.0
        self.first_use: float | None = None
        self.asked = self.served = 0
        self.refused = False
        self.today = 0
        self.used_on = -1
        self.paid = 0.0
        self.pays = False
        self.spent = 0.0
        self.vacant = False


@dataclass(slots=True)
class Take:
    """What an operator wanted and got, by hour: all, and what it came for (agents and code)."""

    wanted: list[int]
    served: list[int]
    sought: list[int]
    taken: list[int]
    degraded: int = 0

    @classmethod
    def over(cls, hours: int) -> Take:
        """Return an empty account of so many hours."""
        return cls([0] * hours, [0] * hours, [0] * hours, [0] * hours)


class Operator:
    """One operator: its accounts, its rotation, and how it adapts."""

    def __init__(
        self,
        number: int,
        skill: Skill,
        *,
        fleet: int,
        begins: float,
        days: int,
        supply: float,
        seed: int,
        guard: Guard,
        names: Names,
        prices: Prices,
        take: Take,
    ) -> None:
        self.number = number
        self.skill = skill
        self.fleet = fleet
        self.begins = begins
        self.days = days
        self.supply = supply * fleet
        self.names = names
        self.prices = prices
        self.take = take
        self.ledger = Ledger()
        self.random = stream(seed, "operator", number)
        self.values = Values(stream(seed, "operator-values", number))
        self.hourly = Hourly()
        self.frameworks = Zipf(FRAMEWORKS, 1.6)
        self.session = self.random.uniform(3, 8)
        self.agentic = self.random.uniform(0.4, 0.8)
        self.decisions = 0
        self.created = 0
        self.used = 0
        self.fiftieth: float | None = None
        self.first_action: float | None = None
        self.replaced = 0
        self.accounts: list[Puppet] = []
        self._decide, self._settle = guard.decide, guard.settle
        self._rotation: list[tuple[float, int, Puppet]] = []
        self._asleep: list[tuple[float, int, Puppet]] = []
        self._orders: list[float] = []
        self._fresh = 0.0
        self._turn = 0
        self._slots_today = self._missed = 0
        self._demand = {True: 0, False: 0}
        self._left = {True: 0, False: 0}
        self._lost_days = 0
        self._ramp_mean = self._mean_ramp()
        self._cards: list[tuple[Facts, int]] = []
        self._devices: list[tuple[str, int]] = []
        self._exits: list[tuple[Facts, int]] = []
        self._identities: list[tuple[str, int]] = []
        self._pool: list[str] = []
        if skill.templates is not None:
            self._pool = [self.values.token("prompt-") for _ in range(skill.templates)]
        for _ in range(fleet):
            self._register(begins - self.random.random() * skill.registration * DAY, begins)
        self.unopposed = self.ledger.cost
        self._reserve = [
            self._make(begins - self.random.random() * skill.registration * DAY)
            for _ in range(round(skill.spare * fleet))
        ]

    # What it wants

    def _ramp(self, day: float) -> float:
        return 1.0 if not self.skill.ramp else min(1.0, (day + 1) / self.skill.ramp)

    def _mean_ramp(self) -> float:
        return sum(self._ramp(day) for day in range(self.days)) / self.days

    def morning(self, day: int) -> list[float]:
        """Begin a day of the attack (the first is 0); return when it works, in order."""
        if day:
            self._adapt()
        demand = poisson(self.random, PACE * self.fleet * self._ramp(day) / self._ramp_mean)
        self._fresh = min(self._fresh + self.supply, 3 * self.supply) if day else self.supply
        slots = max(1, round(demand / self.session))
        hiding = round(demand * self.skill.cover)
        self._demand = {True: hiding, False: demand - hiding}
        self._left = dict(self._demand)
        self._slots_today = slots
        start = self.begins + day * DAY
        if self.skill.hours == 0:
            hours = self.hourly.draw(self.random, 5.0, -6, slots)
        elif self.skill.hours < 24:
            first = 20 * self.number % 24
            hours = [(first + self.random.randrange(16)) % 24 for _ in range(slots)]
        else:
            hours = [self.random.randrange(24) for _ in range(slots)]
        self._missed = 0
        return sorted(start + (hour + self.random.random()) * HOUR for hour in hours)

    # Accounts

    def _make(self, created: float) -> Puppet:
        """Buy an account with what it shows: a card, a device, an exit, a persona."""
        skill, random, values, ledger = self.skill, self.random, self.values, self.ledger
        number = values.number()
        ledger.accounts += 1
        ledger.cost += self.prices.account
        if random.random() < skill.aged:
            created = self.begins - random.uniform(100, 400) * DAY
            ledger.aged += 1
            ledger.cost += self.prices.aged
        exit = self._exit()
        country = str(exit["geo.country"])
        card = self._card(country)
        asn = exit["geo.asn"]
        bucket = asn % 16 if isinstance(asn, int) else 0
        facts: Facts = {
            "account.id": f"acct-{number:011x}",
            "account.created": created,
            "account.signup": f"{int(created // 3600)}-mail-{bucket}",
            "credential.id": f"key-{number:011x}",
            "device.fingerprint": self._device(),
            "request.stream": random.random() < 0.6,
            "client.agent": "http" if skill.per_device > 1 else "python-sdk",
            **card,
            **exit,
        }
        puppet = Puppet(number, facts, self._template())
        puppet.rate = max(1.0, log_normal(random, skill.rate, skill.sigma, 2.0))
        puppet.can_verify = random.random() < skill.passes
        if skill.top_up:
            puppet.pays, puppet.paid = True, skill.top_up
            ledger.top_ups += skill.top_up
        self.accounts.append(puppet)
        return puppet

    def _register(self, created: float, moment: float) -> None:
        puppet = self._make(created)
        self.created += 1
        self._enter(puppet, moment + self.random.random() * HOUR)

    def _enter(self, puppet: Puppet, ready: float) -> None:
        self._turn += 1
        heapq.heappush(self._rotation, (ready, self._turn, puppet))

    def _sleep(self, puppet: Puppet, until: float) -> None:
        self._turn += 1
        heapq.heappush(self._asleep, (until, self._turn, puppet))

    def _exit(self) -> Facts:
        skill, random = self.skill, self.random
        if skill.exits and len(self._exits) >= skill.exits:
            return random.choice(self._exits)[0]
        if not skill.exits and self._exits and self._exits[-1][1] < skill.per_exit:
            exit, used = self._exits[-1]
            self._exits[-1] = (exit, used + 1)
            return exit
        kind = random.choice(skill.kinds)
        country = random.choices(list(COUNTRIES), [odds for odds, _ in COUNTRIES.values()])[0]
        asn = {"hosting": 9100, "vpn": 9000}.get(kind, 1000) + random.randrange(9)
        exit = self.values.network(country, kind, asn)
        self._exits.append((exit, 1))
        self.ledger.exits += 1
        self.ledger.cost += self.prices.exits[kind] * 1.5
        return exit

    def _card(self, country: str) -> Facts:
        skill, random = self.skill, self.random
        if self._cards:
            card, used = self._cards[-1]
            if used < skill.per_card:
                self._cards[-1] = (card, used + 1)
                return card
            if skill.per_card == 1 and random.random() < 0.03:
                return random.choice(self._cards)[0]
        if not skill.aligned:
            country = random.choice(("CN", "HK", "US", "SG", "GB", "VN"))
        card = {"payment.fingerprint": self.values.token("card-"), "payment.country": country}
        self._cards.append((card, 1))
        self.ledger.cards += 1
        self.ledger.cost += self.prices.card
        return card

    def _device(self) -> str:
        if self._devices and self._devices[-1][1] < self.skill.per_device:
            device, used = self._devices[-1]
            self._devices[-1] = (device, used + 1)
            return device
        self._devices.append((self.values.token("device-"), 1))
        return self._devices[-1][0]

    def _template(self) -> str:
        random = self.random
        if self.skill.templates is None:
            if random.random() < 0.5:
                return f"framework-{self.frameworks.draw(random)}"
            return self.values.token("own-")
        if random.random() < self.skill.reuse:
            return random.choice(self._pool)
        return self.values.token("prompt-")

    def _replace(self, moment: float) -> None:
        """Order a fresh account for one that is lost."""
        heapq.heappush(
            self._orders, moment + self.random.expovariate(1 / (self.skill.churn * HOUR))
        )

    def _restock(self, moment: float) -> None:
        """Let the accounts in that were ordered, from the reserve first, as supply allows."""
        while self._orders and self._orders[0] <= moment:
            if self._reserve:
                self._enter(self._reserve.pop(), moment)
                self.created += 1
            elif self._fresh >= 1:
                self._fresh -= 1
                self._register(moment, moment)
            else:
                return
            heapq.heappop(self._orders)
            self.replaced += 1

    # Work

    def work(self, moment: float) -> None:
        """Send one session's worth of requests, through as many accounts as it takes."""
        random = self.random
        left = self._left[True] + self._left[False]
        share = left / max(1, self._slots_today)
        self._slots_today -= 1
        if not left:
            return
        is_cover = random.random() * left < self._left[True]
        count = min(math.ceil(share), math.ceil(4 * self.session), self._left[is_cover])
        kind = "chat"
        if not is_cover:
            kind = "agentic" if random.random() < self.agentic else "code"
        hour = int((moment - START) // HOUR)
        self._restock(moment)
        while self._asleep and self._asleep[0][0] <= moment:
            until, _, puppet = heapq.heappop(self._asleep)
            self._enter(puppet, until)
        served = 0
        for _ in range(_TRIES):
            found = self._next(moment)
            if found is None:
                break
            got = self._use(found, kind, count - served, moment, is_cover)
            served += got
            if served >= count:
                break
        # What nobody was let have is wanted by the next session of the day.
        self._left[is_cover] -= served
        self.take.served[hour] += served
        if not is_cover:
            self.take.taken[hour] += served

    def evening(self, day: int) -> None:
        """End a day: account for what was wanted."""
        hour = int((self.begins - START) // HOUR) + 24 * day
        wanted, sought = sum(self._demand.values()), self._demand[False]
        for at in range(24):
            self.take.wanted[hour + at] += wanted // 24 + (at < wanted % 24)
            self.take.sought[hour + at] += sought // 24 + (at < sought % 24)
        self._missed = sum(self._left.values())

    def _next(self, moment: float) -> Puppet | None:
        """Take the account from the rotation whose turn it is, or who can be hurried."""
        day = int((moment - START) // DAY)
        passed: list[tuple[float, int, Puppet]] = []
        found = None
        while self._rotation:
            entry = heapq.heappop(self._rotation)
            puppet = entry[2]
            if puppet.used_on != day:
                puppet.used_on, puppet.today = day, 0
            if puppet.today < self.skill.ceiling:
                found = puppet
                break
            passed.append((START + (day + 1) * DAY, entry[1], puppet))
        for entry in passed:
            heapq.heappush(self._rotation, entry)
        return found

    def _use(self, puppet: Puppet, kind: str, count: int, moment: float, is_cover: bool) -> int:
        """Send requests through one account; return how many were served."""
        if puppet.verifies_at <= moment:
            self._verified(puppet, moment)
        if puppet.first_use is None:
            puppet.first_use = moment
            self.used += 1
            if self.used == min(50, max(2, self.fleet // 2)):
                self.fiftieth = moment
        served = 0
        labels = ("chat",) if is_cover else LABELS
        for label in labels:
            if puppet.refused_until.get(label, 0.0) > moment:
                continue
            got, decision = self._send(puppet, kind, label, count - served, moment)
            served += got
            if decision is None:
                break
            puppet.refused = True
            if self.first_action is None:
                self.first_action = moment
            wait = decision.retry_after
            until = NEVER if wait is None else moment + wait
            puppet.refused_until[label] = until
            if wait is not None and wait < _SLEEPS_OVER:
                break
        puppet.asked += count
        puppet.served += served
        puppet.today += served
        self._again(puppet, served, count, moment)
        return served

    def _again(self, puppet: Puppet, served: int, count: int, moment: float) -> None:
        """Decide when an account is used next, and whether it is given up."""
        open_at = min(puppet.refused_until.get(label, 0.0) for label in LABELS)
        if open_at <= moment:
            gap = max(served, 1) / puppet.rate * DAY * self.random.uniform(0.6, 1.4)
            self._enter(puppet, moment + gap)
            return
        if open_at is NEVER or open_at - moment > _LONG:
            if puppet.can_verify and not puppet.verified and puppet.verifies_at == NEVER:
                puppet.verifies_at = moment + self.random.expovariate(1 / (8 * HOUR))
                self._sleep(puppet, puppet.verifies_at)
                return
            if not puppet.vacant:
                puppet.vacant = True
                self._replace(moment)
            if open_at is not NEVER:
                self._sleep(puppet, open_at)
            return
        self._sleep(puppet, open_at)

    def _verified(self, puppet: Puppet, moment: float) -> None:
        """Show an identity that was bought."""
        if self._identities and self._identities[-1][1] < self.skill.per_identity:
            name, used = self._identities[-1]
            self._identities[-1] = (name, used + 1)
        else:
            name = self.values.token("id-")
            self._identities.append((name, 1))
            self.ledger.identities += 1
            self.ledger.cost += self.prices.identity
        puppet.verified, puppet.verifies_at = True, NEVER
        puppet.facts["kyc.subject"] = name
        puppet.facts["account.verified_at"] = moment
        puppet.refused_until, puppet.cached = {}, {}

    def _send(
        self, puppet: Puppet, kind: str, label: str, count: int, moment: float
    ) -> tuple[int, Decision | None]:
        """Send requests at once; return how many were served, and what refused the others."""
        decision = self._ask(puppet, kind, label, count, moment)
        if decision.effect < Effect.THROTTLE:
            return count, None
        if count == 1:
            return 0, decision
        served, refusing = 0, decision
        low = self._ask(puppet, kind, label, 1, moment)
        if low.effect >= Effect.THROTTLE:
            return 0, low
        served, size = 1, (count - 1) // 2
        while size:
            decision = self._ask(puppet, kind, label, size, moment)
            if decision.effect < Effect.THROTTLE:
                served += size
                size = min(size, count - served)
            else:
                refusing = decision
                size //= 2
        return served, (refusing if served < count else None)

    def _ask(self, puppet: Puppet, kind: str, label: str, count: int, moment: float) -> Decision:
        facts = puppet.cached.get((kind, label))
        if facts is None:
            facts = puppet.cached[kind, label] = self._facts(puppet, kind, label)
        into = max(1, round(count * 1700 * self.skill.tokens))
        out = max(1, round(count * 350 * self.skill.tokens))
        estimate = {"requests": count, "input_tokens": into, "output_tokens": out}
        decision = self._decide(facts, estimate, now=moment)
        self.decisions += 1
        if decision.effect < Effect.THROTTLE:
            self._settle(decision, estimate, now=moment)
            if decision.effect is Effect.DEGRADE:
                self.take.degraded += count
            if puppet.pays:
                puppet.spent += into * 3e-6 + out * 15e-6
                if puppet.spent > 20:
                    puppet.paid += puppet.spent
                    puppet.spent, puppet.cached = 0.0, {}
        return decision

    def _facts(self, puppet: Puppet, kind: str, label: str) -> Facts:
        names = self.names
        facts: Facts = dict(puppet.facts)
        tier = names.verified if puppet.verified else names.unverified
        if tier is not None:
            facts["account.tier"] = tier
        if puppet.pays:
            facts["account.paid_usd"] = round(puppet.paid, 2)
            facts["account.paid_since"] = float(str(puppet.facts["account.created"])) + HOUR
        facts["request.capability"] = label or kind
        facts["request.model"] = names.models[0]
        facts["request.endpoint"] = "/v1/messages"
        facts["request.tools"] = 0
        if kind != "chat":
            facts["request.template"] = puppet.template
            if (label or kind) == "agentic":
                facts["request.tools"] = 4
                facts["request.toolset"] = f"tools-{puppet.template}"
        return {name: value for name, value in facts.items() if name in names.known}

    # Learning

    def _adapt(self) -> None:
        """Widen what accounts differ in, after a day on which a fifth was lost."""
        if (
            self._missed <= 0.2 * max(1, sum(self._demand.values()))
            or self._lost_days >= self.skill.notches
        ):
            return
        self._lost_days += 1
        skill = self.skill
        self.skill = _wider(skill)
        if self._pool:
            self._pool += [self.values.token("prompt-") for _ in range(3 * len(self._pool))]


def _wider(skill: Skill) -> Skill:
    """Return a skill that shares less, and sends shorter requests."""
    return replace(
        skill,
        per_card=max(1, skill.per_card // 2),
        per_device=max(1, skill.per_device // 2),
        per_exit=max(1, skill.per_exit // 2) if skill.per_exit else 0,
        exits=skill.exits * 2,
        reuse=skill.reuse / 2,
        tokens=max(0.3, skill.tokens * 0.7),
    )


def shares_of(random: Random, fleet: int, attack: Attack) -> Sequence[int]:
    """Return the fleets of one to five operators (a white-box one works alone)."""
    if attack is Attack.WHITEBOX or fleet < 20:
        return (fleet,)
    weights = [random.uniform(0.5, 1.5) for _ in range(random.randint(1, 5))]
    sizes = [int(fleet * weight / sum(weights)) for weight in weights]
    sizes[0] += fleet - sum(sizes)
    return sizes
