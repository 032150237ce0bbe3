"""Exact answers about all requests: what can never be, what is looser, what is proved."""

from __future__ import annotations

from guardrail.analysis.claims import Proof, proved
from guardrail.analysis.comparing import Change, Changes, Restart, RuleChange, compared
from guardrail.analysis.findings import UNANSWERED, analyse
from guardrail.analysis.space import Space
from guardrail.analysis.witnesses import Witness, smallest

__all__ = [
    "UNANSWERED",
    "Change",
    "Changes",
    "Proof",
    "Restart",
    "RuleChange",
    "Space",
    "Witness",
    "analyse",
    "compared",
    "proved",
    "smallest",
]
