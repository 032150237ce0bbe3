"""Exact answers about all requests: what can never be, what is looser, what is proved."""

from __future__ import annotations

from guardrail.analysis.bound import (
    ANY,
    PERIODS,
    Bound,
    Fleet,
    Profile,
    Trust,
    all_together,
    bounds,
    trust,
)
from guardrail.analysis.claims import Proof, proved
from guardrail.analysis.comparing import Change, Changes, Restart, RuleChange, compared
from guardrail.analysis.findings import UNANSWERED, analyse, folded
from guardrail.analysis.reach import KINDS, Point, points_of, reached
from guardrail.analysis.space import Space
from guardrail.analysis.witnesses import Witness, smallest

__all__ = [
    "ANY",
    "KINDS",
    "PERIODS",
    "UNANSWERED",
    "Bound",
    "Change",
    "Changes",
    "Fleet",
    "Point",
    "Profile",
    "Proof",
    "Restart",
    "RuleChange",
    "Space",
    "Trust",
    "Witness",
    "all_together",
    "analyse",
    "bounds",
    "compared",
    "folded",
    "points_of",
    "proved",
    "reached",
    "smallest",
    "trust",
]
