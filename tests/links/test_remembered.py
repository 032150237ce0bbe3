"""What is remembered of accounts in memory says what seeing them anew each time would say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from guardrail.links import LinkSignal, Standing
from guardrail.loading import load_text
from guardrail.model.conditions import Comparison, Condition, Every, Negation, Some
from tests.links.histories import (
    DAY,
    EXEMPT,
    LINKS,
    POOLS,
    SECOND,
    START,
    TRUSTED,
    Facts,
    InMemory,
    difference,
    regulars,
)

MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
POLICY = """
guardrail: 1
policy: remembered
facts: {account.tier: {type: level, values: [free, verified]}}
rules:
  - {id: pool, when: always, budget: {requests: 1000, per: 30d, key: actor.id}}
"""


class Remembering(InMemory):
    """Links in memory, asked as a guard asks them."""

    def __init__(self, trusted: Condition = TRUSTED, most: int = LINKS.max_accounts) -> None:
        links = replace(LINKS, trusted=trusted, max_accounts=most)
        super().__init__(links)
        policies = replace(load_text(POLICY), links=links)
        self.signal = LinkSignal(policies, self.links, POOLS)

    def see(self, facts: Facts, now: int) -> Standing:
        """Return whom the account of a request acts as."""
        found = self.signal.facts(facts, now / SECOND)
        actor, accounts, trusted = (
            found[f"actor.{name}"] for name in ("id", "accounts", "trusted_accounts")
        )
        assert isinstance(accounts, int)
        assert isinstance(trusted, int)
        number = 0 if actor == facts["account.id"] else int(str(actor).removeprefix("actor-"), 16)
        return Standing(number, accounts, trusted)


@pytest.mark.parametrize("seed", range(40))
def test_an_account_acts_and_is_charged_as_if_it_were_seen_each_time(seed: int) -> None:
    assert difference(InMemory(), Remembering(), seed, 250, regulars) is None


def ages(over: int, under: int) -> Condition:
    """Return a condition that holds from one age on, and below another."""
    return Every(
        (
            Comparison("account.age", "gte", over, ""),
            Comparison("account.age", "lt", under, ""),
        )
    )


def test_an_account_is_trusted_in_the_moment_in_which_it_is_old_enough() -> None:
    side = Remembering(ages(3600, 7200))
    created = START / SECOND
    own: Facts = {"account.id": "a", "account.created": created, "payment.fingerprint": "c"}
    side.see({"account.id": "b", "payment.fingerprint": "c"}, START)
    for after, trusted in (
        (0, 0), (MINUTE, 0), (HOUR - 1000, 0), (HOUR, 1), (HOUR + MINUTE, 1), (2 * HOUR - 1000, 1),
        (2 * HOUR, 0),
    ):  # fmt: skip
        standing = side.see(own, START + after)
        assert standing.trusted == trusted, after
        assert standing.accounts == (1 if trusted else 2), after


CONDITIONS: dict[str, Condition] = {
    "an age": Comparison("account.age", "gt", 86_400, ""),
    "two ages": Some((ages(3600, 5000), Comparison("account.verified_age", "lte", 9000, ""))),
    "no age": Negation(Comparison("account.age", "lt", 40_000, "")),
    "an hour": Comparison("time.hour", "in", frozenset({0, 7, 13}), ""),
    "a day": Comparison("time.weekday", "not_in", frozenset({"sat", "sun"}), ""),
    "now": Comparison("account.paid_since", "before", None, ""),
    "two ages that are the same": Comparison("account.age", "same_as", "account.paid_age", ""),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_trust_that_time_brings_or_takes_is_known_at_every_moment(condition: str) -> None:
    trusted = CONDITIONS[condition]
    side, plain = Remembering(trusted), InMemory(replace(LINKS, trusted=trusted))
    reader = side.signal._reader
    own: Facts = {
        "account.id": "a",
        "account.created": START / SECOND - 3000,
        "account.verified_at": START / SECOND,
        "account.paid_since": START / SECOND + 5000,
        "payment.fingerprint": "c",
    }
    for after in range(0, 2 * DAY, 500 * SECOND):
        for near in (-1, 0, 1):
            now = START + after + near
            typed, _ = reader.read(own, now / SECOND)
            wanted = plain.see(typed, now)
            assert side.see(own, now) == wanted, (after, near)


def test_what_one_request_says_of_trust_counts_for_the_next_that_says_otherwise() -> None:
    side = Remembering()
    own: Facts = {"account.id": "a", "payment.fingerprint": "c"}
    verified: Facts = {**own, "account.tier": "verified"}
    other: Facts = {"account.id": "b", "payment.fingerprint": "c"}
    side.see(verified, START)
    assert side.see(other, START + 1) == Standing(side.see(other, START + 1).actor, 2, 1)
    assert side.see(own, START + 2).accounts == 2
    assert side.see(other, START + 3).trusted == 0
    assert side.see(verified, START + 4) == Standing(0, 1, 1)
    assert side.see(other, START + 5).trusted == 1


def parted(side: Remembering) -> None:
    """Part two accounts by an appeal of one of them."""
    assert side.unlink("a", START + MINUTE)


def forgotten(side: Remembering) -> None:
    """Forget one of two accounts."""
    assert side.links.erase("a", POOLS, START + MINUTE)


@pytest.mark.parametrize(("change", "accounts"), [(parted, 1), (forgotten, 2)])
def test_what_an_operator_changes_acts_at_once_and_what_is_shown_again_soon(
    change: Callable[[Remembering], None], accounts: int
) -> None:
    side = Remembering()
    shown: list[Facts] = [{"account.id": name, "payment.fingerprint": "c"} for name in ("a", "b")]
    for facts in shown:
        side.see(facts, START)
    change(side)
    assert [side.see(facts, START + MINUTE).accounts for facts in shown] == [1, 1]
    later = START + 12 * MINUTE
    assert [side.see(facts, later).accounts for facts in shown][1] == accounts


def test_an_exempt_account_stays_out_whoever_joins_whom_it_shares_with() -> None:
    assert EXEMPT is LINKS.exempt
    side = Remembering()
    own: Facts = {"account.id": "a", "payment.fingerprint": "c"}
    side.see(own, START)
    partner: Facts = {**own, "account.org": "partner"}
    for number in range(4):
        now = START + number * 15 * MINUTE
        assert side.see(partner, now) == Standing(0, 1, 0)
        side.see({"account.id": f"b{number}", "payment.fingerprint": "c"}, now + 1)
        assert side.see(partner, now + 2) == Standing(0, 1, 0)


def test_accounts_that_an_exempt_one_tied_stay_tied_by_what_else_they_share() -> None:
    side = Remembering()
    pair = {"client.network": "n", "device.fingerprint": "d"}
    between: Facts = {"account.id": "e", "payment.fingerprint": "c", "kyc.subject": "s"}
    one: Facts = {"account.id": "a", "payment.fingerprint": "c", **pair}
    other: Facts = {"account.id": "b", "kyc.subject": "s", **pair}
    for facts in (between, one, other):
        side.see(facts, START)
    assert side.see(one, START + 1).accounts == 3
    side.see({**between, "account.org": "partner"}, START + 2)
    later = START + 12 * MINUTE
    assert [side.see(facts, later).accounts for facts in (other, one)] == [2, 2]


def test_a_pair_that_is_public_for_few_strangers_ties_again_when_they_are_many() -> None:
    side = Remembering(most=1000)
    pair = {"client.network": "n", "device.fingerprint": "d"}
    crowd: list[Facts] = [{"account.id": f"a{number}", **pair} for number in range(20)]
    for facts in crowd:
        side.see(facts, START)
    for name in ("t", "u"):
        own = {"payment.fingerprint": name, "kyc.subject": name, "account.tier": "verified"}
        side.see({"account.id": name, "client.network": "n", "request.template": "x", **own}, START)
    later = START + 11 * MINUTE
    assert side.see(crowd[0], later).accounts == 1
    card = {"payment.fingerprint": "c"}
    side.see({"account.id": "a1", **card}, later)
    for number in range(40):
        side.see({"account.id": f"b{number}", **card}, later)
    assert side.see(crowd[0], later + MINUTE).accounts == 1
    assert side.see(crowd[0], later + 11 * MINUTE).accounts == 60


def test_a_known_account_is_seen_once_a_day_however_many_others_come() -> None:
    side = Remembering()
    seen: list[int] = []
    see = side.links.see

    def counted(sighting, pools, now):
        seen.append(sighting.account)
        return see(sighting, pools, now)

    side.links.see = counted  # type: ignore[method-assign]
    own: Facts = {"account.id": "a", "client.network": "n", "device.fingerprint": "d"}
    start = START - START % DAY
    for number in range(90):
        now = start + number * 15 * MINUTE
        side.see(own, now)
        side.see({"account.id": f"b{number}", "payment.fingerprint": f"c{number // 3}"}, now)
    assert seen.count(seen[0]) == 1
