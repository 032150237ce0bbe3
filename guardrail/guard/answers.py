"""What each rule answers while the store is away: let through, refuse, or count by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Literal, NamedTuple

from guardrail.engine import Case, Engine, Finding, Limit, Plan
from guardrail.guard.shares import SHORT_WAIT, UNAVAILABLE
from guardrail.model.effects import StoreMode
from guardrail.model.facts import FactType
from guardrail.model.typed import typed_value

TIER, ACCOUNT = "account.tier", "account.id"


class Answer(Enum):
    """How a rule is decided without the store."""

    ALLOW = "let through"
    LOCAL = "counted by this process alone"
    DENY = "not let through"


ANSWERS: Mapping[Literal["allow", "deny", "local"], Answer] = {
    "allow": Answer.ALLOW,
    "deny": Answer.DENY,
    "local": Answer.LOCAL,
}


def fixed_answer(limit: Limit) -> Answer | None:
    """Return what a rule answers, None where it depends on whose request it is."""
    answer = limit.rule.on_store_error or limit.without_store
    return None if answer is None else ANSWERS[answer]


def is_known(engine: Engine, case: Case, plan: Plan) -> bool:
    """Tell whether the directory knows the account: id and tier are stated, not filled in."""
    for name in (ACCOUNT, TIER):
        stated = case.facts.get(name)
        if name in engine.reader.facts and name not in plan.facts:
            return False
        fact = engine.policies.facts[name]
        undeclared = fact.type is FactType.LEVEL and not fact.values
        if not (isinstance(stated, str) if undeclared else typed_value(fact, stated) is not None):
            return False
    return True


class Answers(NamedTuple):
    """The answers of all rules that one plan consults, in the order of its charges.

    `by_charge` leaves out the charges that only follow others: strikes and their sentences.
    """

    by_charge: Mapping[int, tuple[Limit, Answer]]

    @classmethod
    def of(cls, engine: Engine, case: Case, plan: Plan) -> Answers:
        """Return what the rules of a plan answer."""
        by_charge: dict[int, tuple[Limit, Answer]] = {}
        known: bool | None = None
        for cell, part in zip(plan.cells, plan.parts, strict=True):
            if cell.charge in by_charge or plan.charges[cell.charge].after is not None:
                continue
            answer = fixed_answer(part.limit)
            if answer is None:
                known = is_known(engine, case, plan) if known is None else known
                answer = Answer.LOCAL if known else Answer.DENY
            by_charge[cell.charge] = (part.limit, answer)
        return cls(by_charge)

    def refusals(self) -> Iterable[Finding]:
        """Yield what the rules that deny ask for.

        A rule that never refuses serves less instead, unless it was told to deny.
        """
        for limit, answer in self.by_charge.values():
            if answer is not Answer.DENY:
                continue
            rule = limit.rule
            refuses = limit.over.effect.refuses or rule.on_store_error is not None
            verdict = UNAVAILABLE if refuses else limit.over
            yield limit.finding(verdict, SHORT_WAIT)

    @property
    def refuse(self) -> bool:
        """Whether a rule in force refuses."""
        return any(f.effect.refuses and not f.shadow for f in self.refusals())

    @property
    def mode(self) -> StoreMode:
        """What became of the counters: closed where a rule refuses for the store, local, or open.

        The first of these that holds. Rules in shadow have a say only where no other was consulted.
        """
        if self.refuse:
            return StoreMode.CLOSED
        every = list(self.by_charge.values())
        enforced = [(limit, answer) for limit, answer in every if not limit.shadow]
        counted = any(answer is Answer.LOCAL for _, answer in enforced or every)
        return StoreMode.LOCAL if counted else StoreMode.OPEN

    def told(self) -> str:
        """Return in words which rules did what."""
        rules: dict[Answer, list[str]] = {}
        for limit, answer in self.by_charge.values():
            rules.setdefault(answer, []).append(f"`{limit.rule.id}`")
        return "; ".join(f"{', '.join(rules[a])} {a.value}" for a in Answer if a in rules)
