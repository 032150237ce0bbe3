"""What each rule answers while the store is away, and how the decision says so."""

from __future__ import annotations

from typing import Any

import pytest

from guardrail import Effect
from guardrail.errors import StoreError
from tests.guard.failing import DOWN, KINDS, KNOWN, LOST, Driver

VERBS = {
    "rate": "rate: {requests: 8/minute, burst: 8, key: account.id}",
    "budget": "budget: {requests: 8, per: day, key: account.id}",
    "lifetime": "budget: {requests: 8, per: lifetime, key: account.id}",
    "concurrency": "concurrency: {max: 8, key: account.id}",
    "distinct": "distinct: {count: request.template, max: 8, per: 90d, key: account.id}",
}
STRANGER = {"client.network": "192.0.2.0/24"}
TIERLESS = {"account.id": "a"}
UNTYPED = {"account.id": "a", "account.tier": "emperor"}


def rule(verb, more=""):
    return f"  - {{id: r, when: always, {VERBS[verb]}{more}}}\n"


def count_allowed(driver, facts, times=12):
    decisions = [
        driver.decide({**facts, "request.template": str(number)}) for number in range(times)
    ]
    return decisions, sum(decision.allowed for decision in decisions)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("verb", VERBS)
def test_allow_lets_everything_through_and_says_so(kind, verb):
    with Driver(kind, rule(verb, ", on_store_error: allow")) as driver:
        driver.store.fault = DOWN
        decisions, allowed = count_allowed(driver, KNOWN)

        assert allowed == 12
        assert {str(decision.mode) for decision in decisions} == {"open"}
        assert decisions[0].errors[0] == ("the store failed (connection refused): `r` let through")


@pytest.mark.parametrize("verb", VERBS)
def test_deny_refuses_for_the_moment_with_503(kind, verb):
    with Driver(kind, rule(verb, ", on_store_error: deny")) as driver:
        driver.store.fault = DOWN
        decision = driver.decide(KNOWN)

        assert (decision.effect, decision.rule, decision.reason) == (
            Effect.THROTTLE,
            "r",
            "store-unavailable",
        )
        assert (decision.status, decision.retry_after, str(decision.mode)) == (503, 1.0, "closed")
        assert decision.errors[0] == "the store failed (connection refused): `r` not let through"


@pytest.mark.parametrize("verb", VERBS)
def test_local_lets_through_this_processs_share(kind, verb):
    with Driver(kind, rule(verb, ", on_store_error: local")) as driver:
        driver.store.fault = DOWN
        decisions, allowed = count_allowed(driver, KNOWN)

        assert allowed == 2
        assert {str(decision.mode) for decision in decisions} == {"local"}
        assert decisions[0].errors[0].endswith("`r` counted by this process alone")
        assert all(decision.retry_after is not None for decision in decisions[2:])
        status = decisions[0].limits[0]
        assert (status.limit, status.used, status.remaining) == (2, 1, 1)


DEFAULTS = [
    *((verb, facts, "local") for verb in ("rate", "concurrency") for facts in (KNOWN, STRANGER)),
    *((verb, KNOWN, "local") for verb in ("budget", "lifetime")),
    *((verb, f, "closed") for verb in ("budget", "lifetime") for f in (STRANGER, TIERLESS)),
    ("budget", {"account.tier": "email"}, "closed"),
    ("budget", UNTYPED, "closed"),
    ("distinct", KNOWN, "closed"),
]


@pytest.mark.parametrize(("verb", "facts", "mode"), DEFAULTS)
def test_what_a_rule_answers_that_does_not_say(kind, verb, facts, mode):
    with Driver(kind, rule(verb)) as driver:
        driver.store.fault = DOWN

        assert str(driver.decide(facts).mode) == mode


def test_a_tier_is_known_also_where_no_rule_reads_it_but_not_if_it_is_no_tier(kind):
    rules = rule("budget", ", when: {account.size: {exists: true}}").replace("when: always, ", "")
    with Driver(kind, rules) as driver:
        driver.store.fault = DOWN

        assert str(driver.decide({**KNOWN, "account.size": 1}).mode) == "local"
        assert str(driver.decide({**UNTYPED, "account.size": 1}).mode) == "closed"


