"""The operator who reads the policies shares what they allow, and rehearses what they let pass."""

from __future__ import annotations

from guardrail.simulate.draws import stream
from guardrail.simulate.running import names_of
from guardrail.simulate.skills import Attack, Prices, skill_of
from guardrail.simulate.whitebox import informed, rehearsed, shared_at_most
from tests.simulate.worlds import CARDS, OPEN, TIERS, TRIAL, policies_of

DEVICES = """\
  - id: devices
    when: {device.fingerprint: {exists: true}}
    unknown: skip
    distinct: {count: account.id, max: 5, per: 30d, key: device.fingerprint}
    mode: shadow
"""
HOSTING = """\
  - id: rented
    when: {network.kind: {in: [hosting]}}
    block: {reason: rented}
"""


def fitted(rules, days=10):
    policies = policies_of(rules)
    skill = skill_of(Attack.WHITEBOX, stream(0, "x"), 50)
    return informed(skill, policies, names_of(policies, TIERS), Prices(), days)


def test_as_many_accounts_share_a_card_as_a_rule_lets_pass():
    assert shared_at_most(policies_of(CARDS))["per_card"] == 3


def test_what_no_rule_counts_or_only_watches_is_shared_freely():
    found = shared_at_most(policies_of(CARDS + DEVICES))

    assert found["per_device"] == found["per_exit"] == found["per_identity"] == 20


def test_requests_are_called_what_passes_longest():
    assert fitted(TRIAL).labels[0] != ""


def test_the_cheapest_network_that_is_served_is_rented():
    assert fitted(OPEN).kinds == ("hosting",)
    assert fitted(HOSTING).kinds == ("residential",)


def test_old_accounts_are_bought_where_they_get_more():
    young = """\
  - id: young
    when: {account.age: {lt: 90d}}
    unknown: match
    budget: {requests: 5, per: lifetime, key: account.id}
"""
    assert fitted(young).aged == 1.0
    assert fitted(OPEN).aged == 0.0


def test_exchanges_are_small_where_tokens_are_counted():
    tokens = """\
  - id: tokens
    when: always
    budget: {tokens: 100k, per: lifetime, key: account.id}
"""
    assert fitted(tokens).tokens == 0.3


def test_a_rehearsal_counts_what_one_account_gets():
    policies = policies_of(TRIAL)
    names = names_of(policies, TIERS)
    skill = skill_of(Attack.WHITEBOX, stream(0, "x"), 50)

    assert 18 <= rehearsed(skill, policies, names, 30) <= 20
