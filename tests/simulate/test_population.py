"""The population has the shape that its description states."""

from __future__ import annotations

import statistics
from collections import Counter

import pytest

from guardrail.simulate.customers import Customers
from guardrail.simulate.modes import Baseline, baseline_policies
from guardrail.simulate.population import (
    DAY,
    ENDED,
    SEGMENTS,
    START,
    Account,
    Population,
    varied,
    worth_of,
)
from guardrail.simulate.running import names_of, simulate
from guardrail.simulate.skills import Attack
from tests.simulate.worlds import OPEN, TIERS, options, policies_of


def population(size=3000, seed=0, days=20):
    names = names_of(policies_of(OPEN), TIERS)
    return Population(seed, size, days, names, SEGMENTS)


@pytest.fixture(scope="module")
def many():
    return population()


def of(many, *names):
    return [account for account in many.accounts if many.segments[account.segment].name in names]


def test_segments_have_the_shares_they_state(many):
    counts = Counter(many.segments[account.segment].name for account in many.accounts)

    assert len(many.accounts) == 3000
    for segment in SEGMENTS:
        assert counts[segment.name] == pytest.approx(3000 * segment.share, abs=1)


def test_seven_in_ten_are_established_for_60_to_900_days(many):
    established = [account for account in many.accounts if account.established]
    ages = [(START - account.created) / DAY for account in established]
    new = [account for account in many.accounts if not account.established]

    assert len(established) / 3000 == pytest.approx(0.7, abs=0.04)
    assert statistics.median(age for age in ages if age >= 60) == pytest.approx(480, rel=0.1)
    assert max(ages) <= 900
    assert all(START <= account.created <= START + 20 * DAY for account in new)


def test_requests_an_account_are_as_skewed_as_those_of_real_services():
    shapes = []
    for seed in range(3):
        made = population(2000, seed, 14)
        customers = Customers(made, NeverAsked())  # type: ignore[arg-type]
        for day in range(14):
            customers.plan(day)
        asked = sorted(
            (account.asked / 14 for account in made.accounts if account.established), reverse=True
        )
        total, count = sum(asked), len(asked)
        shapes.append(
            (
                total / count,
                statistics.median(asked),
                sum(asked[: count // 100]) / total,
                sum(asked[: count // 10]) / total,
                sum(volume >= 25.6 for volume in asked) / count,
            )
        )
    mean, median, top_hundredth, top_tenth, busy = map(statistics.mean, zip(*shapes, strict=True))

    assert 40 < mean < 110
    assert 1.5 < median < 3
    assert 0.45 < top_hundredth < 0.8
    assert 0.83 < top_tenth < 0.95
    assert 0.16 < busy < 0.24


class NeverAsked:
    """A guard that is not asked: only plans are drawn."""

    decide = settle = None


def test_medians_and_shares_vary_by_half_between_seeds():
    found = [varied(seed) for seed in range(40)]
    medians = [segments[1].median / SEGMENTS[1].median for segments in found]

    assert min(medians) >= 0.5
    assert max(medians) <= 1.5
    assert statistics.stdev(medians) > 0.15
    assert all(sum(kind.share for kind in segments) == pytest.approx(1) for segments in found)
    assert len({segments[2].share for segments in found}) == 40


def test_verifications_take_hours_mostly_days_sometimes_and_are_given_up_now_and_then(many):
    taken = [account.verifies_in for account in many.accounts]

    assert sum(time == ENDED for time in taken) / 3000 == pytest.approx(0.05, abs=0.015)
    assert sum(time < 1.2 * DAY for time in taken) / 3000 == pytest.approx(0.82, abs=0.03)
    assert statistics.median(taken) == pytest.approx(8 * 3600 * 0.89, rel=0.12)


def test_seats_of_an_organisation_share_card_template_and_exits(many):
    orgs: dict[object, list[Account]] = {}
    for account in of(many, "enterprise"):
        orgs.setdefault(account.facts["account.org"], []).append(account)

    assert len(orgs) > 3
    for seats in orgs.values():
        assert len({seat.facts["payment.fingerprint"] for seat in seats}) == 1
        assert len({place["client.ip"] for seat in seats for place in seat.roams}) <= 5
        assert len({seat.tier == "enterprise" for seat in seats}) == 1


def test_a_quarter_of_developers_have_two_accounts_on_one_identity(many):
    developers = of(many, "developer")
    cards = Counter(account.facts["device.fingerprint"] for account in developers)
    paired = sum(count for count in cards.values() if count == 2)

    assert paired / len(developers) == pytest.approx(0.4, abs=0.1)
    for account in developers:
        assert account.tier == "email" or account.facts["kyc.subject"] == account.identity


def test_carriers_and_exits_are_shared_by_many(many):
    places = Counter(
        place["client.ip"] for account in of(many, "hobby") for place in account.roams[:2]
    )

    assert places.most_common(1)[0][1] >= 20


def test_who_uses_much_pays_and_is_verified_by_now(many):
    for account in many.accounts:
        monthly = 22 * account.rate * account.active[0] * worth_of(account)
        if monthly > 31 and many.segments[account.segment].name != "enterprise":
            assert account.pays_after < ENDED
            if account.established:
                assert account.paid >= monthly
    heavy = [a for a in of(many, "developer") if a.established and a.rate > 45]
    assert sum(account.tier != "email" for account in heavy) / len(heavy) > 0.95


def test_an_honest_account_and_one_of_a_farm_have_ids_of_the_same_form():
    result = simulate(policies_of(OPEN), options(attack=Attack.NAIVE), 0)
    honest = {str(account.facts["account.id"]) for account in result.population.accounts}
    farmed = {str(puppet.facts["account.id"]) for op in result.operators for puppet in op.accounts}

    assert {(len(name), name[:5]) for name in honest} == {(len(name), name[:5]) for name in farmed}
    assert not honest & farmed


def test_only_facts_that_the_policies_know_are_stated():
    policies = baseline_policies(Baseline.NONE)
    names = names_of(policies, TIERS)

    assert names.unverified is None
    assert "account.tier" not in names.known
    assert "request.capability" in names.known
