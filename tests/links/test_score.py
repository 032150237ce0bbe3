"""What tells against actors, and what may follow from it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from guardrail import Guard
from guardrail.engine import FactReader
from guardrail.errors import PolicyError
from guardrail.links.tally import Scorer, Tallies, Tally, _tells, _united
from guardrail.model.conditions import Comparison, compile_condition
from tests.loaded import loaded
from tests.threads import by_threads

MONDAY = 1_780_272_000.0
DAY = 86_400.0

POLICY = """
guardrail: 1
policy: scores
facts: {account.tier: {type: level, values: [free, verified]}}
links:
  trusted: {account.tier: verified}
  strong: [payment.fingerprint, kyc.subject]
score:
  window: 2d
  min_accounts: 3
  evidence:
    - {id: many-networks, family: network, count: client.network, above: 4, points: 30}
    - {id: rented, family: network, when: {network.kind: {in: [hosting, vpn]}}, above: 80%, least: 10, points: 20}
    - {id: one-template, family: template, same: request.template, above: 80%, least: 10, points: 25}
    - {id: abroad, family: geo, when: {geo.country: {not: DE}}, above: 50%, least: 10, points: 15}
    - {id: clockwork, family: clock, even: true, above: 90%, least: 10, points: 5}
  breaker: {established: {account.age: {gte: 30d}}, most: 2, per: 1h}
rules:
  - {id: slow, when: {actor.score: {gte: 40}}, rate: {requests: 1/hour, key: actor.id}}
  - id: stop
    when: {actor.score: {gte: 55}}
    block: {remedy: verify, message: verify an identity or write to appeals@example.com}
"""  # noqa: E501


def guard_for(text: str = POLICY) -> Guard:
    return Guard.from_policies(loaded(text))


def shown(number: int, **more: object) -> dict[str, object]:
    """Return the facts of one of some accounts on a card."""
    names = {"network": "client.network", "kind": "network.kind", "template": "request.template"}
    facts: dict[str, object] = {
        "account.id": f"a{number}", "account.tier": "free", "payment.fingerprint": "c",
        "geo.country": "DE", "client.network": "n", "network.kind": "business",
    }  # fmt: skip
    return facts | {names.get(name, name): value for name, value in more.items()}


def send(guard: Guard, count: int, now: float = MONDAY, accounts: int = 5, **more: object) -> float:
    """Send requests of several accounts at uneven times; return when the last was sent."""
    dice = random.Random(count)
    for at in range(count):
        now += dice.choice((1, 7, 90))
        facts = shown(at % accounts, **{k: v(at) if callable(v) else v for k, v in more.items()})
        guard.decide(facts, now=now)
    return now


def score(guard: Guard, now: float, number: int = 0) -> tuple[object, object]:
    """Return score and evidence of an account's next request."""
    facts = guard.decide(shown(number), now=now + 1).explain().facts
    return facts["actor.score"], facts.get("actor.evidence")


def test_one_family_alone_scores_nothing_whatever_it_shows() -> None:
    guard = guard_for()
    now = send(guard, 60, kind="vpn", network=lambda at: f"n{at}")
    assert score(guard, now)[0] == 0


def test_two_families_score_the_most_points_of_each() -> None:
    guard = guard_for()
    now = send(guard, 25, kind="vpn", template="t", network=lambda at: f"n{at}")
    assert score(guard, now)[0] == 55  # 30 of the network's 30 and 20, and 25 of the template's


def test_requests_at_even_times_tell_against_an_actor_where_more_does() -> None:
    scores = []
    for jitter in (0, 1, 50):
        dice, guard, now = random.Random(7), guard_for(), MONDAY
        for at in range(30):
            now += 60 + dice.uniform(-jitter, jitter)
            guard.decide(shown(at % 5, template="t"), now=now)
        scores.append(score(guard, now))
    # Even times are one family, and one template is the other.
    assert scores == [(30, ("clockwork", "one-template"))] * 2 + [(0, ())]


def test_requests_that_came_at_two_moments_only_are_not_even() -> None:
    guard = guard_for()
    for moment in (MONDAY, MONDAY + 60):
        for at in range(20):
            guard.decide(shown(at % 5, template="t", kind="business"), now=moment)
    assert score(guard, MONDAY + 60) == (0, ())


def test_gaps_go_on_from_the_later_request_of_two_actors_who_are_one() -> None:
    scorer = Scorer(loaded(POLICY))
    showing = scorer.read({}, MONDAY)
    for first, second in ((0, 1000), (1000, 0)):
        one, other = Tally(scorer.signs), Tally(scorer.signs)
        for at in range(20):
            one.add(scorer, showing, MONDAY + first + at * 10)
            other.add(scorer, showing, MONDAY + second + at * 10)
        one.absorb(other)
        one.add(scorer, showing, MONDAY + 1000 + 200)
        assert one._current.records[-1] == pytest.approx((39, 10.0, 0.0))


