"""Refusals that no body could change, found before the body is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from guardrail.engine import Decision, rule_facts
from guardrail.guard import Guard
from guardrail.guard.frame import Clock
from guardrail.model.effects import Mode
from guardrail.model.facts import STANDARD_FACTS, Source
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Block
from guardrail.signals import Signal

KNOWN_EARLY = frozenset(
    name for name, fact in STANDARD_FACTS.items() if fact.source is Source.SERVER
) | {"client.agent", "request.endpoint"}
"""The facts that a request's head settles."""

Refuse = Callable[[Mapping[str, object], frozenset[str], float], Decision | None]
"""Facts, the names of those unavailable, and the time, to a refusal or None."""


def early_refusals(
    policies: PolicySet,
    signals: Sequence[Signal],
    *,
    geo: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Clock = time.time,
) -> Refuse | None:
    """Return what refuses by the static rules alone that read nothing of a body.

    None where a policy set has no such rule. The rules are enforced a second time with the body
    known: this only spares an upload that cannot be served.
    """
    known = KNOWN_EARLY - _late(signals)
    rules = tuple(
        rule
        for rule in policies.rules
        if isinstance(rule.verb, Block)
        and rule.mode is Mode.ENFORCE
        and rule_facts(rule, policies.exemptions) <= known
    )
    if not rules:
        return None
    static = replace(
        policies,
        rules=tuple(replace(rule, index=index) for index, rule in enumerate(rules)),
        facts={name: replace(fact, required=False) for name, fact in policies.facts.items()},
    )
    guard = Guard.from_policies(static, signals=signals, geo=geo, environ=environ, clock=clock)

    def refuse(
        facts: Mapping[str, object], unavailable: frozenset[str], now: float
    ) -> Decision | None:
        decision = guard.decide(facts, unavailable=unavailable, now=now)
        return None if decision.allowed else decision

    return refuse


def _late(signals: Sequence[Signal]) -> frozenset[str]:
    """Return the facts that a host's own signals may establish from a body."""
    late: set[str] = set()
    for _ in signals:
        for signal in signals:
            if not signal.needs <= KNOWN_EARLY - late:
                late |= signal.provides
    return frozenset(late)
