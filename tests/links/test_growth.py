"""Numbers set nobody free: accounts, cohorts, a tripped breaker, time, parting and forgetting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardrail import Guard
from guardrail.loading import load_policies, load_text
from guardrail.model.amounts import SECOND
from tests.links.test_actors import DAY, MONDAY, guard_for, shown, trusted
from tests.links.test_poisoning import BY_ACTOR

POLICIES = Path(__file__).parents[2] / "policies"
Facts = dict[str, object]
MOST, LIMIT = 300, 40


def on_one_card(number: int) -> Facts:
    return shown(f"a{number}", card="c")


def on_one_pair(number: int) -> Facts:
    return shown(f"a{number}", network="n", device="d", template=f"own {number}")


def in_one_actor(number: int) -> Facts:
    """Return an account that is tied to the next ones by one of several kinds of evidence."""
    kind, group = number % 3, number // 3
    if kind == 0:
        return shown(f"a{number}", card=f"c{group // 50}", subject=f"s{group // 7}")
    if kind == 1:
        return shown(f"a{number}", card=f"c{group // 50}", network="n", device=f"d{group // 90}")
    return shown(f"a{number}", subject=f"s{group // 7}", network="n", device=f"d{group // 90}")


Growing = Callable[[int], Facts]


@pytest.mark.parametrize("accounts", [50, 2_000])
@pytest.mark.parametrize("show", [on_one_card, on_one_pair, in_one_actor])
def test_an_actor_takes_no_more_however_many_accounts_it_grows_to(
    show: Growing, accounts: int
) -> None:
    guard = guard_for(limit=LIMIT, most=10_000)
    served = sum(
        guard.decide(show(number), now=MONDAY + number / 100).allowed for number in range(accounts)
    )
    # Some groups of it have used something before they turn out to be one.
    most = LIMIT if show is not in_one_actor else 4 * LIMIT
    assert min(LIMIT, accounts) <= served <= most


@pytest.mark.parametrize("show", [on_one_card, on_one_pair])
def test_whom_a_full_actor_keeps_out_takes_as_much_once_and_no_more(show: Growing) -> None:
    guard = guard_for(limit=LIMIT, most=MOST)
    served = [
        guard.decide(show(number), now=MONDAY + number / 100).allowed for number in range(4 * MOST)
    ]
    assert sum(served) == 2 * LIMIT
    assert not any(served[MOST + LIMIT :])


def farm(cohorts: int) -> int:
    """Return how much four hundred new accounts get that registered in so many cohorts."""
    guard = Guard.from_policies(load_policies([POLICIES]), environ={})
    served = 0
    for number in range(1600):
        account = number % 400
        facts: Facts = {
            "account.id": f"a{account}", "account.tier": "email", "account.paid_usd": 0,
            "account.created": MONDAY - DAY, "account.signup": f"cohort {account % cohorts}",
            "client.network": f"203.0.{account % 250}.0/24", "network.kind": "vpn",
            "device.fingerprint": f"device {account}", "geo.country": "DE",
            "request.capability": "chat",
        }  # fmt: skip
        estimate = {"input_tokens": 100, "output_tokens": 100}
        served += guard.decide(facts, estimate, now=MONDAY + number * 60.0).allowed
    return served


def test_spreading_over_cohorts_gains_nothing() -> None:
    one, many = farm(1), farm(400)
    assert 0 < many <= 700
    assert many <= one


def test_tripping_the_breaker_gains_established_accounts_no_more_than_their_actors_budget() -> None:
    guard = Guard.from_policies(load_text(BY_ACTOR), environ={})
    served = tripped = 0
    for number in range(2000):
        facts: Facts = {
            "account.id": f"a{number % 11}", "account.tier": "email",
            "account.created": MONDAY - 90 * DAY, "payment.fingerprint": "c",
            "client.network": f"n{number % 4}", "request.template": "t", "geo.country": "FR",
        }  # fmt: skip
        now = MONDAY + number * 40.0
        served += guard.decide(facts, now=now).allowed
        tripped += any("no further established" in line for line in guard.warnings(now=now))
    assert tripped > 100
    assert 10 < served <= 60


LIFETIME = """
guardrail: 1
policy: for-ever
facts: {account.tier: {type: level, values: [free, verified]}}
links:
  trusted: {account.tier: verified}
  strong: [payment.fingerprint]
  weak: [client.network, device.fingerprint]
rules:
  - {id: pool, when: always, budget: {requests: 12, per: lifetime, key: actor.id}}