@pytest.mark.parametrize("answer", ["allow", "deny", "local"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_rule_in_shadow_never_refuses(kind, verb, answer):
    with Driver(kind, rule(verb, f", mode: shadow, on_store_error: {answer}")) as driver:
        driver.store.fault = DOWN
        decisions, allowed = count_allowed(driver, KNOWN)

        assert allowed == 12
        assert bool(decisions[0].shadow) == (answer == "deny")
        assert bool(decisions[5].shadow) == (answer != "allow")
        assert str(decisions[0].mode) == ("local" if answer == "local" else "open")


def test_a_rule_that_only_degrades_degrades_unless_told_to_deny(kind):
    degrading = rule("distinct", ", over: {degrade: {model: small}}%s")
    for more, effect in (("", "degrade"), (", on_store_error: deny", "throttle")):
        with Driver(kind, degrading % more) as driver:
            driver.store.fault = DOWN

            assert str(driver.decide(KNOWN).effect) == effect


def test_static_rules_need_no_store(kind):
    with Driver(kind, "  - {id: r, when: {account.id: a}, block: {}}\n" + rule("rate")[:0]) as d:
        d.store.fault = DOWN

        assert (str(d.decide(KNOWN).effect), str(d.decide(KNOWN).mode)) == ("block", "normal")


def test_one_refusal_charges_nothing_locally(kind):
    rules = rule("rate", ", on_store_error: local") + rule(
        "distinct", ", on_store_error: deny"
    ).replace("id: r,", "id: d,").replace("when: always", "when: {request.template: x}")
    with Driver(kind, rules) as driver:
        driver.store.fault = DOWN
        for _ in range(5):
            refused = driver.decide({**KNOWN, "request.template": "x"})
            assert (refused.rule, str(refused.mode)) == ("d", "closed")

        assert driver.decide({**KNOWN, "request.template": "y"}).limits[0].used == 1


@pytest.mark.parametrize(
    ("answers", "mode"),
    [
        ("allow allow", "open"),
        ("allow local", "local"),
        ("local deny", "closed"),
        ("allow local, mode: shadow", "open"),
        ("local deny, mode: shadow", "local"),
    ],
)
def test_the_mode_is_the_gravest_of_the_answers(kind, answers, mode):
    one, other = answers.split(maxsplit=1)
    rules = rule("rate", f", on_store_error: {one}") + rule(
        "budget", f", on_store_error: {other}"
    ).replace("id: r,", "id: s,")
    with Driver(kind, rules) as driver:
        driver.store.fault = DOWN

        assert str(driver.decide(KNOWN).mode) == mode


@pytest.mark.parametrize("fault", [KeyError("x"), LOST, StoreError("READONLY"), OSError(5, "io")])
def test_whatever_a_store_raises_is_its_failure_and_nobodys_crash(kind, fault):
    with Driver(kind, rule("distinct")) as driver:
        driver.store.fault = fault
        decision = driver.decide(KNOWN)

        assert str(decision.mode) == "closed"
        shown = str(fault) if isinstance(fault, StoreError) else repr(fault)
        assert shown in decision.errors[0]
        assert (driver.health.failures, shown in driver.health.problem) == (1, True)


@pytest.mark.parametrize("answer", [None, "half", "none"])
def test_an_answer_that_does_not_fit_is_a_failure(kind, answer):
    with Driver(kind, rule("distinct")) as driver:
        inner: Any = driver.store.inner
        whole = inner.acquire

        def crooked(charges, cells, now):
            outcome = whole(charges, cells, now)
            if answer == "half":
                return outcome._replace(replies=[])
            return outcome._replace(refused=[]) if answer == "none" else None

        inner.acquire = crooked

        assert driver.decide(KNOWN).reason == "store-unavailable"


def test_a_normal_decision_is_normal(kind):
    with Driver(kind, rule("rate") + rule("budget").replace("id: r,", "id: s,")) as driver:
        decision = driver.decide(KNOWN)

        assert (str(decision.mode), decision.errors) == ("normal", ())


def test_the_story_of_a_decision_without_the_store_can_be_told(kind):
    with Driver(kind, rule("rate") + rule("distinct").replace("id: r,", "id: s,")) as driver:
        driver.store.fault = DOWN
        told = driver.decide(KNOWN).explain()

        assert [story.reason for story in told.rules] == [None, "store-unavailable"]
        assert told.rules[0].counters[0].limit == 2


def test_to_be_over_a_share_is_not_told_as_being_over_the_limit(kind):
    with Driver(kind, rule("lifetime")) as driver:
        driver.store.fault = DOWN
        decisions, _ = count_allowed(driver, KNOWN)

        assert {str(d.effect) for d in decisions[2:]} == {"throttle"}
        assert {d.reason for d in decisions[2:]} == {"store-unavailable"}
    with Driver(kind, rule("budget")) as driver:
        driver.store.fault = DOWN
        decisions, _ = count_allowed(driver, KNOWN)

        assert decisions[5].reason == "r"
        assert decisions[5].retry_after == 60.0
