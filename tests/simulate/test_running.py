"""Whole simulations: they repeat themselves, nothing is lost, and the modes tell what they say."""

from __future__ import annotations

import json
import math

import pytest

from guardrail.errors import SettingError
from guardrail.simulate.modes import (
    PRIMITIVES,
    Baseline,
    ablate,
    baseline_policies,
    null,
    placebo,
    plain,
    twin,
    twin_figures,
    without,
)
from guardrail.simulate.operators import Take
from guardrail.simulate.report import containment, figures, until
from guardrail.simulate.running import names_of, simulate
from guardrail.simulate.shocks import SHOCKS
from guardrail.simulate.skills import Attack
from tests.simulate.worlds import CARDS, OPEN, TIERS, TRIAL, options, policies_of

TOGETHER = """\
  - id: together
    when: always
    budget: {requests: 200, per: day, key: global}
"""


def lasting(told):
    """Return figures without the time that they took."""
    return {name: value for name, value in told.items() if "second" not in name}


def test_a_seed_repeats_itself_and_no_other_does():
    policies = policies_of(TRIAL + CARDS)
    given = options(shocks=True)
    first, second, other = (lasting(plain(policies, given, seed)) for seed in (3, 3, 4))

    assert first == second
    assert first != other


@pytest.mark.parametrize("rules", [OPEN, TRIAL + CARDS, TOGETHER])
def test_every_request_is_served_refused_or_held(rules):
    result = simulate(policies_of(rules), options(accounts=80, shocks=True), 1)

    for account in result.population.accounts:
        assert account.asked == account.served + account.refused + account.held
        assert account.degraded <= account.served
    totals = [sum(day[at] for day in result.by_day) for at in range(4)]
    assert totals[0] == sum(totals[1:]) > 1000
    for tally in result.shocks.values():
        assert tally.asked == tally.served + tally.refused + tally.held


def test_without_rules_all_is_served():
    result = simulate(policies_of(OPEN), options(shocks=True), 2)
    told = figures(result)

    assert told["attacker"]["share"] == told["attacker"]["sought_share"] == 1.0
    assert told["attacker"]["cost_multiple"] == 1.0
    for pooled in told["honest"]["pooled"].values():
        assert pooled["served"] == pooled["asked"]


def test_honest_customers_ask_the_same_whoever_else_is_about():
    policies = policies_of(TRIAL)
    quiet, attacked = (
        simulate(policies, options(attack=attack), 5) for attack in (Attack.NONE, Attack.NAIVE)
    )

    assert [day[0] for day in quiet.by_day] == [day[0] for day in attacked.by_day]
    assert [a.asked for a in quiet.population.accounts] == [
        a.asked for a in attacked.population.accounts
    ]


def test_twins_without_an_attack_are_equal():
    policies = policies_of(TRIAL + TOGETHER)
    given = options(attack=Attack.NONE, watch=True, shocks=True)
    told = twin_figures(simulate(policies, given, 6), simulate(policies, given, 6))

    assert told["compared"] > 50
    assert told["different"] == 0


def test_twins_under_limits_of_their_own_are_equal():
    told = twin(policies_of(TRIAL + CARDS), options(accounts=100), 6)["twin"]

    assert told["compared"] > 50
    assert (told["different"], told["accounts_different"], told["examples"]) == (0, 0, [])


def test_a_twin_tells_when_an_attack_takes_what_others_had():
    told = twin(policies_of(TOGETHER), options(accounts=100, fleet=60), 6)["twin"]

    assert told["different"] > 0
    assert told["examples"]


def test_without_an_attack_there_is_no_attacker_to_report():
    told = null(policies_of(TRIAL), options(), 0)

    assert told["attacker"] is None
    assert told["attack"] == "none"


def test_a_placebo_is_drawn_from_everybody():
    told = placebo(policies_of(CARDS), options(accounts=100, attack=Attack.NAIVE), 1)["placebo"]

    assert told["called_attackers"]["accounts"] == told["attackers"]["accounts"]
    farmed, drawn = (told[name]["refused_accounts_share"] for name in ("attackers", "honest"))
    assert farmed > 0.3 > drawn
    assert told["called_attackers"]["refused_accounts_share"] < farmed


def test_an_ablation_leaves_out_one_primitive_at_a_time():
    policies = policies_of(TRIAL + CARDS + TOGETHER)
    rows = {row["primitive"]: row for row in ablate(policies, options(), 0)["ablation"]}

    assert list(rows) == [primitive.name for primitive in PRIMITIVES]
    assert rows["sharing"]["dropped"] == ["cards"]
    assert rows["lifetime"]["dropped"] == ["trial"]
    assert rows["ceilings"]["dropped"] == ["together"]
    assert rows["links"]["dropped"] == []
    assert (
        rows["ceilings"]["attacker"]["sought_share"] > rows["sharing"]["attacker"]["sought_share"]
    )


