"""An identity of the wrong type is refused by name; it shares no counter with others."""

from __future__ import annotations

import pytest

from guardrail.guard import Guard
from guardrail.testing import MovableClock
from tests.loaded import loaded

POLICY = """
guardrail: 1
policy: identities
facts: {team.id: {type: string, source: server}, team.size: {type: integer, source: server}}
rules:
  - {id: calls, when: always, budget: {requests: 1, per: day, key: account.id}}
  - {id: teams, when: always, budget: {requests: 5, per: day, key: [account.id, team.id]}}
  - {id: cards, when: {payment.fingerprint: {exists: true}}, block: {reason: card}, mode: shadow}
  - {id: large, when: {team.size: {gt: 9}}, unknown: skip, block: {reason: too_large}}
"""
STORES = ("memory://", "lmdb")


@pytest.fixture(params=STORES)
def guard(request, tmp_path):
    store = request.param if request.param != "lmdb" else f"lmdb://{tmp_path}"
    found = Guard.from_policies(
        loaded(POLICY), store=store, hash_key=b"k" * 32, clock=MovableClock(), environ={}
    )
    yield found
    found.close()


@pytest.mark.parametrize("value", [42, 4.2, True, "", b"a1", ["a1"], {"id": "a1"}, object()])
@pytest.mark.parametrize("name", ["account.id", "team.id", "payment.fingerprint"])
def test_an_identity_that_is_none_is_refused_by_name_and_charges_nothing(guard, name, value):
    facts = {"account.id": "a1", name: value}
    for _ in range(3):
        decision = guard.decide(facts)
        assert (str(decision.effect), decision.reason) == ("block", "invalid-fact")
        assert f"`{name}`" in str(decision.message)
        assert decision.retry_after is None

    assert guard.decide({"account.id": "a1"}).allowed


def test_many_accounts_whose_ids_are_numbers_share_no_counter(guard):
    reasons = {guard.decide({"account.id": number}).reason for number in range(40)}

    assert reasons == {"invalid-fact"}
    assert guard.decide({}).allowed  # nobody has used the counter of those without an account


def test_a_missing_identity_and_another_wrong_fact_are_missing_as_before(guard):
    assert guard.decide({"account.id": None, "team.size": "many"}).allowed
    told = guard.decide({"account.id": "a2", "team.size": "many"})

    assert told.allowed
    assert any("`team.size`" in error for error in told.errors)