def told(tally: Tally, scorer: Scorer, now: float) -> tuple[str, ...]:
    return tally.found(scorer, now).evidence


@pytest.mark.parametrize("taken_over", [False, True])
def test_requests_of_two_actors_who_are_one_are_added_up(taken_over: bool) -> None:
    scorer = Scorer(loaded(POLICY))
    rented = scorer.read(shown(0, kind="vpn", template="t"), MONDAY)
    plain = scorer.read(shown(0), MONDAY)

    def tally(showing: tuple[Any, ...], count: int) -> Tally:
        made = Tally(scorer.signs)
        for at in range(count):
            made.add(scorer, showing, MONDAY + at * at)
        return made

    def joined(one: Tally, other: Tally) -> Tally:
        into, gone = (other, one) if taken_over else (one, other)
        into.absorb(gone)
        return into

    assert told(tally(rented, 8), scorer, MONDAY + 99) == ()
    together = joined(tally(rented, 8), tally(rented, 8))
    assert told(together, scorer, MONDAY + 99) == ("one-template", "rented")
    assert told(tally(rented, 20), scorer, MONDAY + 999) == ("one-template", "rented")
    assert told(joined(tally(rented, 20), tally(plain, 20)), scorer, MONDAY + 999) == ()


@pytest.mark.parametrize("taken_over", [False, True])
@pytest.mark.parametrize(("halves", "counts"), [(0, True), (1, True), (2, False), (200, False)])
def test_what_was_seen_before_the_window_comes_back_with_no_other_actor(
    halves: int, counts: bool, taken_over: bool
) -> None:
    scorer = Scorer(loaded(POLICY))
    rented = scorer.read(shown(0, kind="vpn", template="t"), MONDAY)
    old, new = Tally(scorer.signs), Tally(scorer.signs)
    for at in range(20):
        old.add(scorer, rented, MONDAY + at * at)
    later = MONDAY + halves * scorer.half + 500
    new.add(scorer, scorer.read(shown(0), later), later)
    into, gone = (new, old) if taken_over else (old, new)
    into.absorb(gone)

    assert bool(told(into, scorer, later)) is counts
    assert told(into, scorer, later + 2 * scorer.half) == ()


CLOCK = "    - {id: clockwork, family: clock, even: true, above: 90%, least: 10, points: 5}\n"
CHANGED = {
    "one more": POLICY.replace(CLOCK, CLOCK.replace("clockwork", "steady") + CLOCK),
    "one less": POLICY.replace(CLOCK, ""),
    "another order": POLICY.replace(CLOCK, "").replace("  evidence:\n", "  evidence:\n" + CLOCK),
    "more points": POLICY.replace("points: 25", "points: 27"),
}


@pytest.mark.parametrize("changed", CHANGED.values(), ids=CHANGED)
@pytest.mark.parametrize("later", [1.0, DAY, 5 * DAY])
def test_what_signs_told_that_stay_is_kept_where_policies_change(
    changed: str, later: float
) -> None:
    guard = guard_for()
    before = send(guard, 25, template="t", kind="vpn")
    found = score(guard, before)[0]
    assert found == 45
    after = guard.with_policies(loaded(changed))
    worth = 2 if "points: 27" in changed else 0
    if later < 2 * DAY:
        assert score(after, before + later)[0] == found + worth
    now = send(after, 30, now=before + later, template="t", kind="vpn")
    assert score(after, now) == (45 + worth, ("one-template", "rented"))


def test_two_actors_who_become_one_may_have_been_seen_by_other_policies() -> None:
    scorers = [Scorer(loaded(text)) for text in (POLICY, CHANGED["another order"])]
    for first, second in (scorers, reversed(scorers)):
        tallies = []
        for scorer, at in ((first, MONDAY), (second, MONDAY + 500)):
            made = Tally(scorer.signs)
            for number in range(8):
                showing = scorer.read(shown(0, kind="vpn", template="t"), MONDAY)
                made.add(scorer, showing, at + number * number)
            tallies.append(made)
        tallies[0].absorb(tallies[1])
        assert told(tallies[0], second, MONDAY + 999) == ("one-template", "rented")
        assert told(tallies[0], first, MONDAY + 999) == ("one-template", "rented")


def test_explain_tells_which_evidence_made_up_a_score() -> None:
    policy = POLICY.replace("{actor.score: {gte: 40}}", "{actor.evidence: {in: [one-template]}}")
    guard = guard_for(policy)
    now = send(guard, 25, kind="vpn", template="t")
    assert score(guard, now) == (45, ("one-template", "rented"))


