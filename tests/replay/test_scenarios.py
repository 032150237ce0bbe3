"""The tests in policy files: how they are run, and what fails them."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import pytest

from guardrail.loading import load_text
from guardrail.model.effects import Effect
from guardrail.model.policy import Expectation, PolicySet
from guardrail.scenarios import ScenarioResult, run_suite, undecided_rules

RULES = """
guardrail: 1
policy: p
models:
  large: {weaker: small}
  small: {}
rules:
  - {id: banned, when: {account.id: bad}, block: {reason: no_entry}}
  - id: day
    when: always
    budget: {tokens: 100, per: day, key: account.id}
    steps:
      - {at: 50%, degrade: {model: small, max_output_tokens: 10}}
      - {at: 100%, throttle: {reason: daily}}
  - {id: flight, when: always, concurrency: {max: 2, key: account.id}}
  - {id: quiet, when: {geo.country: DE}, block: {}, mode: shadow, unknown: skip}
  - {id: idle, when: always, block: {}, mode: "off"}
tests:
"""
FACTS = "facts: {account.id: a1, request.model: large}"


def policies(tests: str) -> PolicySet:
    """Return the rules above with some tests."""
    return load_text(RULES + textwrap.indent(textwrap.dedent(tests).strip(), "  ") + "\n")


def result(steps: str, facts: str = FACTS) -> ScenarioResult:
    """Return the result of one test."""
    text = f"- name: t\n  now: 2026-03-01T12:00:00Z\n  {facts}\n  steps:\n"
    text += textwrap.indent(textwrap.dedent(steps).strip(), "    ")
    [found] = run_suite(policies(text)).results
    return found


PASSING = {
    "an effect alone": "- {expect: allow}",
    "money spent in steps": """
        - {tokens: 50, output_tokens: 0, expect: allow}
        - {tokens: 1, output_tokens: 0, expect: {degrade: small, by: day}}
        - {tokens: 50, output_tokens: 0, expect: {throttle: daily, by: day, retry_after: 12h}}
        """,
    "obligations": """
        - {tokens: 51, output_tokens: 0,
           expect: {degrade: small, obligations: {model: small, max_output_tokens: 10}}}
        """,
    "usage below the amounts": """
        - {repeat: 3, tokens: 40, output_tokens: 0, usage: {input_tokens: 5}, expect: allow}
        """,
    "another day": """
        - {tokens: 100, output_tokens: 0}
        - {tokens: 1, output_tokens: 0, expect: throttle}
        - {advance: 12h, tokens: 1, output_tokens: 0, expect: allow}
        """,
    "requests that last": """
        - {tokens: 1, output_tokens: 0, duration: 10s, expect: allow, repeat: 2, every: 1s}
        - {tokens: 1, output_tokens: 0, expect: {throttle: flight, by: flight}}
        - {tokens: 1, output_tokens: 0, advance: 8s, expect: allow}
        """,
    "facts of one step": """
        - {facts: {account.id: bad}, expect: {block: no_entry, by: banned}}
        - {expect: allow}
        """,
    "shadow rules": """
        - {facts: {geo.country: DE}, expect: {allow: true, shadow: [quiet]}}
        - {expect: {allow: true, shadow: []}}
        """,
}


@pytest.mark.parametrize("steps", PASSING.values(), ids=PASSING)
def test_what_is_expected_and_comes_passes(steps):
    assert result(steps).mismatch is None


FAILING = {
    "- {expect: block}": ("block", "allow"),
    "- {facts: {account.id: bad}, expect: throttle}": ("throttle", "block no_entry by banned"),
    "- {facts: {account.id: bad}, expect: {block: other}}": (
        "block other",
        "block no_entry by banned",
    ),
    "- {facts: {account.id: bad}, expect: {block: no_entry, by: day}}": (
        "block no_entry by day",
        "block no_entry by banned",
    ),
    "- {tokens: 51, output_tokens: 0, expect: {degrade: large}}": (
        "degrade large",
        "degrade small by day",
    ),
    "- {tokens: 60, output_tokens: 0, expect: {degrade: small, obligations: {disable: [tools]}}}": (
        "obligation disable: tools",
        "obligation disable: none",
    ),
    "- {facts: {account.id: bad}, expect: {block: true, retry_after: 1h}}": (
        "retry_after 3600s",
        "retry_after none",
    ),
    "- {facts: {geo.country: DE}, expect: {allow: true, shadow: []}}": (
        "shadow none",
        "shadow quiet",
    ),
    "- {expect: {allow: true, shadow: [quiet]}}": ("shadow quiet", "shadow none"),
}


@pytest.mark.parametrize(("steps", "difference"), FAILING.items(), ids=FAILING)
def test_what_differs_is_told(steps, difference):
    mismatch = result(steps).mismatch

    assert mismatch is not None
    assert mismatch.differences == (difference,)


def test_a_repeated_expectation_holds_for_each_repeat():
    mismatch = result(
        "- {repeat: 9, every: 60s, tokens: 20, output_tokens: 0, expect: allow}"
    ).mismatch

    assert mismatch is not None
    assert mismatch.number == 3
    assert mismatch.facts == {"account.id": "a1", "request.model": "large"}


def test_requests_and_simulated_time_are_counted():
    found = result("- {repeat: 3, every: 60s}\n- {advance: 1h}")

    assert (found.requests, found.simulated) == (4, 3780.0)


def test_each_test_starts_with_empty_counters():
    one = "- {name: %s, facts: {account.id: a1}, steps: [{tokens: 60, output_tokens: 0}]}\n"
    suite = run_suite(policies(one % "one" + one % "two"))

    assert [(entry.scenario.name, entry.mismatch) for entry in suite.results] == [
        ("one", None),
        ("two", None),
    ]


def test_the_emergency_switch_has_no_say(monkeypatch):
    monkeypatch.setenv("GUARDRAIL_MODE", "shadow")
    monkeypatch.setenv("GUARDRAIL_MODE_UNTIL", "2030-01-01")
    suite = run_suite(policies("- {name: t, facts: {account.id: bad}, expect: block}"))

    assert suite.failed == 0


def test_rules_that_decided_no_test_are_known():
    tests = """
        - {name: one, facts: {account.id: bad}, expect: block}
        - {name: two, facts: {account.id: a1, geo.country: DE}, expect: allow}
        """
    expected = "expect: {allow: true, shadow: [quiet]}"
    found, shadowed = policies(tests), policies(tests.replace("expect: allow", expected))

    assert undecided_rules(found, run_suite(found).decided) == ("day", "flight", "quiet")
    assert undecided_rules(found, run_suite(shadowed).decided) == ("day", "flight")


def test_an_expectation_by_a_rule_that_is_not_there_fails():
    found = policies("- {name: t, facts: {account.id: bad}, expect: block}")
    [scenario] = found.scenarios
    [step] = scenario.steps
    expect = Expectation(effect=Effect.BLOCK, by="bannd", span=step.span)
    wrong = replace(scenario, steps=(replace(step, expect=expect),))
    [entry] = run_suite(replace(found, scenarios=(wrong,))).results

    assert entry.mismatch is not None
    assert entry.mismatch.differences == (("by bannd", "there is no such rule"),)
    assert entry.requests == 0
