"""The request that is shown: it states no fact that follows from others, and is decided as told."""

from __future__ import annotations

import pytest

from guardrail.analysis import Witness, compared
from guardrail.guard import Guard
from guardrail.loading import load_text
from guardrail.model.amounts import SECOND
from guardrail.model.effects import Effect
from guardrail.model.facts import epoch_of
from guardrail.model.policy import PolicySet

MORNING = epoch_of("2026-06-01T09:30:00Z")
assert MORNING is not None
NOW = round(MORNING * SECOND)


def policy(*rules: str) -> PolicySet:
    """Return a policy of some rules, each of which refuses."""
    lines = "".join(f"  - {{id: r{i}, {rule}, block: {{}}}}\n" for i, rule in enumerate(rules))
    return load_text(f"guardrail: 1\npolicy: p\nrules:\n  - {{id: own, {OWN}}}\n{lines}")


OWN = "when: {account.id: nobody}, unknown: skip, block: {}"


def shown(policies: PolicySet) -> Witness:
    """Return the request that shows what its first rule refuses, refused by a guard as well."""
    found = compared(policies, policy(), NOW)
    witness = next(change.witness for change in found.looser if change.rule == "r0")
    at = NOW if witness.at is None else witness.at
    guard = Guard.from_policies(policies, environ={})
    decision = guard.decide(witness.facts, {"requests": 1}, now=at / SECOND)
    guard.close()
    assert decision.effect is Effect.BLOCK
    return witness


@pytest.mark.parametrize(
    ("when", "facts"),
    [
        # One account acts alone where nothing else is said of it.
        ("{actor.accounts: {lt: 4}}", {"actor.accounts": 1}),
        ("{actor.accounts: {lt: 4}, account.id: {exists: true}}", {"account.id": "other"}),
        ("{account.id: a, actor.accounts: 1, actor.trusted_accounts: 0, actor.score: 0}",
         {"account.id": "a"}),
        ("{account.id: a, actor.accounts: {gte: 2}}", {"account.id": "a", "actor.accounts": 2}),
        ("{account.id: a, actor.id: a}", {"account.id": "a"}),
        ("{account.id: a, actor.id: b}", {"account.id": "a", "actor.id": "b"}),
        ("{account.created: {before: 2026-05-01}, account.age: {lt: 40d}}",
         {"account.created": "2026-04-26T16:45:00Z"}),
        ("{account.created: {before: 2026-05-01}, account.age: {lt: 10d}}",
         {"account.created": "2026-04-30T23:59:59Z", "account.age": "863999s"}),
        ("{time.hour: 9}", {}),
        ("{time.hour: {gte: 9}}", {}),
        ("{time.hour: {lt: 9}}", {"time.hour": 0}),
    ],
)  # fmt: skip
def test_what_follows_from_other_facts_is_not_stated(when, facts):
    assert dict(shown(policy(f"when: {when}, unknown: skip")).facts) == facts


def test_the_hour_of_a_later_time_follows_from_that_time():
    later = "from: 2026-06-01T20:15:00Z, unknown: skip"

    assert dict(shown(policy(f"when: {{time.hour: {{gte: 20}}}}, {later}")).facts) == {}
    assert dict(shown(policy(f"when: {{time.hour: 9}}, {later}")).facts) == {"time.hour": 9}