def test_a_request_is_not_refused_by_what_it_shows_itself_but_the_next_one_is() -> None:
    guard, effects = guard_for(), []
    for at in range(12):
        facts = shown(at % 5, kind="vpn", template="t", network=f"n{at}")
        effects.append(guard.decide(facts, now=MONDAY + at * at).effect.name)
    # The first was of an account alone.
    assert effects == ["ALLOW"] * 11 + ["BLOCK"]


def test_a_block_by_score_tells_how_to_appeal_and_ends_by_itself() -> None:
    guard = guard_for()
    now = send(guard, 25, kind="vpn", template="t", network=lambda at: f"n{at}")
    decision = guard.decide(shown(1), now=now)
    assert decision.rule == "stop"
    assert decision.obligations == {}
    assert "appeals@example.com" in (decision.message or "")
    for hour in range(60):  # whoever goes on asking makes it no longer
        guard.decide(shown(1, kind="vpn", template="t"), now=now + hour * 3600)
    assert guard.decide(shown(1), now=now + 2.5 * DAY).allowed


def test_accounts_that_stand_alone_or_are_few_have_no_score() -> None:
    guard = guard_for()
    now = send(guard, 60, accounts=2, kind="vpn", template="t", network=lambda at: f"n{at}")
    assert score(guard, now)[0] == 0


def test_a_trusted_account_is_not_scored_for_what_others_show() -> None:
    guard = guard_for()
    now = send(guard, 40, kind="vpn", template="t", network=lambda at: f"n{at}")
    victim = shown(77) | {"account.tier": "verified"}
    assert not guard.decide(shown(1), now=now).allowed
    assert guard.decide(victim, now=now).allowed


def test_what_tells_against_two_actors_is_added_up_when_they_are_one() -> None:
    guard = guard_for()
    now = send(guard, 30, network=lambda at: f"n{at}")
    for at in range(60):
        abroad = shown(100 + at % 4) | {"payment.fingerprint": "d", "geo.country": "FR"}
        now += (at % 3) * 20 + 1
        guard.decide(abroad, now=now)
    assert score(guard, now)[0] == 0
    assert guard.decide(abroad, now=now).explain().facts["actor.score"] == 0
    guard.decide(shown(200) | {"kyc.subject": "s"}, now=now)
    guard.decide(shown(201) | {"payment.fingerprint": "d", "kyc.subject": "s"}, now=now)
    assert score(guard, now) == (45, ("abroad", "many-networks"))


def test_the_breaker_spares_established_accounts_and_no_others() -> None:
    guard = guard_for()
    old = {"account.created": MONDAY - 90 * DAY}
    now = send(guard, 40, kind="vpn", template="t", network=lambda at: f"n{at}")

    def stopped(number: int, at: float, **facts: object) -> bool:
        return guard.decide(shown(number, **facts), now=at).rule == "stop"

    assert not guard.warnings(now=now)
    assert stopped(51, now, **old)
    assert stopped(52, now, **old)
    assert not stopped(53, now, **old)
    assert stopped(53, now)  # of no known age
    assert stopped(51, now + 60, **old)  # acted on before
    (warning,) = guard.warnings(now=now)
    assert "no further established account" in warning
    assert stopped(54, now + 3700, **old)  # armed again
    assert not guard.warnings(now=now + 3700)


@pytest.mark.parametrize("seed", range(20))
def test_the_spread_of_gaps_is_that_of_all_of_them_however_they_were_gathered(seed: int) -> None:
    dice, scorer = random.Random(seed), Scorer(loaded(POLICY))
    gaps = [dice.expovariate(0.1) for _ in range(dice.randrange(2, 60))]
    cut, showing = dice.randrange(len(gaps)), scorer.read({}, MONDAY)
    halves: list[list[Any]] = [[None] * len(scorer.signs) for _ in range(2)]
    for at, gap in enumerate(gaps):
        scorer.count(showing, MONDAY, halves[at >= cut], gap)
    count, mean, squares = _united(halves[0][-1], halves[1][-1])
    average = sum(gaps) / len(gaps)
    assert count == len(gaps)
    assert mean == pytest.approx(average)
    assert squares == pytest.approx(sum((gap - average) ** 2 for gap in gaps))


