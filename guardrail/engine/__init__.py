"""Deciding, purely: plan what a request would charge, conclude from what the store answered."""

from __future__ import annotations

from guardrail.engine.bound import (
    ANY,
    PERIODS,
    Bound,
    Fleet,
    Profile,
    Term,
    all_together,
    bounds,
    cheapest,
)
from guardrail.engine.conclude import Ruling, ShadowReport, merge_obligations
from guardrail.engine.core import FACTS_UNAVAILABLE, Case, Decision, Engine
from guardrail.engine.emit_inline import Decide, Settle, decide_inline, settle_inline
from guardrail.engine.emit_rows import Question, ask_in_rows
from guardrail.engine.explain import (
    Answered,
    BandStory,
    ConditionStory,
    ExemptionStory,
    Explanation,
    RuleStory,
)
from guardrail.engine.expressions import SEPARATOR, allowance, define, rule_facts, whose_key
from guardrail.engine.facts import FOLLOWS_FROM, IDENTITIES, INVALID_FACT, FactReader
from guardrail.engine.precheck import HEAD_FACTS, head_rules
from guardrail.engine.program import Plan, rule_applies
from guardrail.engine.reach import KINDS, Point, points_of, reached
from guardrail.engine.sizes import Sizer, as_count, no_estimate, unlisted
from guardrail.engine.splits import NUMERIC, addresses, numbers, texts
from guardrail.engine.verbs import (
    BY_RULE,
    NEVER_FITS,
    REPEATED,
    Finding,
    Limit,
    LimitStatus,
    Part,
    Receipt,
    bind,
    in_unit,
    receipt_of,
)
from guardrail.engine.windows import pace_increment

__all__ = [
    "ANY",
    "BY_RULE",
    "FACTS_UNAVAILABLE",
    "FOLLOWS_FROM",
    "HEAD_FACTS",
    "IDENTITIES",
    "INVALID_FACT",
    "KINDS",
    "NEVER_FITS",
    "NUMERIC",
    "PERIODS",
    "REPEATED",
    "SEPARATOR",
    "Answered",
    "BandStory",
    "Bound",
    "Case",
    "ConditionStory",
    "Decide",
    "Decision",
    "Engine",
    "ExemptionStory",
    "Explanation",
    "FactReader",
    "Finding",
    "Fleet",
    "Limit",
    "LimitStatus",
    "Part",
    "Plan",
    "Point",
    "Profile",
    "Question",
    "Receipt",
    "RuleStory",
    "Ruling",
    "Settle",
    "ShadowReport",
    "Sizer",
    "Term",
    "addresses",
    "all_together",
    "allowance",
    "as_count",
    "ask_in_rows",
    "bind",
    "bounds",
    "cheapest",
    "decide_inline",
    "define",
    "head_rules",
    "in_unit",
    "merge_obligations",
    "no_estimate",
    "numbers",
    "pace_increment",
    "points_of",
    "reached",
    "receipt_of",
    "rule_applies",
    "rule_facts",
    "settle_inline",
    "texts",
    "unlisted",
    "whose_key",
]
