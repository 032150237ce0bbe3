"""Which rules the head of a request decides alone: static ones that read nothing of a body."""

from __future__ import annotations

from dataclasses import replace

from guardrail.engine.expressions import rule_facts
from guardrail.model.effects import Mode
from guardrail.model.facts import STANDARD_FACTS, Source
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Block

HEAD_FACTS = frozenset(
    name for name, fact in STANDARD_FACTS.items() if fact.source is Source.SERVER
) | {"client.agent", "request.endpoint"}
"""The facts that are settled once the head of a request is read and its credential looked up."""


def head_rules(policies: PolicySet, known: frozenset[str]) -> PolicySet | None:
    """Return a policy set of the enforced blocks alone that read no facts but those `known`.

    None where there is no such block. No fact is required in it: what is missing may still come.
    """
    rules = tuple(
        rule
        for rule in policies.rules
        if isinstance(rule.verb, Block)
        and rule.mode is Mode.ENFORCE
        and rule_facts(rule, policies.exemptions) <= known
    )
    if not rules:
        return None
    return replace(
        policies,
        rules=tuple(replace(rule, index=index) for index, rule in enumerate(rules)),
        facts={name: replace(fact, required=False) for name, fact in policies.facts.items()},
    )