@pytest.mark.parametrize("seed", range(40))
def test_two_halves_of_a_window_tell_what_they_would_as_one(seed: int) -> None:
    dice, scorer, told = random.Random(seed), Scorer(loaded(POLICY)), 0
    few = dice.randrange(1, 9)
    for _ in range(30):
        halves: list[list[Any]] = [[None] * len(scorer.signs) for _ in range(2)]
        count = dice.randrange(40)
        for at in range(count):
            facts = shown(
                0,
                network=f"n{dice.randrange(few)}",
                kind=dice.choice(("vpn", "hosting", "business")),
                template=f"t{min(dice.randrange(few), dice.randrange(few))}",
            )
            half = halves[at < dice.choice((0, count // 2, count))]
            scorer.count(scorer.read(facts, MONDAY), MONDAY, half, dice.choice((10.0, 10.1)))
        for sign, one, other in zip(scorer.signs, *halves, strict=True):
            together, apart = _united(one, other), _tells(sign, one, other, count)
            assert (
                apart == _tells(sign, together, None, count) == _tells(sign, None, together, count)
            )
            told += apart
    assert told


ODD: tuple[object, ...] = (
    None, "", "DE", "FR", "vpn", "n", 3, -1, 2.5, float("nan"), True, [], ["a"], {}, ("x", "y"),
)  # fmt: skip


def test_a_value_of_another_type_shows_nothing() -> None:
    policies = loaded(POLICY.replace("geo.country: {not: DE}", "account.age: {lt: 30d}"))
    score, dice = policies.score, random.Random(5)
    assert score is not None
    scorer = Scorer(policies)
    reader = FactReader(policies.facts, score.shown, policies.timezone)
    young = compile_condition(Comparison("account.age", "lt", 30 * DAY, ""))
    records: list[object] = [None] * 5
    as_read: list[object] = [None] * 5
    were_young = 0
    for _ in range(2_000):
        names = ("client.network", "network.kind", "request.template", "account.created")
        facts = {name: dice.choice((*ODD, MONDAY - DAY, MONDAY + DAY)) for name in names}
        typed, _notes = reader.read(facts, MONDAY)
        gap = dice.random()
        scorer.count(scorer.read(facts, MONDAY), MONDAY, records, gap)
        scorer.count(tuple(map(typed.get, scorer.shown)), MONDAY, as_read, gap)
        were_young += young(typed, MONDAY) is True
        assert records == as_read
    assert records[3] == were_young > 0


def test_threads_count_every_request_of_an_actor_once() -> None:
    scorer, tallies = Scorer(loaded(POLICY)), Tallies()
    showing = scorer.read({"geo.country": "FR", "client.network": "n"}, MONDAY)

    def work() -> None:
        for number in range(2_000):
            tallies.add(scorer, 7, showing, MONDAY + number / 100)
            tallies.act(number % 50, scorer, True, MONDAY + number)
            tallies.found(7, scorer, MONDAY)

    by_threads(4, work)
    tally = tallies._kept[7]
    assert tally._current.requests + tally._former.requests == 8_000


def test_the_commonest_values_stay_few_however_many_actors_join() -> None:
    scorer, tallies = Scorer(loaded(POLICY)), Tallies()
    for actor in range(1, 400):
        for number in range(8):
            showing = scorer.read({"request.template": f"t{actor}-{number}"}, MONDAY)
            tallies.add(scorer, actor, showing, MONDAY)
        tallies.join(1, [actor] if actor > 1 else [])
    records = tallies._kept[1]._current.records
    assert max(len(record) for record in records if isinstance(record, dict)) <= 8


def test_a_tally_stays_small_whatever_is_shown() -> None:
    guard = guard_for()
    send(guard, 3000, template=lambda at: f"t{at}", network=lambda at: f"n{at}")
    tallies = guard._context.links.tallies  # type: ignore[union-attr]
    (kept,) = tallies._kept.values()
    assert isinstance(kept, Tally)
    sizes = [
        len(r)
        for half in (kept._current, kept._former)
        for r in half.records
        if isinstance(r, dict)
    ]
    assert max(sizes) <= 8


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("family: network", "family: one", "nothing is ever scored"),
        ("count: client.network", "same: actor.id", "cannot rest on `actor.id`"),
        ("above: 4,", "above: 40%,", "is not a count"),
        ("above: 80%", "above: 3", "is not a share"),
        ("count: client.network", "count: client.network, even: true", "exactly one of"),
        ("id: rented", "id: abroad", "is there twice"),
        ("account.age: {gte: 30d}", "client.agent: x", "cannot rest on `client.agent`"),
    ],
)
def test_a_score_that_cannot_hold_is_an_error(old: str, new: str, wanted: str) -> None:
    text = POLICY.replace(old, new)
    if new == "family: one":
        for family in ("template", "geo", "clock"):
            text = text.replace(f"family: {family}", "family: one")
    with pytest.raises(PolicyError) as raised:
        loaded(text)
    assert any(wanted in found.message for found in raised.value.diagnostics)