"""


def used_up() -> tuple[Guard, list[Facts]]:
    """Return accounts that have used what they share, to the last request."""
    guard = Guard.from_policies(load_text(LIFETIME), environ={})
    pair = {"network": "n", "device": "d"}
    accounts = [shown(f"a{number}", card="c", **pair) for number in range(3)]
    for at in range(12):
        assert guard.decide(accounts[at % 3], now=MONDAY + at).allowed
    return guard, accounts


def links_of(guard: Guard) -> tuple[Any, Any]:
    """Return the links of a guard in memory, and the counters that follow them."""
    context = guard._context
    return context.links, context.engine.pools


def elsewhere(facts: Facts) -> Facts:
    """Return the same account with nothing of what it showed."""
    return shown(str(facts["account.id"]), network=f"own of {facts['account.id']}")


@pytest.mark.parametrize("days", [0, 1, 15, 190])
def test_neither_showing_something_else_nor_waiting_gains_anything(days: int) -> None:
    guard, accounts = used_up()
    for facts in accounts:
        assert not guard.decide(elsewhere(facts), now=MONDAY + days * DAY + 60).allowed
        assert not guard.decide(facts, now=MONDAY + days * DAY + 61).allowed


def test_being_forgotten_gains_nothing() -> None:
    guard, accounts = used_up()
    links, pools = links_of(guard)
    for number, facts in enumerate(accounts):
        moment = int((MONDAY + 100 + number) * SECOND)
        assert links.erase(str(facts["account.id"]), pools, moment)
        assert not guard.decide(elsewhere(facts), now=MONDAY + 110 + number).allowed
    for facts in accounts:
        assert not guard.decide(facts, now=MONDAY + DAY).allowed


def test_an_appeal_gives_an_account_its_own_room_and_nobody_else_any() -> None:
    guard, accounts = used_up()
    links, pools = links_of(guard)
    assert links.unlink("a0", pools, int((MONDAY + 100) * SECOND))
    served = [guard.decide(accounts[0], now=MONDAY + 101 + at).allowed for at in range(20)]
    assert 0 < sum(served) <= 12
    for facts in (*accounts[1:], shown("new", card="c")):
        assert not guard.decide(facts, now=MONDAY + 130).allowed
    for facts in accounts[1:]:
        assert not guard.decide(elsewhere(facts), now=MONDAY + 200 * DAY).allowed


def bank(number: int) -> Facts:
    """Return a customer of a card issuer: a card of its own, and all else the issuer's."""
    common = {"network": "the issuer's gateway", "template": "the issuer's assistant"}
    return shown(f"a{number}", card=f"card {number}", device=f"own {number}", **common)


def reseller(number: int) -> Facts:
    """Return a customer of a contracted reseller, who pays for all with one card."""
    common = {"network": "the reseller's address", "template": "the reseller's prompt"}
    return shown(f"a{number}", card="the reseller's", org="acme", device="one", **common)


@pytest.mark.parametrize("show", [bank, reseller])
def test_customers_of_one_issuer_or_reseller_are_never_one_actor(show: Growing) -> None:
    guard = guard_for(limit=5)
    for number in range(3):
        evidence = {"network": "the issuer's gateway", "template": "the issuer's assistant"}
        guard.decide(trusted(f"t{number}", device=f"t{number}", **evidence), now=MONDAY)
    for number in range(2_000):
        decision = guard.decide(show(number), now=MONDAY + number)
        assert decision.allowed
        assert decision.limits[0].used == 1
        assert "x-crowded" not in decision.obligations


BY_TRUSTED = LIFETIME.replace(
    "requests: 12", "requests: {by: actor.trusted_accounts, bands: {0: 12, 1: 20, 3: 50}}"
)


@pytest.mark.parametrize(("cards", "most"), [(0, 12), (1, 20), (2, 20), (3, 50), (40, 50)])
def test_who_shows_customers_cards_has_at_most_the_highest_room_once_and_they_lose_none(
    cards: int, most: int
) -> None:
    """A colleague who pays with the company's card cannot be told from who has stolen it."""
    guard = Guard.from_policies(load_text(BY_TRUSTED), environ={})
    customers = [trusted(f"t{number}") for number in range(40)]
    for facts in customers:
        guard.decide(facts, now=MONDAY)
    pair = {"network": "n", "device": "d"}
    served = 0
    for number in range(600):
        more = {"card": f"card of t{number % cards}"} if cards else {}
        facts = shown(f"a{number % 60}", **pair, **more)
        served += guard.decide(facts, now=MONDAY + 60 + number).allowed
    # Some have used a request before the first of the cards shows who they are.
    assert most <= served <= most + cards
    for facts in customers:
        left = [guard.decide(facts, now=MONDAY + 900 + at).allowed for at in range(21)]
        assert left == [True] * 19 + [False] * 2
