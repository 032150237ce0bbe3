"""Conditions follow Kleene's tables, as closures and as source."""

from __future__ import annotations

import ipaddress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.engine.expressions import Expressions, define
from guardrail.engine.facts import FactReader
from guardrail.model import conditions as reference
from guardrail.model.amounts import SECOND
from guardrail.model.conditions import (
    ALWAYS,
    Answer,
    Comparison,
    Condition,
    Every,
    Negation,
    Some,
    compile_condition,
    text_of,
)
from guardrail.model.facts import STANDARD_FACTS
from tests.engine.conditions import TESTED, condition
from tests.engine.policies import START, declared_facts, request

NOW = START / SECOND
NAMES = ("account.id", "account.org", "kyc.subject")
T, F, U = True, False, None

AND = [(T, T, T), (T, F, F), (T, U, U), (F, F, F), (F, U, F), (U, U, U)]
OR = [(T, T, T), (T, F, T), (T, U, T), (F, F, F), (F, U, U), (U, U, U)]
NOT = [(T, F), (F, T), (U, U)]


def known(name: str, answer: Answer) -> Comparison:
    return Comparison(name, "in", frozenset(("yes",)), name)


def facts_for(*answers: Answer) -> dict[str, object]:
    words = {True: "yes", False: "no"}
    return {n: words[a] for n, a in zip(NAMES, answers, strict=False) if a is not None}


def answer_of(when: Condition, facts: dict[str, object]) -> Answer:
    """Return the one answer that the closures and both forms of the source agree on."""
    closures = compile_condition(when)(facts, NOW)
    assert sourced(when, facts, unknown=True) == (closures is not False)
    assert sourced(when, facts, unknown=False) == (closures is True)
    return closures


def sourced(when: Condition, facts: dict[str, object], *, unknown: bool) -> bool:
    declared = {**STANDARD_FACTS, **declared_facts(Random(0))}
    source = Expressions(declared)
    expression = source.condition(when, unknown=unknown)
    lines = ["def holds(get, now):"]
    lines += [f"    {v} = get({name!r})" for name, v in source.variables.items()]
    lines.append(f"    return {expression}")
    return bool(define(lines, source.constants, "holds", "test")(facts.get, NOW))


@pytest.mark.parametrize(("left", "right", "both"), AND)
def test_every_follows_kleenes_table(left: Answer, right: Answer, both: Answer) -> None:
    parts = (known(NAMES[0], left), known(NAMES[1], right))

    assert answer_of(Every(parts), facts_for(left, right)) is both
    assert answer_of(Every(parts[::-1]), facts_for(left, right)) is both


@pytest.mark.parametrize(("left", "right", "either"), OR)
def test_some_follows_kleenes_table(left: Answer, right: Answer, either: Answer) -> None:
    parts = (known(NAMES[0], left), known(NAMES[1], right))

    assert answer_of(Some(parts), facts_for(left, right)) is either
    assert answer_of(Some(parts[::-1]), facts_for(left, right)) is either


@pytest.mark.parametrize(("part", "opposite"), NOT)
def test_a_negation_follows_kleenes_table(part: Answer, opposite: Answer) -> None:
    assert answer_of(Negation(known(NAMES[0], part)), facts_for(part)) is opposite


def test_nothing_at_all_is_true_of_every_and_false_of_some() -> None:
    assert answer_of(Every(()), {}) is True
    assert answer_of(Some(()), {}) is False


NET = (ipaddress.ip_network("192.0.2.0/24"),)
OPERATORS = [
    ("x.score", "gt", 2, 3, 2),
    ("x.score", "gte", 2, 2, 1.9),
    ("x.score", "lt", 2, 1, 2),
    ("x.score", "lte", 2, 2, 2.1),
    ("x.score", "in", frozenset((2, 5)), 2.0, 3),
    ("x.score", "not_in", frozenset((2,)), 3, 2),
    ("x.flag", "in", frozenset((True,)), True, False),
    ("x.tags", "in", frozenset(("a",)), ("b", "a"), ("b",)),
    ("x.tags", "not_in", frozenset(("a",)), (), ("a",)),
    ("x.since", "before", None, NOW - 1, NOW),
    ("x.since", "after", None, NOW + 1, NOW),
    ("x.since", "before", 5.0, 4.0, 5.0),
    ("x.since", "after", 5.0, 6.0, 5.0),
    ("kyc.subject", "prefix", ("ab", "c"), "cd", "a"),
    ("kyc.subject", "same_as", "account.id", "a", "b"),
    ("client.ip", "cidr", NET, "192.0.2.9", "198.51.100.1"),
    ("client.ip", "cidr", NET, "192.0.2.9", "2001:db8::1"),
    ("client.network", "cidr", NET, "192.0.2.0/28", "no network"),
]


@pytest.mark.parametrize(("fact", "operator", "operand", "yes", "no"), OPERATORS)
def test_an_operator_is_true_false_or_unknown(
    fact: str, operator: str, operand: object, yes: object, no: object
) -> None:
    test = Comparison(fact, operator, operand, "test")  # type: ignore[arg-type]

    assert answer_of(test, {"account.id": "a", fact: yes}) is True
    assert answer_of(test, {"account.id": "a", fact: no}) is False
    assert answer_of(test, {"account.id": "a"}) is None


def test_a_comparison_with_a_missing_fact_is_unknown() -> None:
    test = Comparison("kyc.subject", "same_as", "account.id", "test")

    assert answer_of(test, {"kyc.subject": "a"}) is None


def test_whether_a_fact_exists_is_never_unknown() -> None:
    for wanted in (True, False):
        test = Comparison("kyc.subject", "exists", wanted, "test")

        assert answer_of(test, {}) is not wanted
        assert answer_of(test, {"kyc.subject": "a"}) is wanted


def check_source_against_closures(seed: int) -> None:
    rng = Random(seed)
    declared = declared_facts(rng)
    when = condition(rng, declared, 4)
    reader = FactReader(declared, TESTED, "UTC")
    facts, _ = reader.read(request(rng).facts, NOW)
    answer_of(when, facts)


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_source_and_closures_agree_on_any_condition(seed: int) -> None:
    check_source_against_closures(seed)


def check_many(seeds: int) -> None:
    for seed in range(seeds):
        check_source_against_closures(seed)


def test_agreement_finds_closures_that_take_the_unknown_for_false(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = reference.evaluate
    monkeypatch.setattr(reference, "evaluate", lambda *args: honest(*args) or False)

    with pytest.raises(AssertionError):
        check_many(50)


def test_agreement_finds_source_that_does_not_swap_the_unknown_under_a_negation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = Expressions.condition

    def unswapped(self: Expressions, when: Condition, *, unknown: bool) -> str:
        if isinstance(when, Negation):
            return f"(not {self.condition(when.part, unknown=unknown)})"
        return honest(self, when, unknown=unknown)

    monkeypatch.setattr(Expressions, "condition", unswapped)
    with pytest.raises(AssertionError):
        check_many(400)


def test_a_condition_in_words_shows_what_is_joined_first():
    a, b, c = (Comparison(name, "exists", True, name) for name in "abc")

    assert text_of(Every((a, Some((b, c))))) == "a and (b or c)"
    assert text_of(Some((Every((a, b)), c))) == "(a and b) or c"
    assert text_of(Negation(Some((a, b)))) == "not (a or b)"
    assert text_of(Every((Negation(a), b))) == "not a and b"
    assert text_of(ALWAYS) == "always"
