"""Deciding, purely: plan what a request would charge, conclude from what the store answered."""

from __future__ import annotations

from guardrail.engine.conclude import Ruling, ShadowReport
from guardrail.engine.core import Engine
from guardrail.engine.decision import Decision
from guardrail.engine.explain import Explanation
from guardrail.engine.verbs import LimitStatus

__all__ = ["Decision", "Engine", "Explanation", "LimitStatus", "Ruling", "ShadowReport"]
