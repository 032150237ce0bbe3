"""Operators of many accounts that act as one customer: what they build, send, and do if refused.

How much they want is fixed: what is refused to one account is tried with another, by another name,
later, or with a fresh account, as far as the supply of those goes.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from guardrail.engine import Decision
from guardrail.guard import Guard
from guardrail.model.effects import Effect
from guardrail.simulate.customers import HOUR, Hourly
from guardrail.simulate.draws import Zipf, log_normal, poisson, stream
from guardrail.simulate.population import (
    COUNTRIES,
    DAY,
    FRAMEWORKS,
    PRICE_IN,
    PRICE_OUT,
    START,
    Account,
    Facts,
    Names,
    Values,
)
from guardrail.simulate.skills import TOKENS_IN, TOKENS_OUT, Prices, Skill, wider
from guardrail.simulate.through import Kind, Through

NEVER = math.inf
_LONG = 3 * DAY
_TRIES = 4
_SLEEPS_OVER = 600.0
_DETECTED_FROM = 50


@dataclass(slots=True)
class Ledger:
    """What operators have bought, and what it cost in USD.

    `top_ups` are paid to the API. What is `unused` of them when an account is given up is lost, and
    part of `cost`; what was used bought what it was paid for.
    """

    accounts: int = 0
    aged: int = 0
    cards: int = 0
    identities: int = 0
    exits: int = 0
    top_ups: float = 0.0
    unused: float = 0.0
    cost: float = 0.0


@dataclass(slots=True)
class Take:
    """What operators wanted and got, by hour: all, and what they came for (agents and code).

    `through` tells which accounts got it.
    """

    wanted: list[int]
    served: list[int]
    sought: list[int]
    taken: list[int]
    degraded: int = 0
    through: Through = field(default_factory=Through)

    @classmethod
    def over(cls, hours: int) -> Take:
        """Return an empty account of so many hours."""
        return cls([0] * hours, [0] * hours, [0] * hours, [0] * hours)


@dataclass(slots=True, eq=False)
class Puppet:
    """One account of an operator: what it shares, and what it knows of its refusals.

    `refused_until` maps what its requests were called to the time until when that is refused;
    `acting` is how many accounts acted as one with it when it last asked, None if nothing said so.
    `before` is what was served before an identity was shown, None if none was.
    """

    number: int
    facts: Facts
    template: str
    tier: str | None
    cached: dict[tuple[str, str], Facts] = field(default_factory=dict)
    refused_until: dict[str, float] = field(default_factory=dict)
    acting: int | None = None
    can_verify: bool = False
    verifies_at: float = NEVER
    rate: float = 1.0
    asked: int = 0
    served: int = 0
    before: int | None = None
    refused: bool = False
    today: int = 0
    used_on: int = -1
    paid: float = 0.0
    paid_since: float = NEVER
    used_usd: float = 0.0
    pays: bool = False
    told: bool = False
    vacant: bool = False


class Operator:
    """One operator: its accounts, its rotation, and how it adapts.

    `begins` is in seconds since the epoch, `supply` fresh accounts a day as a share of the fleet.
    `vpn` are exits that honest people use too.
    """

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
        vpn: Sequence[Facts] = (),
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
        self.session = self.random.uniform(3, 8)
        self.agentic = self.random.uniform(0.4, 0.8)
        self.accounts: list[Puppet] = []
        self.decisions = self.used = self.replaced = 0
        self.fiftieth: float | None = None
        self.first_action: float | None = None
        self._decide, self._settle = guard.decide, guard.settle
        self._hourly = Hourly()
        self._frameworks = Zipf(FRAMEWORKS, 1.6)
        self._rotation: list[tuple[float, int, Puppet]] = []
        self._asleep: list[tuple[float, int, Puppet]] = []
        self._orders: list[float] = []
        self._fresh = 0.0
        self._turn = self._slots_today = self._missed = 0
        self._lost_days = 0
        # What is wanted today and still to be had, of cover (True) and of the rest.
        self._demand = {True: 0, False: 0}
        self._left = {True: 0, False: 0}
        self._ramp_mean = sum(map(self._ramp, range(days))) / days
        self._cards: list[tuple[Facts, int]] = []
        self._devices: list[tuple[str, int]] = []
        self._exits: list[tuple[Facts, int]] = []
        self._identities: list[tuple[str, int]] = []
        self._batch = 0.0
        self._batch_left = 0
        self._vpn = list(vpn)
        self._pool: list[str] = []
        if skill.templates is not None:
            self._pool = [self.values.token("prompt-") for _ in range(skill.templates)]
        self._reserve: list[Puppet] = []
        self._stock()

    def _stock(self) -> None:
        """Register the fleet beforehand, and what is kept in reserve."""
        for _ in range(self.fleet):
            self._enter(self._make(self._registered()), self.begins + self.random.random() * HOUR)
        self.unopposed = self.ledger.cost
        for _ in range(round(self.skill.spare * self.fleet)):
            self._reserve.append(self._make(self._registered()))

    def _registered(self) -> float:
        """Return when an account of the fleet was registered: in batches, or one by one."""
        random, within = self.random, self.skill.registration * DAY
        if not self.skill.batches:
            return self.begins - random.random() * within
        if not self._batch_left:
            self._batch = self.begins - random.random() * within
            self._batch_left = random.randint(20, 200)
        self._batch_left -= 1
        return min(self.begins, self._batch + random.random() * HOUR)

    # What it wants

    def _ramp(self, day: float) -> float:
        return 1.0 if not self.skill.ramp else min(1.0, (day + 1) / self.skill.ramp)

    def morning(self, day: int) -> list[float]:
        """Begin a day of the attack (the first is 0); return when it works, in order."""
        if day:
            self._adapt()
        self._fresh = min(self._fresh, 2 * self.supply) + self.supply
        mean = self.skill.pace * self.fleet * self._ramp(day) / self._ramp_mean
        demand = poisson(self.random, mean)
        hiding = round(demand * self.skill.cover)
        self._demand = {True: hiding, False: demand - hiding}
        self._left = dict(self._demand)
        slots = self._slots_today = max(1, round(demand / self.session))
        start = self.begins + day * DAY
        if self.skill.provokes and day % 5 == 4:
            self._provoke(start)
        if self.skill.hours == 0:
            hours = self._hourly.draw(self.random, 5.0, -6, slots)
        else:
            first, last = 5 * self.number, self.skill.hours
            hours = [(first + self.random.randrange(last)) % 24 for _ in range(slots)]
        return sorted(start + (hour + self.random.random()) * HOUR for hour in hours)

    def evening(self, day: int) -> None:
        """End a day: note what was wanted, and what was missed."""
        hour = int((self.begins - START) // HOUR) + 24 * day
        wanted, sought = sum(self._demand.values()), self._demand[False]
        for at in range(24):
            self.take.wanted[hour + at] += wanted // 24 + (at < wanted % 24)
            self.take.sought[hour + at] += sought // 24 + (at < sought % 24)
        self._missed = sum(self._left.values())

    def finish(self) -> None:
        """End the attack: what was paid for accounts that were given up, and not used, is lost."""
        for puppet in self.accounts:
            if puppet.pays and puppet.vacant:
                unused = max(0.0, puppet.paid - puppet.used_usd)
                self.ledger.unused += unused
                self.ledger.cost += unused

    # Accounts

    def _make(self, created: float) -> Puppet:
        """Buy an account with what it shows: a card, a device, an exit, a persona.

        An aged one was created by somebody else, long before it was bought and first paid for.
        """
        skill, random, ledger, bought = self.skill, self.random, self.ledger, created
        number = self.values.number()
        ledger.accounts += 1
        ledger.cost += self.prices.account
        if random.random() < skill.aged:
            created = self.begins - random.uniform(100, 400) * DAY
            ledger.aged += 1
            ledger.cost += self.prices.aged
        exit = self._exit()
        asn = exit["geo.asn"]
        bucket = asn % 16 if isinstance(asn, int) else 0
        mail = "free" if skill.batches else "mail"
        facts: Facts = {
            "account.id": f"acct-{number:011x}",
            "account.created": created,
            "account.signup": f"{int(created // 3600)}-{mail}-{bucket}",
            "credential.id": f"key-{number:011x}",
            "device.fingerprint": self._device(),
            "request.stream": random.random() < 0.6,
            "client.agent": "http" if skill.per_device > 1 else "python-sdk",
            **({} if skill.cardless else self._card(str(exit["geo.country"]))),
            **exit,
        }
        puppet = Puppet(number, facts, self._template(), self.names.unverified)
        puppet.rate = max(1.0, log_normal(random, skill.rate, skill.sigma, 2.0))
        puppet.can_verify = random.random() < skill.passes
        if skill.top_up:
            self._pay(puppet, skill.top_up, bought + HOUR)
        self.accounts.append(puppet)
        return puppet

    def _pay(self, puppet: Puppet, amount: float, moment: float) -> None:
        """Pay for what an account is going to use, in USD."""
        if not puppet.pays:
            puppet.pays, puppet.paid_since = True, moment
        puppet.paid += amount
        puppet.cached = {}
        self.ledger.top_ups += amount

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
        if kind == "vpn" and self._vpn:
            exit = random.choice(self._vpn)
        else:
            asn = 9100 + random.randrange(9) if kind == "hosting" else None
            exit = self.values.network(country, kind, asn)
        self._exits.append((exit, 1))
        self.ledger.exits += 1
        self.ledger.cost += self.prices.exits[kind] * self.days / 30
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
                return f"framework-{self._frameworks.draw(random)}"
            return self.values.token("own-")
        if random.random() < self.skill.reuse:
            return random.choice(self._pool)
        return self.values.token("prompt-")

    def _replace(self, moment: float) -> None:
        """Order a fresh account for one that is lost."""
        delay = self.random.expovariate(1 / (self.skill.churn * HOUR))
        heapq.heappush(self._orders, moment + delay)

    def _restock(self, moment: float) -> None:
        """Let the accounts in that were ordered, from the reserve first, as supply allows."""
        while self._orders and self._orders[0] <= moment:
            if self._reserve:
                self._enter(self._reserve.pop(), moment)
            elif self._fresh >= 1:
                self._fresh -= 1
                self._enter(self._make(moment), moment)
            else:
                return
            heapq.heappop(self._orders)
            self.replaced += 1

    # Work

    def work(self, moment: float) -> None:
        """Send one session's worth of requests, through as many accounts as it takes."""
        self._restock(moment)
        while self._asleep and self._asleep[0][0] <= moment:
            until, _, puppet = heapq.heappop(self._asleep)
            self._enter(puppet, until)
        left = sum(self._left.values())
        share = math.ceil(left / max(1, self._slots_today))
        self._slots_today -= 1
        is_cover = self.random.random() * left < self._left[True]
        self._session(moment, is_cover, share)
        if not self._slots_today:
            for is_cover in (False, True):
                self._session(moment, is_cover, self._left[is_cover])

    def _session(self, moment: float, is_cover: bool, share: int) -> None:
        count = min(share, math.ceil(4 * self.session), self._left[is_cover])
        if not count:
            return
        kind = "chat"
        if not is_cover:
            kind = "agentic" if self.random.random() < self.agentic else "code"
        served = 0
        for _ in range(_TRIES):
            found = self._next(moment)
            if found is None:
                break
            served += self._use(found, kind, count - served, moment, is_cover)
            if served >= count:
                break
        # What nobody was let have is wanted by the next session of the day.
        self._left[is_cover] -= served
        hour = int((moment - START) // HOUR)
        self.take.served[hour] += served
        if not is_cover:
            self.take.taken[hour] += served

    def _next(self, moment: float) -> Puppet | None:
        """Take the account from the rotation whose turn it is, or who can be hurried."""
        day = int((moment - START) // DAY)
        passed: list[tuple[float, int, Puppet]] = []
        found = None
        while self._rotation:
            _, turn, puppet = heapq.heappop(self._rotation)
            if puppet.used_on != day:
                if puppet.used_on < 0:
                    self._started(moment)
                puppet.used_on, puppet.today = day, 0
                if self.skill.salted:
                    puppet.template, puppet.cached = self.values.token("prompt-"), {}
            if puppet.today < self.skill.ceiling:
                found = puppet
                break
            passed.append((START + (day + 1) * DAY, turn, puppet))
        for entry in passed:
            heapq.heappush(self._rotation, entry)
        return found

    def _started(self, moment: float) -> None:
        self.used += 1
        if self.used == min(_DETECTED_FROM, max(1, self.fleet // 2)):
            self.fiftieth = moment

    def _use(self, puppet: Puppet, kind: str, count: int, moment: float, is_cover: bool) -> int:
        """Send requests through one account; return how many were served."""
        if puppet.verifies_at <= moment:
            self._verified(puppet, moment)
        served = 0
        for label in ("chat",) if is_cover else self.skill.labels:
            if puppet.refused_until.get(label, 0.0) > moment:
                continue
            got, decision = self._send(puppet, kind, label, count - served, moment)
            served += got
            found = _kind(puppet, moment)
            if got:
                self.take.through.serve(found, puppet.number, got)
            if decision is None:
                break
            puppet.refused = True
            self.take.through.refuse(found, puppet.number, decision.rule)
            if self.first_action is None:
                self.first_action = moment
            wait = decision.retry_after
            puppet.told |= decision.remedy == "verify"
            if decision.remedy == "pay" and puppet.paid < self.skill.pays:
                self._pay(puppet, max(20.0, self.skill.top_up), moment)
            elif wait is None:
                puppet.refused_until[label] = NEVER
            else:
                # Now and then a wait is tried out before it is over.
                early = 0.5 if self.random.random() < 0.05 else 1.0
                puppet.refused_until[label] = moment + wait * early
                if wait < _SLEEPS_OVER:
                    break
        puppet.asked += count
        puppet.served += served
        puppet.today += served
        self._again(puppet, served, moment)
        return served

    def _again(self, puppet: Puppet, served: int, moment: float) -> None:
        """Decide when an account is used next, and whether it is given up."""
        open_at = min(puppet.refused_until.get(label, 0.0) for label in self.skill.labels)
        if open_at <= moment:
            gap = max(served, 1) / puppet.rate * DAY * self.random.uniform(0.6, 1.4)
            self._enter(puppet, moment + gap)
            return
        if puppet.can_verify and (puppet.told or open_at - moment > _LONG):
            puppet.can_verify = False
            puppet.verifies_at = moment + self.random.expovariate(1 / (8 * HOUR))
            self._sleep(puppet, puppet.verifies_at)
            return
        if open_at - moment > _LONG and not puppet.vacant:
            puppet.vacant = True
            self._replace(moment)
        if open_at != NEVER:
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
        puppet.tier, puppet.verifies_at = self.names.verified, NEVER
        puppet.before = puppet.served
        puppet.facts["kyc.subject"] = name
        puppet.facts["account.verified_at"] = moment
        puppet.refused_until, puppet.cached = {}, {}

    def _provoke(self, moment: float) -> None:
        """Have a few accounts refused on purpose, those that look longest established first."""
        oldest = sorted(
            self._rotation, key=lambda entry: float(str(entry[2].facts["account.created"]))
        )
        for _, _, puppet in oldest[: max(1, self.fleet // 50)]:
            for _ in range(6):
                decision = self._ask(puppet, "agentic", "", 200, moment)
                if decision.effect >= Effect.THROTTLE:
                    break

    def _send(
        self, puppet: Puppet, kind: str, label: str, count: int, moment: float
    ) -> tuple[int, Decision | None]:
        """Send requests at once; return how many were served, and what refused the others."""
        decision = self._ask(puppet, kind, label, count, moment)
        if decision.effect < Effect.THROTTLE:
            return count, None
        if count == 1:
            return 0, decision
        refusing = self._ask(puppet, kind, label, 1, moment)
        if refusing.effect >= Effect.THROTTLE:
            return 0, refusing
        refusing, served, size = decision, 1, max(1, (count - 1) // 2)
        while size and served < count:
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
        into = max(1, round(count * TOKENS_IN * self.skill.tokens))
        out = max(1, round(count * TOKENS_OUT * self.skill.tokens))
        decision = self._decide(
            facts, {"requests": count, "input_tokens": into, "output_tokens": out}, now=moment
        )
        self.decisions += 1
        acting = decision.case.facts.get("actor.accounts")
        puppet.acting = acting if isinstance(acting, int) else None
        if decision.effect < Effect.THROTTLE:
            self._settle(decision, {"input_tokens": into, "output_tokens": out}, now=moment)
            if decision.effect is Effect.DEGRADE:
                self.take.degraded += count
            if puppet.pays:
                worth = into * PRICE_IN + out * PRICE_OUT
                puppet.used_usd += worth
                if puppet.used_usd > puppet.paid and self.skill.top_up:
                    self._pay(puppet, self.skill.top_up, moment)
        return decision

    def _facts(self, puppet: Puppet, kind: str, label: str) -> Facts:
        names = self.names
        facts: Facts = dict(puppet.facts)
        if puppet.tier is not None:
            facts["account.tier"] = puppet.tier
        if puppet.pays:
            facts["account.paid_usd"] = round(puppet.paid, 2)
            facts["account.paid_since"] = puppet.paid_since
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
        wanted = sum(self._demand.values())
        if self._missed <= 0.2 * wanted or self._lost_days >= self.skill.notches:
            return
        self._lost_days += 1
        self.skill = wider(self.skill)
        self._pool += [self.values.token("prompt-") for _ in range(3 * len(self._pool))]


def _kind(puppet: Puppet, moment: float) -> Kind:
    """Return what kind of account was last decided on."""
    facts = puppet.facts
    verified_at = facts.get("account.verified_at")
    return Kind(
        identity=None if verified_at is None else moment - float(str(verified_at)),
        age=moment - float(str(facts["account.created"])),
        paid=puppet.paid if puppet.pays else 0.0,
        acting=puppet.acting,
    )


class Thief(Operator):
    """Who uses keys stolen from honest customers, from places of its own."""

    def __init__(self, *args: object, victims: Sequence[Account], **kwargs: object) -> None:
        self.victims = victims
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def _stock(self) -> None:
        for victim in self.victims:
            self._enter(self._stolen(victim), self.begins + self.random.random() * DAY)
        self.unopposed = self.ledger.cost

    def _stolen(self, victim: Account) -> Puppet:
        facts = dict(victim.facts)
        facts.pop("device.fingerprint", None)
        facts.update(self._exit())
        names = self.names
        tiers = {"email": names.unverified, "verified": names.verified}
        puppet = Puppet(
            victim.number, facts, self._template(), tiers.get(victim.tier, names.enterprise)
        )
        puppet.rate = self.skill.rate
        self.ledger.accounts += 1
        self.ledger.cost += self.prices.stolen
        self.accounts.append(puppet)
        return puppet

    def _replace(self, moment: float) -> None:
        """Order nothing: there are no more keys."""


class Reseller(Operator):
    """A reseller without a contract: few verified accounts, and the traffic of ordinary people."""

    def _stock(self) -> None:
        super()._stock()
        for puppet in self.accounts:
            self._verified(puppet, self.begins - 20 * DAY)
        self.unopposed = self.ledger.cost
