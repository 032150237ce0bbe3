"""Deciding, purely: plan what a request would charge, conclude from what the store answered."""

from __future__ import annotations

from guardrail.engine.conclude import Ruling, ShadowReport, merge_obligations
from guardrail.engine.core import Case, Decision, Engine
from guardrail.engine.emit_facts import conditional, indented
from guardrail.engine.emit_inline import Decide, decide_inline
from guardrail.engine.emit_rows import PlanRows, plan_in_rows
from guardrail.engine.explain import (
    Answered,
    BandStory,
    ConditionStory,
    ExemptionStory,
    Explanation,
    RuleStory,
)
from guardrail.engine.expressions import (
    SEPARATOR,
    Expressions,
    allowance,
    define,
    rule_facts,
    whose_key,
)
from guardrail.engine.facts import FOLLOWS_FROM, IDENTITIES, INVALID_FACT, FactReader, completed
from guardrail.engine.plan import Ban, Plan, Row, receipt_of
from guardrail.engine.precheck import HEAD_FACTS, head_rules
from guardrail.engine.program import FACTS_UNAVAILABLE, Interpreter, rule_applies
from guardrail.engine.settling import Corrections, Settle, settle_elsewhere, settle_inline
from guardrail.engine.sizes import Sizer, as_count, no_estimate, unlisted
from guardrail.engine.verbs import (
    BY_RULE,
    NEVER_FITS,
    REPEATED,
    Finding,
    Limit,
    LimitStatus,
    Receipt,
    Stand,
    bind,
    in_unit,
    pace_increment,
    pace_room,
)

__all__ = [
    "BY_RULE",
    "FACTS_UNAVAILABLE",
    "FOLLOWS_FROM",
    "HEAD_FACTS",
    "IDENTITIES",
    "INVALID_FACT",
    "NEVER_FITS",
    "REPEATED",
    "SEPARATOR",
    "Answered",
    "Ban",
    "BandStory",
    "Case",
    "ConditionStory",
    "Corrections",
    "Decide",
    "Decision",
    "Engine",
    "ExemptionStory",
    "Explanation",
    "Expressions",
    "FactReader",
    "Finding",
    "Interpreter",
    "Limit",
    "LimitStatus",
    "Plan",
    "PlanRows",
    "Receipt",
    "Row",
    "RuleStory",
    "Ruling",
    "Settle",
    "ShadowReport",
    "Sizer",
    "Stand",
    "allowance",
    "as_count",
    "bind",
    "completed",
    "conditional",
    "decide_inline",
    "define",
    "head_rules",
    "in_unit",
    "indented",
    "merge_obligations",
    "no_estimate",
    "pace_increment",
    "pace_room",
    "plan_in_rows",
    "receipt_of",
    "rule_applies",
    "rule_facts",
    "settle_elsewhere",
    "settle_inline",
    "unlisted",
    "whose_key",
]
