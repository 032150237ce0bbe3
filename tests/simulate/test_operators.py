"""Operators: what they build, how they go on when they are refused, and what it costs them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from guardrail.guard import Guard
from guardrail.simulate.draws import stream
from guardrail.simulate.operators import Operator, Take
from guardrail.simulate.population import DAY, START
from guardrail.simulate.running import fleet_of, names_of, simulate
from guardrail.simulate.skills import (
    PACE,
    Attack,
    Prices,
    Skill,
    shares_of,
    skill_of,
    wider,
)
from tests.simulate.worlds import CARDS, OPEN, TIERS, TRIAL, options, policies_of

FARMS = (Attack.NAIVE, Attack.CAREFUL, Attack.EXPERT, Attack.WHITEBOX)


def run(rules, days=3, supply=0.05, fleet=20, attack=Attack.CAREFUL, **changes):
    """Run one operator alone, without honest customers, and return it."""
    policies = policies_of(rules)
    guard = Guard.from_policies(policies, clock=lambda: START, environ={})
    skill = replace(skill_of(attack, stream(0, "tried"), fleet), **changes)
    operator = Operator(
        0,
        skill,
        fleet=fleet,
        begins=START,
        days=days,
        supply=supply,
        seed=0,
        guard=guard,
        names=names_of(policies, TIERS),
        prices=Prices(),
        take=Take.over(24 * (days + 1)),
    )
    with guard:
        for day in range(days):
            for moment in operator.morning(day):
                operator.work(moment)
            operator.evening(day)
    operator.finish()
    return operator


@pytest.mark.parametrize("attack", FARMS)
def test_unopposed_operators_get_all_that_they_want(attack):
    operator = run(OPEN, attack=attack)
    take = operator.take

    assert sum(take.served) == sum(take.wanted)
    assert sum(take.taken) == sum(take.sought)
    assert sum(take.wanted) == pytest.approx(PACE * 20 * 3, rel=0.15)
    assert operator.first_action is None
    assert operator.replaced == 0


@pytest.mark.parametrize("attack", FARMS)
def test_nobody_is_served_more_than_he_wants(attack):
    take = run(TRIAL + CARDS, attack=attack, supply=math.inf).take

    assert sum(take.served) <= sum(take.wanted)
    assert sum(take.taken) <= sum(take.sought)
    assert sum(take.taken) <= sum(take.served)


def test_what_is_refused_by_its_name_is_called_something_else():
    named = run(TRIAL, days=6, passes=0.0)
    honest = run(TRIAL, days=6, passes=0.0, labels=("",))

    assert sum(named.take.taken) == sum(named.take.sought)
    assert sum(honest.take.taken) < 0.6 * sum(honest.take.sought)


def test_accounts_are_replaced_as_far_as_the_supply_goes():
    found = [
        run(TRIAL, days=8, supply=supply, labels=("",), passes=0.0, churn=1.0)
        for supply in (0.0, 0.1, math.inf)
    ]
    none, some, any_number = found

    assert none.ledger.accounts == 20
    assert 20 < some.ledger.accounts <= 20 + 8 * 2
    assert any_number.ledger.accounts > some.ledger.accounts
    taken = [sum(operator.take.taken) for operator in found]
    assert taken == sorted(taken)
    assert taken[0] <= 20 * 20


def test_an_account_that_may_go_on_tomorrow_is_kept():
    rules = """\
  - id: daily
    when: always
    budget: {requests: 1, per: day, key: account.id}
