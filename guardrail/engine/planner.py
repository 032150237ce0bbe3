"""The generated planner: source for the rules that always apply, and for each index bucket."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.engine.closures import Planner, member_text, static_finding, verb_amounts
from guardrail.engine.index import Index
from guardrail.engine.limits.base import Limit
from guardrail.engine.plan import Plan
from guardrail.engine.source import Source, define
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Block, Degrade, Distinct, Rule


class GeneratedPlanner:
    """Plans with generated functions; those of index buckets are made when first needed."""

    def __init__(
        self,
        policies: PolicySet,
        rules: Sequence[Rule],
        limits: Sequence[Limit | None],
        index: Index,
    ) -> None:
        self._policies = policies
        self._rules = rules
        self._limits = limits
        self._always = self._function(index.always, "rules")
        self._buckets: list[tuple[str, dict[object, Planner | tuple[int, ...]]]] = [
            (name, dict(bucket)) for name, bucket in index.buckets.items()
        ]

    def __call__(self, plan: Plan) -> None:
        """Add what every rule asks for to the plan."""
        self._always(plan)
        for name, bucket in self._buckets:
            value = plan.facts.get(name)
            found = bucket.get(value)
            if found is None:
                continue
            if isinstance(found, tuple):
                found = bucket[value] = self._function(found, f"rules of {name}")
            found(plan)

    def _function(self, places: Sequence[int], title: str) -> Planner:
        source = Source(self._policies.facts)
        body: list[str] = []
        for place in places:
            body += self._rule_lines(source, self._rules[place], self._limits[place])
        lines = ["def planner(plan):", "    facts = plan.facts", "    t = plan.now"]
        lines += ["    now = t / 1000000", "    get = facts.get"]
        lines += [f"    {v} = get({name!r})" for name, v in source.variables.items()]
        planner: Planner = define(lines + body, source.constants, "planner", title)
        return planner

    def _rule_lines(self, source: Source, rule: Rule, limit: Limit | None) -> list[str]:
        applies = source.applies(rule, self._policies.exemptions)
        body = self._consequence(source, rule, limit)
        if not applies:
            return [f"    {line}" for line in body]
        return [f"    if {applies}:", *(f"        {line}" for line in body)]

    def _consequence(self, source: Source, rule: Rule, limit: Limit | None) -> list[str]:
        verb = rule.verb
        if isinstance(verb, (Block, Degrade)):
            return [f"plan.findings.append({source.constant('F', static_finding(rule))})"]
        lines = source.key_lines(rule, verb, "key", "facts")
        amounts = "".join(f"{source.amount(amount)}, " for amount in verb_amounts(verb))
        member = '""'
        guard = "key is not None"
        if isinstance(verb, Distinct):
            write = source.constant("M", member_text)
            member = "member"
            lines.append(f"member = {write}({source.constant('V', verb)}, facts)")
            if rule.unknown == "skip":
                guard += f" and {source.variable(verb.count)} is not None"
        charge = f"{source.constant('L', limit)}.charge(plan, ({amounts}), key, {member})"
        return [*lines, f"if {guard}:", f"    {charge}"]