def test_what_an_ablation_leaves_is_the_policy_set_without_those_rules():
    policies = policies_of(TRIAL + CARDS)
    primitive = next(one for one in PRIMITIVES if one.name == "lifetime")
    rest, dropped = without(policies, primitive)

    assert dropped == ("trial",)
    assert [(rule.id, rule.index) for rule in rest.rules] == [("cards", 0)]


def test_all_shocks_happen():
    result = simulate(policies_of(OPEN), options(accounts=300, days=14, shocks=True), 3)

    touched = {name for name, tally in result.shocks.items() if tally.accounts}
    assert len(result.shocks) == len(SHOCKS) == 12
    assert {"hackathon", "bootcamp card", "model launch", "viral agent"} <= touched
    assert len(touched) >= 10


def test_shocks_can_be_left_out():
    result = simulate(policies_of(OPEN), options(shocks=False), 3)

    assert result.shocks == {}
    assert len(result.population.accounts) == 60


def test_tiers_of_other_names_have_to_be_named():
    policies = policies_of(TRIAL)

    with pytest.raises(SettingError, match=r"`account.tier` has no value `free`, only `email`"):
        names_of(policies, ("free", "verified", "enterprise"))
    assert names_of(policies, ("email", "verified", "gold")).enterprise == "verified"


def test_models_are_those_of_the_policies():
    assert names_of(policies_of(OPEN), TIERS).models == ("large", "small")
    assert names_of(baseline_policies(Baseline.NONE), TIERS).models == ("large", "medium", "small")


@pytest.mark.parametrize("baseline", Baseline)
def test_baselines_are_policy_sets(baseline):
    told = plain(baseline_policies(baseline), options(fleet=40), 0)

    assert told["attacker"]["share"] > 0.3
    if baseline is Baseline.NONE:
        assert told["attacker"]["share"] == 1.0


def test_figures_are_json():
    told = plain(policies_of(TRIAL), options(supply=math.inf, shocks=True), 0)

    assert json.loads(json.dumps(told, allow_nan=False))["supply"] is None


def test_an_attack_begins_after_some_quiet_days():
    given = options(accounts=40, days=14, fleet=10)
    told = figures(simulate(policies_of(OPEN), given, 0))

    assert given.quiet == 3
    assert [day["wanted"] > 0 for day in told["by_day"]] == [False] * 3 + [True] * 14
    assert [day["day"] for day in told["by_day"]][:4] == [-2, -1, 0, 1]
    assert options(days=3).quiet == 0
    assert options(days=4).quiet == 1


def test_a_tick_tells_how_far_a_simulation_is():
    told: list[float] = []
    simulate(policies_of(OPEN), options(attack=Attack.NONE), 0, tick=told.append)

    assert told == [1 / 3, 2 / 3, 1.0]


@pytest.mark.parametrize("attack", [Attack.NAIVE, Attack.CAREFUL, Attack.EXPERT, Attack.WHITEBOX])
def test_nobody_gets_more_than_the_policies_bound(attack):
    rules = """\
  - id: together
    when: {account.tier: email}
    budget: {requests: 150, per: day, key: global}
  - id: identity
    when: {account.tier: {at_least: verified}}
    budget: {requests: 30, per: day, key: kyc.subject}
"""
    given = options(attack=attack, fleet=40, supply=math.inf)
    taken = figures(simulate(policies_of(rules), given, 1))["attacker"]

    assert taken["bound"] == 4 * (150 + 30 * taken["identities_bought"])
    assert 0 < taken["served"] <= taken["bound"]


def test_where_nothing_bounds_operators_that_is_told():
    told = plain(policies_of(OPEN), options(), 0)

    assert told["attacker"]["bound"] is None


# Containment


def take_of(shares, wanted=100):
    """Return a take of which a share is served in each hour."""
    hours = len(shares)
    served = [round(wanted * share) for share in shares]
    return Take([wanted] * hours, served, [wanted] * hours, served)


def test_an_attack_is_contained_when_a_day_of_it_is_under_a_twentieth_for_a_week():
    take = take_of([1.0] * 48 + [0.0] * 240)

    # The 24 hours up to hour 48 + 23 still have one full hour, a 24th of the demand.
    assert containment(take, 0, 288) == 48 + 23


def test_an_attack_that_comes_back_within_the_week_is_not_contained_yet():
    take = take_of([0.0] * 100 + [1.0] * 24 + [0.0] * 300)

    assert containment(take, 0, 424) == 124 + 23


def test_an_attack_that_goes_on_is_never_contained():
    assert containment(take_of([0.06] * 400), 0, 400) is None
    assert containment(take_of([1.0] * 270 + [0.0] * 20), 0, 290) is None


def test_an_attack_that_never_got_anywhere_is_contained_after_its_first_day():
    assert containment(take_of([0.0] * 300), 0, 300) == 24


def test_shares_are_told_of_the_first_days():
    take = take_of([1.0] * 24 + [0.0] * 24)

    assert until(take.served, take.wanted, 0, 1) == 1.0
    assert until(take.served, take.wanted, 0, 2) == 0.5
    assert until(take.served, take.wanted, 24, 1) == 0.0
    assert until([0], [0], 0, 1) is None