"""
    operator = run(rules, days=6, supply=0.0, passes=0.0, cover=0.0)

    assert operator.replaced == 0
    assert sum(operator.take.served) == sum(puppet.served for puppet in operator.accounts)
    assert max(puppet.served for puppet in operator.accounts) >= 5


def test_a_lifetime_allowance_bounds_what_accounts_take():
    operator = run(TRIAL, days=8, supply=math.inf, labels=("",), passes=0.0)

    assert sum(operator.take.taken) <= 20 * operator.ledger.accounts
    assert max(puppet.served for puppet in operator.accounts) >= 20


def test_a_reserve_is_used_before_what_is_supplied():
    operator = run(TRIAL, days=8, supply=0.0, labels=("",), passes=0.0, spare=0.5, churn=1.0)

    assert operator.ledger.accounts == 30
    assert operator.replaced == 10


def test_identities_are_bought_when_they_are_asked_for():
    operator = run(TRIAL, days=8, labels=("",), passes=1.0, churn=1.0)

    verified = [puppet for puppet in operator.accounts if puppet.tier == "verified"]
    assert len(verified) == operator.ledger.identities > 5
    assert all(puppet.facts["kyc.subject"] for puppet in verified)
    assert max(puppet.served for puppet in verified) > 20


def test_what_identities_got_is_told_apart():
    operator = run(TRIAL, days=8, labels=("",), passes=1.0, churn=1.0)

    for puppet in operator.accounts:
        assert (puppet.before is not None) == (puppet.tier == "verified")
        assert puppet.before is None or 20 <= puppet.before <= puppet.served


def test_one_identity_serves_as_many_accounts_as_a_skill_says():
    operator = run(TRIAL, days=8, labels=("",), passes=1.0, per_identity=4)

    verified = [puppet for puppet in operator.accounts if puppet.tier == "verified"]
    assert operator.ledger.identities == math.ceil(len(verified) / 4)


def test_accounts_share_cards_devices_and_exits_as_a_skill_says():
    operator = run(OPEN, per_card=4, per_device=5, per_exit=2)

    facts = [puppet.facts for puppet in operator.accounts]
    assert len({one["payment.fingerprint"] for one in facts}) == 5 == operator.ledger.cards
    assert len({one["device.fingerprint"] for one in facts}) == 4
    assert len({one["client.ip"] for one in facts}) == 10 == operator.ledger.exits


def test_the_ledger_adds_up():
    operator = run(TRIAL, days=8, labels=("",), passes=0.5, top_up=0.0, aged=0.5)
    ledger, prices = operator.ledger, Prices()

    rent = ledger.exits * prices.exits["residential"] * 8 / 30
    assert ledger.cost == pytest.approx(
        ledger.accounts * prices.account
        + ledger.aged * prices.aged
        + ledger.cards * prices.card
        + ledger.identities * prices.identity
        + rent
    )
    assert operator.unopposed < ledger.cost


def test_old_accounts_that_are_bought_have_paid_nothing_before():
    operator = run(OPEN, aged=1.0, top_up=30.0, registration=20.0)

    for puppet in operator.accounts:
        assert puppet.facts["account.created"] <= START - 100 * DAY
        assert START - 20 * DAY <= puppet.paid_since <= START + 3 * DAY


def test_money_on_accounts_that_are_given_up_is_lost():
    operator = run(TRIAL, days=8, labels=("",), passes=0.0, top_up=50.0)

    given_up = [puppet for puppet in operator.accounts if puppet.vacant]
    assert given_up
    lost = sum(puppet.paid - puppet.used_usd for puppet in given_up)
    assert operator.ledger.unused == pytest.approx(lost)
    assert operator.ledger.unused > 45 * len(given_up)


def test_money_on_accounts_that_work_is_not_lost():
    assert run(OPEN, top_up=50.0).ledger.unused == 0


@pytest.mark.parametrize("top_up", [0.0, 10.0])
def test_who_is_told_to_pay_pays_up_to_what_it_is_worth(top_up):
    rules = TRIAL.replace("remedy: verify", "remedy: pay")
    operator = run(rules, days=8, labels=("",), passes=0.0, top_up=top_up, pays=100.0)

    assert 100.0 <= max(puppet.paid for puppet in operator.accounts) < 120.0
    assert run(rules, days=4, labels=("",), passes=0.0, top_up=0.0, pays=0.0).ledger.top_ups == 0


def test_an_identity_is_shown_where_a_wait_would_do_but_an_id_is_asked_for():
    rules = TRIAL.replace("lifetime", "day").replace("block", "throttle")
    operator = run(rules, days=3, labels=("",), passes=1.0)

    assert operator.ledger.identities > 0
    without = rules.replace(", remedy: verify", "")
    assert run(without, days=3, labels=("",), passes=1.0).ledger.identities == 0


def test_prompts_are_salted_after_losses():
    operator = run(TRIAL + CARDS, days=8, labels=("",), passes=0.0, attack=Attack.NAIVE)

    assert operator.skill.salted
    assert operator.skill.tokens < skill_of(Attack.NAIVE, stream(0, "tried"), 20).tokens


def test_a_wider_skill_shares_less():
    skill = skill_of(Attack.NAIVE, stream(1, "x"), 500)
    wide = wider(skill)

    assert wide.per_card == skill.per_card // 2
    assert wide.per_device == skill.per_device // 2
    assert wide.exits == 2 * skill.exits
    assert wider(replace(skill, per_card=1, per_device=1)).per_card == 1


def test_a_card_that_is_refused_is_left_out_where_nothing_is_paid():
    operator = run(CARDS, days=6, attack=Attack.NAIVE, supply=math.inf, labels=("",))

    assert any("payment.fingerprint" not in puppet.facts for puppet in operator.accounts)
    assert sum(operator.take.taken[-48:-24]) > sum(operator.take.taken[:24])
    assert all("payment.fingerprint" in puppet.facts for puppet in run(CARDS).accounts)


def test_honest_people_and_operators_meet_at_the_same_vpn():
    result = simulate(policies_of(OPEN), options(fleet=60, attack=Attack.NAIVE), 1)
    shared = {place["client.ip"] for place in result.population.vpn}

    used = {p.facts["client.ip"] for op in result.operators for p in op.accounts}
    assert used & shared


def test_who_provokes_is_refused_before_he_works():
    provoked = run(TRIAL, days=5, provokes=True)
    other = run(TRIAL, days=5, provokes=False)

    assert provoked.decisions > other.decisions


def test_the_first_refusal_after_the_fiftieth_account_is_timed():
    operator = run(TRIAL, fleet=120, days=4, labels=("",))

    assert operator.used >= 50
    assert operator.fiftieth is not None
    assert operator.first_action is not None
    assert START <= operator.fiftieth < START + DAY


@pytest.mark.parametrize("attack", FARMS)
def test_skills_are_drawn_anew_for_each_seed(attack):
    skills = {skill_of(attack, stream(seed, "operators"), 500) for seed in range(5)}

    assert len(skills) == 5


def test_skilled_operators_share_less_and_cost_more():
    found = [skill_of(attack, stream(0, "operators"), 500) for attack in FARMS[:3]]

    assert [skill.per_card > 1 for skill in found] == [True, True, False]
    assert [skill.passes > 0 for skill in found] == [False, True, True]
    assert [skill.aligned for skill in found] == [False, True, True]


@pytest.mark.parametrize("fleet", [20, 500, 25_000])
def test_operators_divide_the_fleet(fleet):
    for seed in range(5):
        sizes = shares_of(stream(seed, "x"), fleet, Attack.CAREFUL)

        assert sum(sizes) == fleet
        assert 1 <= len(sizes) <= 5
    assert shares_of(stream(0, "x"), fleet, Attack.WHITEBOX) == (fleet,)


def test_stolen_keys_are_those_of_customers():
    result = simulate(policies_of(OPEN), options(accounts=120, attack=Attack.STOLEN_KEYS), 0)
    (thief,) = result.operators
    customers = {account.facts["account.id"]: account for account in result.population.accounts}

    assert len(thief.accounts) == fleet_of(result.options) == 2
    for puppet in thief.accounts:
        victim = customers[puppet.facts["account.id"]]
        assert victim.tier != "email"
        assert puppet.facts["client.ip"] != victim.home["client.ip"]
    assert sum(result.take.served) == sum(result.take.wanted) > 0


def test_a_reseller_shows_an_identity_and_mixes_its_traffic():
    result = simulate(policies_of(TRIAL), options(attack=Attack.RESELLER), 0)
    (reseller,) = result.operators

    assert {puppet.tier for puppet in reseller.accounts} == {"verified"}
    assert sum(result.take.sought) == pytest.approx(sum(result.take.wanted) / 2, rel=0.01)
    assert sum(result.take.served) == sum(result.take.wanted)


def test_a_skill_can_be_changed_for_a_run():
    def cheap(skill: Skill) -> Skill:
        return replace(skill, per_card=100)

    policies = policies_of(OPEN)
    result = simulate(policies, options(), 0, skilled=cheap)

    assert sum(operator.ledger.cards for operator in result.operators) == len(result.operators)
