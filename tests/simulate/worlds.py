"""Small policy sets and populations that tests of the simulation share."""

from __future__ import annotations

from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.model.policy import PolicySet
from guardrail.simulate.customers import Ask, Customers
from guardrail.simulate.population import DAY, START, Account, Population
from guardrail.simulate.running import Options, names_of
from guardrail.simulate.skills import Attack

HEAD = """\
guardrail: 1
policy: tried
facts:
  account.tier: {type: level, values: [email, verified, enterprise], default: email}
models:
  large: {price: {input: 15, output: 75}, max_output: 8192, weaker: small}
  small: {price: {input: 1, output: 5}, max_output: 8192}
rules:
"""
TIERS = ("email", "verified", "enterprise")

TRIAL = """\
  - id: trial
    when: {account.tier: email, request.capability: {in: [agentic, code]}}
    budget: {requests: 20, per: lifetime, key: account.id}
    over: {block: {reason: verification_required, remedy: verify}}
"""
OPEN = "  - {id: idle, when: {account.id: nobody}, block: {}}\n"
CARDS = """\
  - id: cards
    when: {account.tier: email, payment.fingerprint: {exists: true}}
    unknown: skip
    distinct: {count: account.id, max: 3, per: 90d, key: payment.fingerprint}
    over: {block: {reason: shared_card, remedy: verify}}
"""


def policies_of(rules: str) -> PolicySet:
    """Return a policy set of some rules."""
    return load_text(HEAD + rules)


def options(**given: object) -> Options:
    """Return small options, without shocks unless they are asked for."""
    small = {"accounts": 60, "fleet": 20, "days": 3, "shocks": False, "attack": Attack.CAREFUL}
    return Options(**{**small, **given})  # type: ignore[arg-type]


class World:
    """One customer of a guard, whose asks are delivered one by one; what he puts back is kept."""

    def __init__(self, rules: str, *, segment: str = "developer", seed: int = 0) -> None:
        policies = policies_of(rules)
        self.guard = Guard.from_policies(policies, clock=lambda: START, environ={})
        self.population = Population(seed, 20, 3, names_of(policies, TIERS))
        self.customers = Customers(self.population, self.guard)
        self.customers.plan(0)
        self.number = [kind.name for kind in self.population.segments].index(segment)
        self.later: list[tuple[float, Ask]] = []
        self.account = self.newcomer()

    def newcomer(self) -> Account:
        """Return a new account that has asked for nothing, and passes a verification in an hour."""
        account = self.population.add(self.number, START - DAY)
        account.tier, account.identity, account.proactive_after = "email", None, float("inf")
        account.facts.pop("kyc.subject", None)
        account.verifies_in = 3600.0
        return account

    def deliver(self, moment: float, **given: object) -> None:
        """Deliver an ask of the account; by default one request for code."""
        fields = {
            "account": self.account,
            "capability": "code",
            "size": 1,
            "span": 1800.0,
            "tokens_in": 100,
            "tokens_out": 10,
            "most": 10,
        }
        ask = Ask(**{**fields, **given})  # type: ignore[arg-type]
        self.account.asked += ask.size
        self.put_back(moment, ask)
        self.run()

    def put_back(self, moment: float, ask: Ask) -> None:
        """Keep an ask for later."""
        self.later.append((moment, ask))

    def run(self, until: float = START + 30 * DAY) -> None:
        """Deliver what is kept, in the order of time."""
        while self.later:
            self.later.sort(key=lambda entry: entry[0])
            moment, ask = self.later.pop(0)
            if moment >= until:
                continue
            self.customers.deliver(moment, ask, self.put_back)
