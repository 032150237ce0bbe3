"""A policy set to put rules into, and what is asked of it."""

from __future__ import annotations

from guardrail.testing import MovableClock, guard_of

HEAD = """
guardrail: 1
policy: p
facts:
  account.tier: {type: level, values: [anonymous, email, verified], default: anonymous}
models:
  large: {price: {input: 15, output: 75}, max_output: 100, weaker: medium}
  medium: {price: {input: 3, output: 15}, max_output: 100, weaker: small}
  small: {price: {input: 1, output: 5}, max_output: 100}
rules:
"""
A = {"account.id": "a", "request.model": "large"}


def guard(rules: str, clock: MovableClock | None = None):
    return guard_of(HEAD + rules, clock=clock)


def answers(guarded, times, facts=A, **estimate):
    decisions = [guarded.decide(facts, estimate or None) for _ in range(times)]
    return [str(decision.effect) for decision in decisions]


DAILY = "  - {id: daily, when: always, budget: {requests: 10, per: day, key: account.id}, %s}\n"
