"""Whose budget a request uses, told by the guard's decisions."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping

import pytest

from guardrail import Guard
from guardrail.errors import SettingError
from tests.loaded import loaded

DAY = 86_400.0
MONDAY = 1_780_272_000.0  # 2026-06-01T00:00:00Z

POLICY = """
guardrail: 1
policy: actors
facts: {account.tier: {type: level, values: [free, verified]}}
lists: {contracted: [acme]}
links:
  trusted: {account.tier: verified, account.age: {gte: 30d}}
  strong: [payment.fingerprint, kyc.subject]
  weak: [client.network, device.fingerprint, request.template, request.toolset]
  window: {strong: 180d, weak: 14d}
  public_after: 3
  max_accounts: MOST
  exempt: {account.org: {in: $contracted}}
rules:
  - {id: pool, when: always, budget: {requests: LIMIT, per: 30d, key: actor.id}}
  - {id: crowded, when: {actor.accounts: {gte: 4}}, degrade: {x-crowded: "yes"}}
  - {id: known, when: {actor.trusted_accounts: {gte: 1}}, degrade: {x-known: "yes"}}
"""


def guard_for(limit: int = 1000, most: int = 5000) -> Guard:
    text = POLICY.replace("LIMIT", str(limit)).replace("MOST", str(most))
    return Guard.from_policies(loaded(text))


def shown(account: str, **evidence: object) -> dict[str, object]:
    """Return the facts of a newcomer, evidence by short names."""
    names = {
        "card": "payment.fingerprint", "subject": "kyc.subject", "network": "client.network",
        "device": "device.fingerprint", "template": "request.template", "org": "account.org",
        "toolset": "request.toolset",
    }  # fmt: skip
    facts: dict[str, object] = {"account.id": account, "account.tier": "free"}
    return facts | {names[name]: value for name, value in evidence.items()}


def trusted(account: str, **evidence: object) -> dict[str, object]:
    """Return the facts of a customer with a card and an identity of its own."""
    own = {"card": f"card of {account}", "subject": f"subject of {account}"}
    old = {"account.tier": "verified", "account.created": MONDAY - 90 * DAY}
    return shown(account, **own) | old | shown(account, **evidence) | old


def used(guard: Guard, facts: Mapping[str, object], now: float = MONDAY) -> int:
    """Return what the budget of a request had used with it."""
    (limit,) = guard.decide(facts, now=now).limits
    return int(limit.used)


def together(guard: Guard, one: dict[str, object], other: dict[str, object]) -> bool:
    """Tell whether what one account uses counts for another."""
    before = used(guard, one)
    used(guard, other)
    return used(guard, one) == before + 2


def test_one_shared_card_makes_two_accounts_share_a_budget() -> None:
    guard = guard_for()
    assert together(guard, shown("a", card="c"), shown("b", card="c"))
    assert not together(guard, shown("c", card="d"), shown("d", card="e"))


def test_weak_values_link_in_pairs_only() -> None:
    guard = guard_for()
    assert not together(guard, shown("a", network="n"), shown("b", network="n"))
    one, other = shown("c", network="n", device="d"), shown("d", network="n", device="d")
    assert together(guard, one, other)
    one = shown("e", network="n", device="x", template="y")
    assert not together(guard, one, shown("f", network="n", device="y", template="x"))


def test_an_account_joins_nobody_while_nobody_knows_whether_it_is_trusted() -> None:
    guard = guard_for()
    customer, farm = trusted("customer", card="c"), shown("farm", card="c")
    assert not together(guard, customer, farm)
    failed = frozenset({"account.tier", "account.created"})
    during = {name: value for name, value in customer.items() if name not in failed}
    newcomer = {"account.id": "newcomer", "payment.fingerprint": "c"}
    before = used(guard, farm)
    for facts in (during, newcomer):
        decision = guard.decide(facts, unavailable=failed, now=MONDAY)
        assert decision.allowed
        assert decision.case.facts["actor.id"] == facts["account.id"]
        assert decision.case.facts["actor.accounts"] == 1
    assert used(guard, farm) == before + 1
    assert not together(guard, customer, farm)


def test_nobody_is_an_actor_where_no_account_is_named_and_a_source_failed() -> None:
    guard = guard_for()
    failed = frozenset({"account.tier"})
    facts = {"payment.fingerprint": "c"}
    for stated in (facts, {**facts, "account.id": 7}):
        found = guard.decide(stated, unavailable=failed, now=MONDAY).facts
        assert not [name for name in found if name.startswith("actor.")]


def test_values_that_callers_choose_do_not_link_however_many_are_copied() -> None:
    guard = guard_for()
    copied = {"template": "a victim's", "toolset": "a victim's"}
    assert not together(guard, shown("victim", **copied), shown("copyist", **copied))
    assert together(guard, shown("a", network="n", **copied), shown("b", network="n", **copied))


def test_a_value_stays_public_when_one_of_many_trusted_accounts_stays_away() -> None:
    guard = guard_for(limit=100_000)
    for day in range(20):
        for number in range(10):
            if number or day < 2:
                facts = trusted(f"t{number}", network="campus", device=f"d{number}")
                guard.decide(facts, now=MONDAY + day * DAY)
    last = MONDAY + 19 * DAY
    one, other = (shown(name, network="campus", device="lab") for name in ("a", "b"))
    before = used(guard, one, last)
    used(guard, other, last)
    assert used(guard, one, last) == before + 1


def test_a_crowd_joins_no_two_actors() -> None:
    guard = guard_for(limit=10_000, most=4)
    for name in ("one", "two"):
        for number in range(4):
            guard.decide(shown(f"{name} {number}", card=name), now=MONDAY)
    for number in range(4):
        guard.decide(shown(f"three {number}", card="three"), now=MONDAY)
    member_of_one = shown("one 0", card="three")
    member_of_two = shown("two 0", card="three")
    assert not together(guard, member_of_one, member_of_two)


@pytest.mark.parametrize("now", [float("nan"), float("inf"), -1.0])
def test_a_time_that_is_none_is_told_before_anything_is_linked(now: float) -> None:
    with pytest.raises(SettingError, match="`now`"):
        guard_for().decide(shown("a", card="c"), now=now)


def test_links_work_in_the_last_year_that_a_time_may_be_of() -> None:
    guard, late = guard_for(), 7_258_000_000.0
    assert used(guard, shown("a", card="c"), late) == 1
    assert used(guard, shown("b", card="c"), late) == 2


def test_what_each_has_used_before_is_added_up_when_they_turn_out_to_be_one() -> None:
    guard = guard_for(limit=10)
    for _ in range(4):
        assert guard.decide(shown("a"), now=MONDAY).allowed
        assert guard.decide(shown("b"), now=MONDAY).allowed
    assert used(guard, shown("a", card="c")) == 5
    assert used(guard, shown("b", card="c")) == 10
    assert not guard.decide(shown("b", card="c"), now=MONDAY).allowed
    assert not guard.decide(shown("a", card="c"), now=MONDAY).allowed


def test_accounts_tied_by_different_evidence_are_one_through_a_third() -> None:
    guard = guard_for()
    used(guard, shown("a", card="c"))
    used(guard, shown("b", subject="s"))
    assert used(guard, shown("both", card="c", subject="s")) == 3
    assert together(guard, shown("a", card="c"), shown("b", subject="s"))


def test_a_trusted_account_keeps_a_budget_of_its_own_whatever_others_share_with_it() -> None:
    guard = guard_for(limit=5)
    victim = trusted("victim")
    same = {"card": "card of victim", "subject": "subject of victim"}
    for number in range(20):
        guard.decide(shown(f"farm {number}", **same), now=MONDAY)
    assert [guard.decide(victim, now=MONDAY + at).allowed for at in range(6)] == [True] * 5 + [
        False
    ]
    assert "x-crowded" not in guard.decide(victim, now=MONDAY + 30 * DAY).obligations


def test_untrusted_accounts_that_share_a_card_with_a_trusted_one_know_it() -> None:
    guard = guard_for()
    guard.decide(trusted("lead"), now=MONDAY)
    colleague = shown("colleague", card="card of lead")
    assert guard.decide(colleague, now=MONDAY).obligations["x-known"] == "yes"


def test_weak_links_never_join_a_trusted_account() -> None:
    guard = guard_for()
    guard.decide(trusted("lead", network="n", device="d"), now=MONDAY)
    stranger = shown("stranger", network="n", device="d")
    assert "x-known" not in guard.decide(stranger, now=MONDAY).obligations


def test_a_value_that_three_trusted_accounts_show_links_nobody_any_more() -> None:
    guard = guard_for()
    behind = {"network": "nat", "template": "default"}
    one, other = shown("a", device="d1", **behind), shown("b", device="d2", **behind)
    assert together(guard, one, other)
    for name in ("t1", "t2", "t3"):
        guard.decide(trusted(name, network="nat", device=name), now=MONDAY)
    later = MONDAY + 660  # what is known of an account is remembered for ten minutes
    before = used(guard, one, later)
    used(guard, other, later)
    assert used(guard, one, later) == before + 1


def test_three_trusted_accounts_on_one_card_make_nothing_public() -> None:
    guard = guard_for()
    for name in ("t1", "t2", "t3"):
        facts = trusted(name, network="office", device="d", card="one card")
        guard.decide(facts, now=MONDAY)
    pair = {"network": "office", "device": "d"}
    assert together(guard, shown("a", **pair), shown("b", **pair))


def test_a_nat_of_ten_thousand_newcomers_behind_some_trusted_ones_is_never_one_actor() -> None:
    guard = guard_for()
    for number in range(3):
        guard.decide(trusted(f"t{number}", network="nat", template="default"), now=MONDAY)
    for number in range(10_000):
        facts = shown(f"a{number}", network="nat", template="default", device=f"d{number % 5000}")
        decision = guard.decide(facts, now=MONDAY + number)
        assert "x-crowded" not in decision.obligations
        (limit,) = decision.limits
        assert limit.used == 1


def shared_by_strangers(kind: str, number: int) -> dict[str, object]:
    """Return what an account of a crowd that is no actor shows beside what is its own."""
    own = {"device": f"device {number}", "network": f"network {number}", "template": f"t {number}"}
    shared: dict[str, dict[str, object]] = {
        "a campus behind one address, with the course's template": {
            "network": "campus", "template": "course",
        },
        "a VPN's exit, with the tool everybody uses there": {"network": "exit", "template": "tool"},
        "a framework's template and its emulated device": {"template": "sdk", "device": "emulator"},
        "a carrier's address and a phone's model": {"network": "carrier", "device": "model"},
        "a reseller's address and template": {"network": "reseller", "template": "reseller"},
    }  # fmt: skip
    return own | shared[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "a campus behind one address, with the course's template",
        "a VPN's exit, with the tool everybody uses there",
        "a framework's template and its emulated device",
        "a carrier's address and a phone's model",
        "a reseller's address and template",
    ],
)
def test_a_crowd_of_strangers_is_no_actor_once_trusted_accounts_are_among_them(kind: str) -> None:
    guard = guard_for()
    for number in range(3):
        facts = trusted(f"t{number}", **shared_by_strangers(kind, 1_000_000 + number))
        guard.decide(facts, now=MONDAY)
    for number in range(2_000):
        facts = shown(f"a{number}", **shared_by_strangers(kind, number))
        assert used(guard, facts, MONDAY + number) == 1


def test_a_crowd_without_a_trusted_account_is_held_together_until_there_are_some() -> None:
    guard, kind = guard_for(), "a carrier's address and a phone's model"
    one, other = (shown(name, **shared_by_strangers(kind, 1)) for name in ("a", "b"))
    assert together(guard, one, other)
    for number in range(3):
        facts = trusted(f"t{number}", **shared_by_strangers(kind, 1_000_000 + number))
        guard.decide(facts, now=MONDAY)
    assert used(guard, shown("c", **shared_by_strangers(kind, 7)), MONDAY) == 1


@pytest.mark.parametrize("tied", [(67, 4), (8, 3), (405, 10), (1_400, 16)])
def test_the_more_strangers_a_pair_ties_the_more_trusted_accounts_make_it_public(
    tied: tuple[int, int],
) -> None:
    guard, (farm, needed) = guard_for(limit=100_000), tied
    for number in range(farm):
        guard.decide(shown(f"a{number}", network="exit", device="d"), now=MONDAY)

    def is_free(name: str) -> bool:
        return used(guard, shown(name, network="exit", device="d"), MONDAY + 60) <= 2

    for number in range(needed):
        assert not is_free("a1")
        guard.decide(trusted(f"t{number}", network="exit", device=f"d{number}"), now=MONDAY + 60)
    assert used(guard, shown("newcomer", network="exit", device="d"), MONDAY + 60) == 1


@pytest.mark.parametrize("accounts", [50, 2_500, 25_000])
def test_no_number_of_accounts_on_one_card_takes_more(accounts: int) -> None:
    guard = guard_for(limit=200, most=5000)
    served = sum(
        guard.decide(shown(f"a{number}", card="c"), now=MONDAY + number / 100).allowed
        for number in range(accounts)
    )
    # A full actor's budget, and that of the crowd of those whom it keeps out.
    assert served == (50 if accounts == 50 else 200 if accounts <= 5000 else 400)


def test_contracted_organisations_are_never_linked() -> None:
    guard = guard_for()
    one, other = (shown(name, card="c", org="acme") for name in ("a", "b"))
    assert not together(guard, one, other)


@pytest.mark.parametrize("shows", [{"card": "c"}, {}], ids=["what tied it", "nothing"])
def test_an_account_that_becomes_exempt_goes_on_with_what_it_used_itself(shows) -> None:
    guard = guard_for()
    used(guard, shown("a"))
    for number in range(5):
        used(guard, shown(f"b{number}", card="c"))
    assert used(guard, shown("a", card="c"), MONDAY + 1) == 7

    contracted = shown("a", org="acme", **shows)
    assert [used(guard, contracted, MONDAY + second) for second in (40, 41)] == [2, 3]
    # Nor does what others have used meet it when nothing ties it any more.
    assert used(guard, shown("a", org="acme", card="c"), MONDAY + 80) == 4


def test_the_end_of_an_exempt_accounts_links_leaves_it_what_it_used_itself() -> None:
    guard = guard_for()
    pair = {"network": "n", "device": "d"}
    for name in ("a", "b", "b", "b"):
        used(guard, shown(name, **pair))
    contracted = shown("a", org="acme")
    assert [used(guard, contracted, MONDAY + day * DAY) for day in (1, 2)] == [2, 3]
    for number in range(3):
        used(guard, shown(f"z{number}"), MONDAY + (16 + number) * DAY)
    assert used(guard, contracted, MONDAY + 20 * DAY) == 4


def test_an_account_that_is_exempt_at_times_is_alone_then() -> None:
    guard = guard_for()
    one, other = shown("a", card="c"), shown("b", card="c")
    alone = shown("a", org="acme")
    used(guard, other)
    assert used(guard, alone, MONDAY + 40) == 1
    assert used(guard, one, MONDAY + 80) == 3
    assert used(guard, alone, MONDAY + 120) == 2


def test_an_exempt_account_stays_alone_when_others_join_what_once_tied_it() -> None:
    guard = guard_for()
    alone = shown("a", org="acme")
    used(guard, shown("a", card="c"))
    assert used(guard, alone, MONDAY + 40) == 2
    assert used(guard, shown("b", card="c"), MONDAY + 80) == 1
    assert used(guard, alone, MONDAY + 120) == 3


def test_a_link_lasts_for_its_window_after_it_was_last_used() -> None:
    guard = guard_for(limit=100_000)
    pair = {"network": "n", "device": "d"}
    one, other = shown("a", **pair), shown("b", **pair)
    assert together(guard, one, other)

    def size(account: str, day: int) -> bool:
        facts = shown(account, network=f"elsewhere of {account}")
        trio = [shown(f"{account}{number}", card=account) for number in range(3)]
        for member in trio:
            guard.decide(member, now=MONDAY + day * DAY)
        facts |= {"payment.fingerprint": account}
        return "x-crowded" in guard.decide(facts, now=MONDAY + day * DAY + 60).obligations

    before = used(guard, one, MONDAY + 13 * DAY)
    used(guard, shown("b"), MONDAY + 13 * DAY)
    assert used(guard, shown("a"), MONDAY + 13 * DAY) == before + 2
    # Used on day 13 by one of them only: the other's link ends after its fourteenth day.
    after = used(guard, shown("a"), MONDAY + 15 * DAY)
    used(guard, shown("b"), MONDAY + 15 * DAY)
    assert used(guard, shown("a"), MONDAY + 15 * DAY) == after + 1
    assert size("fresh", 16)


def test_a_part_of_an_actor_keeps_what_the_whole_had_used() -> None:
    guard = guard_for(limit=10)
    pair = {"network": "n", "device": "d"}
    for at in range(10):
        assert guard.decide(shown(f"a{at % 2}", **pair), now=MONDAY + at).allowed
    later = MONDAY + 20 * DAY
    assert not guard.decide(shown("a0"), now=later).allowed
    assert not guard.decide(shown("a1"), now=later).allowed
    assert guard.decide(shown("a2"), now=later).allowed


def test_whom_a_full_actor_keeps_out_shares_a_crowds_budget_and_is_not_set_free() -> None:
    guard = guard_for(limit=6, most=5)
    for number in range(5):
        assert guard.decide(shown(f"a{number}", card="c"), now=MONDAY).allowed
    admitted = [
        guard.decide(shown(f"b{number}", card="c"), now=MONDAY).allowed for number in range(40)
    ]
    assert sum(admitted) == 6
    assert guard.decide(trusted("lead", card="c"), now=MONDAY).allowed


@pytest.mark.parametrize("whose", [0, 1])
def test_what_is_settled_after_a_merge_counts_for_whom_the_account_acts_as(whose: int) -> None:
    policy = POLICY.replace("requests: LIMIT", "tokens: 1000").replace("MOST", "5000")
    guard = Guard.from_policies(loaded(policy))
    estimate = {"input_tokens": 100, "output_tokens": 300}
    early = [
        guard.decide(shown("a"), estimate, now=MONDAY),
        guard.decide(shown("b", card="c"), estimate, now=MONDAY),
    ]
    late = guard.decide(shown("a", card="c"), {"input_tokens": 0, "output_tokens": 0}, now=MONDAY)
    assert late.limits[0].used == 800
    # One of the two accounts' counters was moved to the other's.
    guard.settle(early[whose], {"input_tokens": 100, "output_tokens": 0}, now=MONDAY)
    again = guard.decide(shown("a", card="c"), {"input_tokens": 0, "output_tokens": 0}, now=MONDAY)
    assert again.limits[0].used == 500


def test_links_outlive_a_change_of_policies() -> None:
    guard = guard_for()
    used(guard, shown("a", card="c"))
    used(guard, shown("b", card="c"))
    changed = POLICY.replace("LIMIT", "2000").replace("MOST", "4000")
    guard = guard.with_policies(loaded(changed.replace("weak: [client.network, ", "weak: [")))
    assert together(guard, shown("a"), shown("b"))


@pytest.mark.parametrize("seed", range(12))
def test_no_split_of_requests_over_accounts_that_share_a_card_takes_more(seed: int) -> None:
    dice = random.Random(seed)
    guard, served = guard_for(limit=50), defaultdict[int, int](int)
    for at in range(600):
        card = dice.randrange(3)
        facts = shown(f"a{dice.randrange(40)} of {card}", card=f"c{card}")
        served[card] += guard.decide(facts, now=MONDAY + at).allowed
    assert set(served.values()) == {50}
